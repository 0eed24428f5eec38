//! Unfolding: words of activations, spread over the halves of two.

#[cfg(dsp)]
use core::ops::Range;

#[cfg(dsp)]
use super::{even_bytes, odd_bytes};
#[cfg(dsp)]
use crate::arch::PIXELS;
#[cfg(dsp)]
use crate::arch::patches::GROUP;
use crate::arch::patches::{Group, Window, unfold_taps};

/// See [`reference::unfold_i8`](crate::arch::reference::unfold_i8).
#[inline(never)]
pub(crate) fn unfold_i8(patches: &mut [Group], window: &Window<'_, i8>) {
    #[cfg(dsp)]
    if whole_groups(patches, window, 1, spread_bytes).is_none() && fits(patches, window) {
        for pixel in 0..PIXELS {
            // SAFETY: the window and the patches have been seen to hold what is read and written.
            unsafe { unfold_pixel(patches, window, pixel) }
        }
    }
    // A machine without the instructions has no loops to test.
    #[cfg(not(dsp))]
    unfold_taps(patches, window);
}

/// See [`reference::unfold_i16`](crate::arch::reference::unfold_i16).
#[inline(never)]
pub(crate) fn unfold_i16(patches: &mut [Group], window: &Window<'_, i16>) {
    #[cfg(dsp)]
    if whole_groups(patches, window, 4, spread_halves).is_some() {
        return;
    }
    unfold_taps(patches, window);
}

/// Whether the ring has what the window covers, and the patches room for it.
#[cfg(dsp)]
fn fits<T>(patches: &[Group], window: &Window<'_, T>) -> bool {
    let Window { ring, rows, pixels, run } = *window;
    let reach = pixels.iter().fold(0, |most, &pixel| most.max(pixel)) + run;
    let inside = rows.iter().all(|&row| row + reach <= ring.len());
    inside && (rows.len() * run).div_ceil(GROUP) <= patches.len()
}

/// What instructions read that unfold rows of whole groups.
#[cfg(dsp)]
#[repr(C)]
struct Rows<T> {
    /// The ring at each pixel's offset.
    starts: [*const T; PIXELS],
    /// Offsets of the rows that are left, and their end.
    rows: *const usize,
    end: *const usize,
    /// Bytes of a row's groups.
    bytes: usize,
}

/// Unfolds rows of whole groups by `spread`, which asks for an alignment; `None` if they are not.
#[cfg(dsp)]
#[inline(always)]
fn whole_groups<T>(
    patches: &mut [Group],
    window: &Window<'_, T>,
    alignment: usize,
    spread: unsafe extern "C" fn(*mut Group, &mut Rows<T>),
) -> Option<()> {
    let Window { ring, rows, pixels, run } = *window;
    if !run.is_multiple_of(GROUP) || run == 0 || !fits(patches, window) {
        return None;
    }
    let offsets = rows.iter().chain(&pixels).fold(0, |all, &offset| all | offset) * size_of::<T>();
    if !(ring.as_ptr().addr() | offsets).is_multiple_of(alignment) {
        return None;
    }
    let [a, b, c, d] = pixels;
    let start = |pixel| ring.as_ptr().wrapping_add(pixel);
    let Range { start: first, end } = rows.as_ptr_range();
    let bytes = run / GROUP * size_of::<Group>();
    let mut rows = Rows { starts: [start(a), start(b), start(c), start(d)], rows: first, end, bytes };
    // SAFETY: the ring holds a run from each start and row on, and the patches the groups of all rows.
    unsafe { spread(patches.as_mut_ptr(), &mut rows) };
    Some(())
}

/// Unfolds one pixel where rows of the kernel begin in the midst of a group.
///
/// # Safety
/// The window lies in its ring, and the patches hold its groups.
#[cfg(dsp)]
unsafe fn unfold_pixel(patches: &mut [Group], window: &Window<'_, i8>, pixel: usize) {
    let Window { ring, rows, pixels, run } = *window;
    let mut place = patches.as_mut_ptr().cast::<[u32; 2]>().wrapping_add(pixel);
    let mut put = |word: u32| {
        // SAFETY: there is a group for each four taps.
        unsafe { *place = [even_bytes(word), odd_bytes(word)] };
        place = place.wrapping_add(PIXELS);
    };
    // The bytes of a group that is not full, and their bits.
    let (mut word, mut held) = (0u32, 0);
    let offset = pixels.get(pixel).copied().unwrap_or_default();
    for &row in rows {
        // SAFETY: the ring holds `run` elements from there on. Reads of words need no alignment.
        unsafe {
            let mut tap = ring.as_ptr().add(row + offset);
            let end = tap.add(run);
            let words = tap.add(run - run % GROUP);
            while tap != words {
                let next = tap.cast::<u32>().read_unaligned();
                tap = tap.add(GROUP);
                put(word | next << held);
                // Two shifts, so that 32 is none too many.
                word = next >> 1 >> (31 - held);
            }
            while tap != end {
                word |= u32::from(*tap as u8) << held;
                tap = tap.add(1);
                held += 8;
                if held == 32 {
                    put(word);
                    (word, held) = (0, 0);
                }
            }
        }
    }
    if held > 0 {
        put(word);
    }
}

/// A function that unfolds rows: how a row's offset becomes bytes, and what brings four taps at each pixel into a group. A row takes
/// 17 instructions besides.
#[cfg(dsp)]
macro_rules! spread {
    ($(#[$doc:meta])* $name:ident, $element:ty, $shift:literal, $($group:literal),*) => {
        $(#[$doc])*
        #[cfg(dsp)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name(groups: *mut Group, rows: &mut Rows<$element>) {
            core::arch::naked_asm!(
                ".cpu cortex-m4",
                "push {{r1, r4-r11, lr}}",
                "2:",
                "ldr r1, [sp]",
                "ldrd r6, r7, [r1, #{rows}]",
                "cmp r6, r7",
                "beq 3f",
                "ldr r8, [r6], #4",
                "str r6, [r1, #{rows}]",
                "ldr r6, [r1, #{bytes}]",
                "ldm r1, {{r2-r5}}",
                concat!("add r2, r2, r8, lsl #", $shift),
                concat!("add r3, r3, r8, lsl #", $shift),
                concat!("add r4, r4, r8, lsl #", $shift),
                concat!("add r5, r5, r8, lsl #", $shift),
                "adds r1, r0, r6",
                ".p2align 2",
                "1:",
                $($group,)*
                "cmp r0, r1",
                "bne 1b",
                "b 2b",
                "3:",
                "pop {{r1, r4-r11, pc}}",
                rows = const core::mem::offset_of!(Rows<$element>, rows),
                bytes = const core::mem::offset_of!(Rows<$element>, bytes),
            )
        }
    };
}

#[cfg(dsp)]
spread!(
    /// Spreads bytes from four places into groups: 15 instructions for one.
    spread_bytes, i8, "0",
    "ldr r6, [r2], #4",
    "ldr r8, [r3], #4",
    "ldr r10, [r4], #4",
    "ldr r12, [r5], #4",
    "sxtb16 r7, r6, ror #8",
    "sxtb16 r6, r6",
    "sxtb16 r9, r8, ror #8",
    "sxtb16 r8, r8",
    "sxtb16 r11, r10, ror #8",
    "sxtb16 r10, r10",
    "sxtb16 lr, r12, ror #8",
    "sxtb16 r12, r12",
    "stmia r0!, {{r6-r12, lr}}"
);

#[cfg(dsp)]
spread!(
    /// Orders halves from four places, aligned to words, into groups: 16 instructions for one.
    spread_halves, i16, "1",
    "ldrd r6, r7, [r2], #8",
    "pkhbt r8, r6, r7, lsl #16",
    "pkhtb r9, r7, r6, asr #16",
    "ldrd r6, r7, [r3], #8",
    "pkhbt r10, r6, r7, lsl #16",
    "pkhtb r11, r7, r6, asr #16",
    "stmia r0!, {{r8-r11}}",
    "ldrd r6, r7, [r4], #8",
    "pkhbt r8, r6, r7, lsl #16",
    "pkhtb r9, r7, r6, asr #16",
    "ldrd r6, r7, [r5], #8",
    "pkhbt r10, r6, r7, lsl #16",
    "pkhtb r11, r7, r6, asr #16",
    "stmia r0!, {{r8-r11}}"
);
