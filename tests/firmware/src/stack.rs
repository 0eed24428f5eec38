//! How deep the stack was: memory below it is painted before the run and searched after it.

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::board;

const PAINT: u32 = 0xA5A5_5A5A;
/// Bytes painted below the stack pointer: far more than a run may use.
const REACH: usize = 64 * 1024;
/// Bytes right below the stack pointer that painting leaves alone: its own frame.
const MARGIN: usize = 256;

static TOP: AtomicUsize = AtomicUsize::new(0);

/// Paints the memory below the stack pointer.
#[inline(never)]
pub fn paint() {
    let here = black_box(0u32);
    let top = ((&raw const here) as usize - MARGIN) & !3;
    TOP.store(top, Ordering::Relaxed);
    let mut at = top - REACH;
    while at < top {
        // SAFETY: every board has more than this below its stack.
        unsafe { (at as *mut u32).write_volatile(PAINT) };
        at += 4;
    }
}

/// Bytes of stack that were used since painting, the caller's frame included.
#[inline(never)]
pub fn depth() -> u64 {
    let top = TOP.load(Ordering::Relaxed);
    let mut at = top - REACH;
    // SAFETY: the memory that was painted.
    while at < top && unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    (board::stack_top() - at) as u64
}
