//! QEMU's `virt` machine: the cycle counter counts instructions.

use core::arch::{asm, global_asm};

global_asm!(
    ".section .init, \"ax\"",
    ".global _start",
    "_start:",
    "la sp, _stack_start",
    "la t0, __bss_start",
    "la t1, __bss_end",
    "1: bgeu t0, t1, 2f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 1b",
    "2: j {entry}",
    entry = sym entry
);

extern "C" fn entry() -> ! {
    super::exit(crate::main())
}

/// Nothing to start.
pub fn start_counter() {}

/// Instructions since reset.
pub fn instructions() -> u64 {
    loop {
        let (high, low, again): (u32, u32, u32);
        // SAFETY: reads counters.
        unsafe {
            asm!("csrr {}, mcycleh", "csrr {}, mcycle", "csrr {}, mcycleh", out(reg) high, out(reg) low, out(reg) again,
                options(nomem, nostack));
        }
        if high == again {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Where the stack begins.
pub fn stack_top() -> usize {
    unsafe extern "C" {
        static _stack_start: u32;
    }
    (&raw const _stack_start) as usize
}
