//! Cortex-M boards: SysTick at the processor's clock counts.

use core::sync::atomic::{AtomicU32, Ordering};

const CONTROL: *mut u32 = 0xE000_E010 as *mut u32;
const RELOAD: *mut u32 = 0xE000_E014 as *mut u32;
const VALUE: *mut u32 = 0xE000_E018 as *mut u32;
/// The timer has 24 bits.
const MASK: u32 = 0x00FF_FFFF;

static LAST: AtomicU32 = AtomicU32::new(0);
static TOTAL: AtomicU32 = AtomicU32::new(0);

#[cortex_m_rt::entry]
fn entry() -> ! {
    super::exit(crate::main())
}

fn elapsed() -> u32 {
    // SAFETY: reads the timer, which nothing else uses.
    MASK - (unsafe { VALUE.read_volatile() } & MASK)
}

/// Starts the timer, counting down from its largest value.
pub fn start_counter() {
    // SAFETY: the timer's own registers.
    unsafe {
        RELOAD.write_volatile(MASK);
        VALUE.write_volatile(0);
        CONTROL.write_volatile(0b101);
    }
    LAST.store(elapsed(), Ordering::Relaxed);
}

/// Ticks since the start; has to be called at least once in 2²⁴ ticks.
pub fn instructions() -> u64 {
    let now = elapsed();
    let passed = now.wrapping_sub(LAST.load(Ordering::Relaxed)) & MASK;
    LAST.store(now, Ordering::Relaxed);
    let total = TOTAL.load(Ordering::Relaxed).wrapping_add(passed);
    TOTAL.store(total, Ordering::Relaxed);
    total.into()
}

/// Where the stack begins.
pub fn stack_top() -> usize {
    unsafe extern "C" {
        static _stack_start: u32;
    }
    (&raw const _stack_start) as usize
}
