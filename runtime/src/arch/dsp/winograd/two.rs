//! Winograd's F(2×2, 3×3) with the DSP extension: two channels at a time.

use super::super::super::winograd::two::{COLUMNS, POINTS, SIDE};
use super::{GROUP, Pair};
#[cfg(not(dsp))]
use super::{Halves, Load, transforms};

/// See [`reference::winograd2_input`](crate::arch::reference::winograd2_input).
#[inline(never)]
pub(crate) fn winograd2_input(pair: &mut [Pair], rows: [&[i16]; SIDE]) {
    let groups = pair.len() / POINTS;
    let pixel = groups * GROUP;
    if pair.len() != groups * POINTS || rows.iter().any(|row| row.len() < COLUMNS * pixel) {
        return;
    }
    #[cfg(dsp)]
    if groups > 0 {
        // SAFETY: there are 16 points of `groups` pairs, and rows have six pixels of as many groups of four channels.
        unsafe {
            let rows = rows.map(<[i16]>::as_ptr);
            let bytes = groups * size_of::<Pair>();
            transform_pair(pair.as_mut_ptr(), &rows, pixel * size_of::<i16>(), bytes, groups);
        }
    }
    // The same over the modelled instructions.
    #[cfg(not(dsp))]
    transforms::input_of_two::<Halves>(pair, rows);
}

/// Transforms both tiles of a pair, from four rows whose pixels are `pixel` bytes apart, for some groups of four channels, at
/// least one. Points are `next` bytes apart, groups 16.
///
/// The columns of both pass through the stack, each 37 instructions; a row of both takes 19.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn transform_pair(
    first: *mut Pair,
    rows: &[*const i16; SIDE],
    pixel: usize,
    next: usize,
    groups: usize,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // Channels 0 and 2, and 1 and 3, of the pixel at a row; both then stand in `even` and `odd`.
        ".macro waft_pixel row, even, spare, odd",
        "ldr \\even, [\\row]",
        "ldr \\spare, [\\row, #4]",
        "add \\row, r2",
        "pkhtb \\odd, \\spare, \\even, asr #16",
        "pkhbt \\even, \\even, \\spare, lsl #16",
        ".endm",
        // A row of both tiles.
        ".macro waft_tiles",
        "ldmia r12!, {{r4-r9}}",
        "ssub16 r11, r4, r6",
        "str r11, [r0]",
        "sadd16 r11, r5, r6",
        "str r11, [r0, r3]",
        "ssub16 r11, r6, r5",
        "str r11, [r0, r3, lsl #1]",
        "ssub16 r11, r5, r7",
        "str r11, [r0, r10]",
        "ssub16 r11, r6, r8",
        "str r11, [r1]",
        "sadd16 r11, r7, r8",
        "str r11, [r1, r3]",
        "ssub16 r11, r8, r7",
        "str r11, [r1, r3, lsl #1]",
        "ssub16 r11, r7, r9",
        "str r11, [r1, r10]",
        "add r0, r0, r3, lsl #2",
        "add r1, r1, r3, lsl #2",
        ".endm",
        // On the stack: four rows of six columns of both halves of a group, then the point, `next`, and the rows' pixels;
        // behind what is saved: the groups that are left.
        "push {{r4-r11, lr}}",
        "sub sp, #216",
        "ldmia r1, {{r4-r7}}",
        "add r8, sp, #200",
        "stmia r8, {{r4-r7}}",
        "strd r0, r3, [sp, #192]",
        ".p2align 2",
        "0:",
        "mov r12, sp",
        "add lr, sp, #24",
        "1:",
        "waft_pixel r4, r0, r1, r3",
        "waft_pixel r6, r8, r9, r10",
        "ssub16 r0, r0, r8",
        "ssub16 r3, r3, r10",
        "str r0, [r12]",
        "str r3, [r12, #96]",
        "waft_pixel r5, r0, r1, r3",
        "sadd16 r9, r0, r8",
        "sadd16 r11, r3, r10",
        "str r9, [r12, #24]",
        "str r11, [r12, #120]",
        "ssub16 r8, r8, r0",
        "ssub16 r10, r10, r3",
        "str r8, [r12, #48]",
        "str r10, [r12, #144]",
        "waft_pixel r7, r8, r9, r10",
        "ssub16 r0, r0, r8",
        "ssub16 r3, r3, r10",
        "str r0, [r12, #72]",
        "str r3, [r12, #168]",
        "add r12, #4",
        "cmp r12, lr",
        "bne 1b",
        "ldrd r0, r3, [sp, #192]",
        "add r1, r0, #8",
        "add r10, r3, r3, lsl #1",
        "mov r12, sp",
        ".rept 4",
        "waft_tiles",
        ".endr",
        "sub r0, r0, r3, lsl #4",
        "sub r1, r1, r3, lsl #4",
        "add r0, #4",
        "add r1, #4",
        ".rept 4",
        "waft_tiles",
        ".endr",
        "sub r0, r0, r3, lsl #4",
        "add r0, #12",
        "str r0, [sp, #192]",
        "add r8, sp, #200",
        "ldmia r8, {{r4-r7}}",
        "add r4, #8",
        "add r5, #8",
        "add r6, #8",
        "add r7, #8",
        "stmia r8, {{r4-r7}}",
        "ldr r0, [sp, #252]",
        "subs r0, #1",
        "str r0, [sp, #252]",
        "bne.w 0b",
        "add sp, #216",
        "pop {{r4-r11, pc}}",
        ".purgem waft_tiles",
        ".purgem waft_pixel",
    )
}

/// See [`reference::winograd2_weights`](crate::arch::reference::winograd2_weights).
#[inline(never)]
pub(crate) fn winograd2_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
    let groups = pair.len() / POINTS;
    let tap = groups * GROUP;
    if pair.len() != groups * POINTS || channel > 1 || weights.len() < 9 * tap {
        return;
    }
    #[cfg(dsp)]
    if groups > 0 {
        // SAFETY: there are 16 points of `groups` pairs, `channel` is 0 or 1, and nine taps of as many groups of four.
        unsafe {
            let first = pair.as_mut_ptr().cast::<u32>().add(2 * channel);
            transform_channel(first, weights.as_ptr(), tap, groups * size_of::<Pair>(), groups);
        }
    }
    // The same over the modelled instructions.
    #[cfg(not(dsp))]
    transforms::weights_of_two::<Halves>(pair, channel, weights);
}

/// Transforms the nine taps of one output channel, `tap` bytes apart, of some groups of four inputs, at least one. Points are
/// `next` bytes apart, groups 16.
///
/// Two inputs at a time: 30 instructions for the columns, which pass through the stack, and 40 for the rows and their stores;
/// the compiler's code has twice as many.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn transform_channel(first: *mut u32, weights: *const i8, tap: usize, next: usize, groups: usize) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // A column of the kernel: r5 to r8 are its four points.
        ".macro waft_column rotation",
        "ldr r5, [r1]",
        "ldr r9, [r1, r4]",
        "ldr r8, [r1, r4, lsl #1]",
        "add r1, r2",
        "sxtb16 r5, r5, ror #\\rotation",
        "sxtb16 r9, r9, ror #\\rotation",
        "sxtb16 r8, r8, ror #\\rotation",
        "sadd16 r7, r5, r8",
        "sadd16 r6, r7, r9",
        "ssub16 r7, r7, r9",
        ".endm",
        // A row of points, of columns on the stack and one in a register.
        ".macro waft_row at, last",
        "ldr r9, [sp, #\\at]",
        "ldr r11, [sp, #\\at + 16]",
        "sadd16 r12, r9, \\last",
        "str r9, [r0]",
        "sadd16 r9, r12, r11",
        "ssub16 r12, r12, r11",
        "str r9, [r0, r3]",
        "str r12, [r0, r3, lsl #1]",
        "str \\last, [r0, r10]",
        "add r0, r0, r3, lsl #2",
        ".endm",
        ".macro waft_half rotation",
        "waft_column \\rotation",
        "stmia sp, {{r5-r8}}",
        "waft_column \\rotation",
        "add r11, sp, #16",
        "stmia r11, {{r5-r8}}",
        "waft_column \\rotation",
        "waft_row 0, r5",
        "waft_row 4, r6",
        "waft_row 8, r7",
        "waft_row 12, r8",
        "sub r0, r0, r3, lsl #4",
        "sub r1, r1, r4",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldr lr, [sp, #36]",
        "sub sp, #32",
        "add r4, r2, r2, lsl #1",
        "add r10, r3, r3, lsl #1",
        ".p2align 2",
        "0:",
        "waft_half 0",
        "add r0, #4",
        "waft_half 8",
        "add r0, #12",
        "add r1, #4",
        "subs lr, #1",
        "bne.w 0b",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
        ".purgem waft_half",
        ".purgem waft_row",
        ".purgem waft_column",
    )
}

#[cfg(not(dsp))]
impl Load<i16> for Halves {
    /// Values 0 and 2 of four, or 1 and 3.
    #[inline(always)]
    unsafe fn load(from: *const i16, part: usize) -> u32 {
        let from = from.cast::<u32>();
        // SAFETY: there are four values.
        let (low, high) = unsafe { (from.read_unaligned(), from.add(1).read_unaligned()) };
        if part == 0 { low & 0xFFFF | high << 16 } else { low >> 16 | high & 0xFFFF_0000 }
    }
}
