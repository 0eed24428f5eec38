//! Memory for one session at a time.

#[cfg(not(target_has_atomic = "8"))]
use core::cell::Cell;
use core::cell::UnsafeCell;
#[cfg(target_has_atomic = "8")]
use core::sync::atomic::{AtomicBool, Ordering};

/// Static memory of `N` bytes, aligned for a session, handed out once.
///
/// ```
/// static ARENA: waft::Arena<1024> = waft::Arena::new();
/// let memory: &'static mut [u8] = ARENA.take().expect("first use");
/// assert_eq!(memory.len(), 1024);
/// assert!(ARENA.take().is_none());
/// ```
///
/// Where an `&'static mut Arena` exists without it, no `take` is needed: a local resource of RTIC, a `static mut` inside a
/// function with `#[cortex_m_rt::entry]`, or what a `StaticCell` hands out.
///
/// ```
/// # use waft::Arena;
/// fn memory<const N: usize>(arena: &'static mut Arena<N>) -> &'static mut [u8] {
///     arena.as_mut_slice()
/// }
/// ```
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Arena<const N: usize> {
    memory: UnsafeCell<[u8; N]>,
    #[cfg(target_has_atomic = "8")]
    taken: AtomicBool,
    #[cfg(not(target_has_atomic = "8"))]
    taken: critical_section::Mutex<Cell<bool>>,
}

// SAFETY: shared references give access to the memory only through `take`, which lets one caller pass.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    /// Zeroed memory: lies in `.bss`.
    pub const fn new() -> Self {
        Self {
            memory: UnsafeCell::new([0; N]),
            #[cfg(target_has_atomic = "8")]
            taken: AtomicBool::new(false),
            #[cfg(not(target_has_atomic = "8"))]
            taken: critical_section::Mutex::new(Cell::new(false)),
        }
    }

    /// The memory, the first time; `None` after that.
    ///
    /// On cores without atomic swaps (Armv6-M, RISC-V without A) the crate `critical-section` lets one caller pass. A
    /// program links there if something implements it: the hardware abstraction layer does (`critical-section-impl` of
    /// embassy-rp and rp2040-hal, esp-hal always), or `cortex-m` (`critical-section-single-core`) or `riscv`
    /// (`critical-section-single-hart`).
    #[allow(clippy::mut_from_ref, reason = "the swap lets one caller pass")]
    pub fn take(&'static self) -> Option<&'static mut [u8]> {
        if self.is_taken() {
            return None;
        }
        // SAFETY: the swap lets exactly one caller come here, so this is the only reference that will ever exist.
        Some(unsafe { &mut *self.memory.get() })
    }

    /// Whether a caller was here before.
    #[cfg(target_has_atomic = "8")]
    fn is_taken(&self) -> bool {
        self.taken.swap(true, Ordering::AcqRel)
    }

    /// Whether a caller was here before.
    #[cfg(not(target_has_atomic = "8"))]
    fn is_taken(&self) -> bool {
        critical_section::with(|section| self.taken.borrow(section).replace(true))
    }

    /// The memory of an arena that is not shared.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.get_mut()
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    #[cfg_attr(target_os = "wasi", ignore = "it has one thread")]
    fn one_of_several_threads_gets_the_memory() {
        static ARENA: Arena<40> = Arena::new();
        let given = std::thread::scope(|scope| {
            let takers: [_; 3] = core::array::from_fn(|taker| {
                scope.spawn(move || {
                    let memory = ARENA.take()?;
                    assert!(memory.as_ptr().addr().is_multiple_of(crate::format::ALIGN));
                    memory.fill(taker as u8 + 1);
                    Some(memory)
                })
            });
            takers.map(|taker| taker.join().expect("no panic"))
        });
        let [memory] = given.into_iter().flatten().collect::<std::vec::Vec<_>>().try_into().expect("one taker");
        assert!(memory.len() == 40 && memory[0] > 0 && memory.iter().all(|&byte| byte == memory[0]));
        assert!(ARENA.take().is_none());
    }

    #[test]
    fn what_is_not_shared_needs_no_taking() {
        let mut arena = Arena::<24>::default();
        arena.as_mut_slice()[23] = 7;
        assert_eq!(arena.as_mut_slice().iter().map(|&byte| u32::from(byte)).sum::<u32>(), 7);
        assert!(arena.as_mut_slice().as_ptr().addr().is_multiple_of(crate::format::ALIGN));
    }
}
