//! QEMU's `virt` machine: the virtual counter ticks at 62.5 MHz.

use core::arch::{asm, global_asm};

global_asm!(
    ".section .init, \"ax\"",
    ".global _start",
    "_start:",
    // Vector registers may be used.
    "mov x0, #(3 << 20)",
    "msr cpacr_el1, x0",
    "isb",
    "ldr x0, =_stack_start",
    "mov sp, x0",
    "ldr x0, =__bss_start",
    "ldr x1, =__bss_end",
    "1: cmp x0, x1",
    "b.hs 2f",
    "str xzr, [x0], #8",
    "b 1b",
    "2: b {entry}",
    entry = sym entry
);

extern "C" fn entry() -> ! {
    super::exit(crate::main())
}

/// Nothing to start.
pub fn start_counter() {}

/// Ticks since reset.
pub fn instructions() -> u64 {
    let ticks;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
    ticks
}

/// Where the stack begins.
pub fn stack_top() -> usize {
    unsafe extern "C" {
        static _stack_start: u32;
    }
    (&raw const _stack_start) as usize
}
