/* Reset: clears static memory and calls main. Nothing has initial data. */
#include "semihosting.h"

extern uint32_t bss_start[], bss_end[];
extern void stack_top(void);
int main(void);

__attribute__((used, noreturn)) static void start(void) {
#if defined(__ARM_FP)
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the FPU is off after reset. */
  __asm__ volatile("dsb\nisb");
#endif
  for (volatile uint32_t *word = bss_start; word < bss_end; word++) *word = 0;
  semihosting_exit(main());
}

#if defined(__arm__)
static void fault(void) { semihosting_exit(1); }

__attribute__((section(".start"), used)) static void (*const vectors[16])(void) = {
    stack_top, start, fault, fault, fault, fault, fault,
};
#else
__asm__(".section .start, \"ax\"\n.global _start\n_start: la sp, stack_top\nj start\n.previous\n");
#endif
