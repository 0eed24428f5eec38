//! What differs between boards: entry and a timer that counts instructions under QEMU's `-icount shift=0`.

/// The mps2 boards: Cortex-M, CMSDK timer 0 at the system clock.
mod mps2 {
    const TIMER0: *mut u32 = 0x4000_0000 as *mut u32;

    #[cortex_m_rt::entry]
    fn entry() -> ! {
        crate::main()
    }

    /// Starts the timer, counting down from its largest value.
    pub fn start_timer() {
        // SAFETY: CTRL, VALUE and RELOAD of the board's timer, which nothing else uses.
        unsafe {
            TIMER0.write_volatile(0);
            TIMER0.add(2).write_volatile(u32::MAX);
            TIMER0.add(1).write_volatile(u32::MAX);
            TIMER0.write_volatile(1);
        }
    }

    /// Ticks since the start.
    pub fn ticks() -> u32 {
        // SAFETY: VALUE of the same timer.
        u32::MAX - unsafe { TIMER0.add(1).read_volatile() }
    }
}

pub use mps2::{start_timer, ticks};
