/* The three semihosting calls that the firmware needs, for Arm and RISC-V. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

static inline uintptr_t semihosting_call(uintptr_t operation, uintptr_t parameter) {
#if defined(__arm__)
  register uintptr_t r0 __asm__("r0") = operation;
  register uintptr_t r1 __asm__("r1") = parameter;
  __asm__ volatile("bkpt #0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
#else
  register uintptr_t a0 __asm__("a0") = operation;
  register uintptr_t a1 __asm__("a1") = parameter;
  __asm__ volatile(".option push\n.option norvc\n.balign 16\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
  return a0;
#endif
}

static inline void semihosting_print(const char *text) { semihosting_call(0x04, (uintptr_t)text); }

static inline void semihosting_command_line(char *line, size_t len) {
  uintptr_t block[2] = {(uintptr_t)line, len};
  if (semihosting_call(0x15, (uintptr_t)block) != 0) line[0] = 0;
}

__attribute__((noreturn)) static inline void semihosting_exit(int failed) {
  for (;;) semihosting_call(0x18, failed ? 0 : 0x20026);
}

#endif
