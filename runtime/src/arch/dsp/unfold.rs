//! Unfolding: words of activations, spread over the halves of two.

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

/// Unfolds rows of whole groups by `spread`, which asks for an alignment; `None` if they are not.
#[cfg(dsp)]
#[inline(always)]
fn whole_groups<T>(
    patches: &mut [Group],
    window: &Window<'_, T>,
    alignment: usize,
    spread: unsafe extern "C" fn(*mut Group, *mut Group, *const [*const T; PIXELS]),
) -> Option<()> {
    let Window { ring, rows, pixels, run } = *window;
    if !run.is_multiple_of(GROUP) || run == 0 || !fits(patches, window) {
        return None;
    }
    let starts = |row: usize| pixels.map(|pixel| ring.as_ptr().wrapping_add(row + pixel));
    let are_aligned = |row: &usize| starts(*row).iter().all(|start| start.addr().is_multiple_of(alignment));
    if !rows.iter().all(are_aligned) {
        return None;
    }
    let mut place = patches.as_mut_ptr();
    for &row in rows {
        // SAFETY: the ring holds a run from each start on, and the patches the groups of all rows.
        unsafe {
            let end = place.add(run / GROUP);
            spread(place, end, &starts(row));
            place = end;
        }
    }
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

/// Spreads bytes from four places into groups: 15 instructions for one.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn spread_bytes(groups: *mut Group, end: *mut Group, starts: *const [*const i8; PIXELS]) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        "push {{r4-r11, lr}}",
        "ldm r2, {{r2-r5}}",
        ".p2align 2",
        "1:",
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
        "stmia r0!, {{r6-r12, lr}}",
        "cmp r0, r1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}

/// Orders halves from four places, aligned to words, into groups: 16 instructions for one.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn spread_halves(groups: *mut Group, end: *mut Group, starts: *const [*const i16; PIXELS]) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        "push {{r4-r11, lr}}",
        "ldm r2, {{r2-r5}}",
        ".p2align 2",
        "1:",
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
        "stmia r0!, {{r8-r11}}",
        "cmp r0, r1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}
