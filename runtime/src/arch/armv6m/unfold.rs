//! Unfolding.

use super::Tap;
use crate::arch::PIXELS;
use crate::arch::patches::{Group, Window};

/// Unfolds a window of a ring of 8 bits.
#[inline(never)]
pub(super) fn unfold_bytes(patches: &mut [Group], window: &Window<'_, i8>) {
    unfold(patches, window, |taps, runs, bytes| {
        #[cfg(armv6m)]
        // SAFETY: there are as many taps as a run has bytes, one at least.
        unsafe {
            unfold_run_of_bytes(taps.as_mut_ptr(), runs, bytes);
        }
        #[cfg(not(armv6m))]
        unfold_run(taps, runs, bytes);
    });
}

/// The same of 16 bits.
#[inline(never)]
pub(super) fn unfold_halves(patches: &mut [Group], window: &Window<'_, i16>) {
    unfold(patches, window, |taps, runs, bytes| {
        #[cfg(armv6m)]
        // SAFETY: there are as many taps as a run has elements, one at least.
        unsafe {
            unfold_run_of_halves(taps.as_mut_ptr(), runs, bytes);
        }
        #[cfg(not(armv6m))]
        unfold_run(taps, runs, bytes);
    });
}

/// Where a row of the kernel covers the ring at each pixel in the order of a [`Tap`]: pointers for instructions, else the runs
/// themselves.
#[cfg(armv6m)]
type Runs<'a, T> = [*const T; PIXELS];
#[cfg(not(armv6m))]
type Runs<'a, T> = [&'a [T]; PIXELS];

/// Unfolds a window row by row of the kernel: taps, runs, and the bytes of each.
#[inline(always)]
fn unfold<'a, T>(patches: &mut [Group], window: &Window<'a, T>, unfold_run: impl Fn(&mut [Tap], &Runs<'a, T>, usize)) {
    let Window { ring, rows, pixels, run } = *window;
    for (row, taps) in rows.iter().zip(patches.as_flattened_mut().chunks_exact_mut(run.max(1))) {
        let [a, b, c, d] = pixels;
        let runs = [b, a, c, d].map(|pixel| ring.get(row + pixel..row + pixel + run).unwrap_or_default());
        if run > 0 && runs.iter().all(|found| found.len() == run) {
            #[cfg(armv6m)]
            let runs = runs.map(<[T]>::as_ptr);
            unfold_run(taps, &runs, run * size_of::<T>());
        }
    }
}

/// What the instructions do.
#[cfg(not(armv6m))]
fn unfold_run<T: Copy + Into<i16>>(taps: &mut [Tap], runs: &Runs<'_, T>, _bytes: usize) {
    for (at, tap) in taps.iter_mut().enumerate() {
        let [b, a, c, d] = runs.map(|run| run[at].into());
        *tap = [b ^ i16::MIN, a, c ^ i16::MIN, d];
    }
}

/// A function that unfolds a row of the kernel of so many bytes, which are not none: how an element is loaded, and its bytes.
///
/// A tap takes 15 instructions.
#[cfg(armv6m)]
macro_rules! unfold_run {
    ($name:ident, $element:ty, $load:literal, $bytes:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(taps: *mut Tap, runs: &Runs<'_, $element>, bytes: usize) {
            core::arch::naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "push {{r4}}",
                "mov r12, r2",
                "movs r4, #1",
                "lsls r4, r4, #15",
                "mov r8, r4",
                "ldmia r1!, {{r2-r5}}",
                "mov r1, r2",
                "mov r2, r3",
                "mov r3, r4",
                "mov r4, r5",
                "movs r5, #0",
                "2:",
                concat!($load, " r6, [r1, r5]"),
                concat!($load, " r7, [r2, r5]"),
                "lsls r7, r7, #16",
                "adds r6, r6, r7",
                "add r6, r8",
                "stmia r0!, {{r6}}",
                concat!($load, " r6, [r3, r5]"),
                concat!($load, " r7, [r4, r5]"),
                "lsls r7, r7, #16",
                "adds r6, r6, r7",
                "add r6, r8",
                "stmia r0!, {{r6}}",
                concat!("adds r5, #", $bytes),
                "cmp r5, r12",
                "bne 2b",
                "pop {{r4}}",
                "mov r8, r4",
                "pop {{r4-r7, pc}}",
            )
        }
    };
}
#[cfg(armv6m)]
unfold_run!(unfold_run_of_bytes, i8, "ldrsb", "1");
#[cfg(armv6m)]
unfold_run!(unfold_run_of_halves, i16, "ldrsh", "2");
