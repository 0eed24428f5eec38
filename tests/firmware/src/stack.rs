//! How deep the stack was: memory below it is painted before the run and searched after it.

const PAINT: u32 = 0xA5A5_5A5A;
/// Bytes painted below the stack pointer: far more than a run may use.
const REACH: usize = 64 * 1024;
/// Bytes right below the stack pointer that painting leaves alone: its own frame.
const MARGIN: usize = 64;

static TOP: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

fn pointer() -> usize {
    let here: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, sp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    here
}

/// Paints the memory below the stack pointer.
#[inline(never)]
pub fn paint() {
    let top = (pointer() - MARGIN) & !3;
    TOP.store(top, core::sync::atomic::Ordering::Relaxed);
    let mut at = top - REACH;
    while at < top {
        // SAFETY: the boards have megabytes of memory below the stack, of which the statics use the other end.
        unsafe { (at as *mut u32).write_volatile(PAINT) };
        at += 4;
    }
}

/// Bytes of stack that were used since painting, the caller's frame included.
#[inline(never)]
pub fn depth() -> u32 {
    unsafe extern "C" {
        static _stack_start: u32;
    }
    let top = TOP.load(core::sync::atomic::Ordering::Relaxed);
    let mut at = top - REACH;
    // SAFETY: the memory that was painted.
    while at < top && unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    (core::ptr::addr_of!(_stack_start) as usize - at) as u32
}
