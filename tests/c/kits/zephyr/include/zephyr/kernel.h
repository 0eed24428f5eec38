#include <stddef.h>
#include <stdint.h>

#define __aligned(bytes) __attribute__((aligned(bytes)))

static inline void k_yield(void) {}
