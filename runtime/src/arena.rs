//! Memory for one session at a time.

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
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Arena<const N: usize> {
    memory: UnsafeCell<[u8; N]>,
    #[cfg(target_has_atomic = "8")]
    taken: AtomicBool,
}

// SAFETY: shared references give access to the memory only through `take`, which lets one caller pass.
#[cfg(target_has_atomic = "8")]
unsafe impl<const N: usize> Sync for Arena<N> {}

// SAFETY: without atomic swaps `take` is an unsafe function whose caller guarantees a single call.
#[cfg(not(target_has_atomic = "8"))]
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    /// Zeroed memory: lies in `.bss`.
    pub const fn new() -> Self {
        Self {
            memory: UnsafeCell::new([0; N]),
            #[cfg(target_has_atomic = "8")]
            taken: AtomicBool::new(false),
        }
    }

    /// The memory, the first time; `None` after that.
    #[cfg(target_has_atomic = "8")]
    #[allow(clippy::mut_from_ref, reason = "the swap lets one caller pass")]
    pub fn take(&'static self) -> Option<&'static mut [u8]> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap lets exactly one caller come here, so this is the only reference that will ever exist.
        Some(unsafe { &mut *self.memory.get() })
    }

    /// The memory, on cores without atomic swaps (Armv6-M, RISC-V without A).
    ///
    /// # Safety
    /// At most one call in the life of the program.
    #[cfg(not(target_has_atomic = "8"))]
    #[allow(clippy::mut_from_ref, reason = "the caller guarantees a single call")]
    pub unsafe fn take_once(&'static self) -> &'static mut [u8] {
        // SAFETY: the caller guarantees that no other reference exists.
        unsafe { &mut *self.memory.get() }
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
