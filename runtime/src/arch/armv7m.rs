//! Armv7-M without the DSP extension: two products of an 8-bit ring in one multiplication of words; for rings of 16 bits two
//! output channels at four pixels, whose sums fill the registers.
//!
//! With `A = a₀ + 2¹⁶·a₁` and `B = b₁ + 2¹⁶·b₀` the product modulo 2³² is `a₀·b₁ + 2¹⁶·(a₀·b₀ + a₁·b₁)`. The lower term is at
//! most 2¹⁴ from zero, so that 2¹⁵ more leaves the sum of both products in the upper half. That sum is from −32,512 to 32,768:
//! less 256 it has 16 bits whatever the operands are, and sums start at 256 for each pair to make up for it.
//!
//! A patch holds its pairs as `A`: the upper half of a pair is one less where the lower is negative.

use super::PIXELS;
use super::blocks;
use super::patches::{self, GROUP, Group, Idle, Patches, Window, rows};

/// What sums start at for each group: 256 for each of two pairs.
const START: i32 = 512;

/// See [`reference::patches_i8`](super::reference::patches_i8).
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    let edges =
        |sums: &mut [_], patches: &[_], weights: &[_], taps, stride, _| multiply(sums, patches, weights, taps, stride);
    Patches { unfold, multiply, edges, taps: GROUP }
}

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    dot_edges(sums, patches, weights, taps, stride, Idle::default());
}

/// The same where a pixel may be idle.
#[inline(never)]
pub(crate) fn dot_edges(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    taps: usize,
    stride: usize,
    idle: Idle,
) {
    blocks::dot_blocks(sums, patches, weights, [taps, stride], |sums, rows| {
        multiply_pairs(sums, patches, weights, rows, idle);
    });
}

/// The sums of pairs of channels, at least one, which have a row of weights each, `stride` apart, over groups that are all there, at
/// least one.
#[inline(always)]
fn multiply_pairs(
    sums: &mut [[[i32; PIXELS]; 2]],
    patches: &[Group],
    weights: &[i8],
    [groups, stride]: [usize; 2],
    idle: Idle,
) {
    #[cfg(armv7m)]
    {
        let mut call = blocks::Call::new(sums, patches, weights, [groups, stride], idle);
        // SAFETY: there are so many groups in patches and in both rows of weights of each pair; of rows of the kernel, whose groups `bytes`
        // counts, there is a whole number.
        unsafe { multiply_two_rows(&mut call) };
    }
    #[cfg(not(armv7m))]
    for (channel, sums) in sums.as_flattened_mut().iter_mut().enumerate() {
        let row = weights.get(channel * stride..channel * stride + groups * GROUP).unwrap_or_default();
        patches::sum_groups(sums, patches, row, idle);
    }
}

/// Taps in the order of a group, as pairs.
#[inline(always)]
fn pairs(&[a, b, c, d]: &[i8; GROUP]) -> [i16; GROUP] {
    let (a, b) = (i16::from(a), i16::from(b));
    [a, i16::from(c) + (a >> 15), b, i16::from(d) + (b >> 15)]
}

/// Unfolds a window; behind the last tap are zeros.
#[inline(never)]
fn unfold(patches: &mut [Group], window: &Window<'_, i8>) {
    if window.run.is_multiple_of(GROUP) {
        return patches::unfold(patches, window, pairs);
    }
    patches::unfold_taps(patches, window);
    let groups = (window.rows.len() * window.run).div_ceil(GROUP);
    for [a, b, c, d] in patches.iter_mut().take(groups).flatten() {
        *b += *a >> 15;
        *d += *c >> 15;
    }
}

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline(never)]
fn multiply(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let groups = patches.len().min(taps / GROUP);
    let there = rows(weights, taps, stride).take(sums.len()).count();
    let sums = sums.get_mut(..there).unwrap_or_default();
    if groups == 0 {
        sums.fill([0; PIXELS]);
    } else if !sums.is_empty() {
        multiply_channels(sums, patches, weights, groups, stride);
    }
    let whole = groups * GROUP;
    if taps > whole {
        for (sums, row) in sums.iter_mut().zip(rows(weights, taps, stride)) {
            let mut last = [0; GROUP];
            last.iter_mut().zip(row.get(whole..).unwrap_or_default()).for_each(|(last, &weight)| *last = weight);
            for (sum, pixel) in sums.iter_mut().zip(patches.get(groups).into_iter().flatten()) {
                *sum = add_group(*sum, *pixel, last).wrapping_add(START);
            }
        }
    }
}

/// Adds the products of one group, less what sums start at.
#[inline(always)]
fn add_group(sum: i32, pixel: [i16; GROUP], [a, b, c, d]: [i8; GROUP]) -> i32 {
    const BELOW: i32 = (1 << 15) - (256 << 16);
    let [first, second]: [i32; 2] = bytemuck::cast(pixel);
    let pair = |upper: i8, lower: i8| i32::from(lower).wrapping_add(i32::from(upper) << 16);
    let product = |x: i32, w: i32| x.wrapping_mul(w).wrapping_add(BELOW) >> 16;
    sum.wrapping_add(product(first, pair(a, c))).wrapping_add(product(second, pair(b, d)))
}

/// The sums of channels over `groups` groups, at least one; there is a row of weights for each.
#[inline(always)]
fn multiply_channels(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], groups: usize, stride: usize) {
    #[cfg(armv7m)]
    // SAFETY: there are as many groups of patches, and of weights in each channel's row, of which there are as many as sums; the
    // loops end behind the last group and the last sum.
    unsafe {
        let ends = sums.as_mut_ptr_range();
        let patches = patches.as_ptr();
        let start = START * groups as i32;
        multiply_rows(
            patches,
            weights.as_ptr(),
            patches.add(groups),
            ends.start,
            ends.end,
            stride - groups * GROUP,
            start,
        );
    }
    #[cfg(not(armv7m))]
    for (sums, row) in sums.iter_mut().zip(rows(weights, groups * GROUP, stride)) {
        *sums = [START * groups as i32; PIXELS];
        for (group, &weights) in patches.iter().zip(row.as_chunks().0) {
            for (sum, &pixel) in sums.iter_mut().zip(group) {
                *sum = add_group(*sum, pixel, weights);
            }
        }
    }
}

/// Writes the sums from `sums` to `sums_end`, which start at `start`, over the patches up to `end`; neither is where it begins.
/// `behind` weights lie between those of two channels; their addresses need no alignment.
///
/// A group has 16 products and takes 25 instructions: 2 loads of four words of activations, one of four weights, 6 that make
/// pairs of them, and 8 times a product and its sum.
#[cfg(armv7m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_rows(
    patches: *const Group,
    weights: *const i8,
    end: *const Group,
    sums: *mut [i32; PIXELS],
    sums_end: *mut [i32; PIXELS],
    behind: usize,
    start: i32,
) {
    core::arch::naked_asm!(
        // Two pixels of a group, whose weights are in r10 and r11.
        ".macro waft_pixels first, second",
        "ldmia r0!, {{r6-r9}}",
        "mla r6, r6, r10, r12",
        "mla r7, r7, r11, r12",
        "add \\first, \\first, r6, asr #16",
        "mla r8, r8, r10, r12",
        "add \\first, \\first, r7, asr #16",
        "mla r9, r9, r11, r12",
        "add \\second, \\second, r8, asr #16",
        "add \\second, \\second, r9, asr #16",
        ".endm",
        ".macro waft_group",
        "ldr lr, [r1], #4",
        "sxtb r10, lr",
        "sxtb r11, lr, ror #16",
        "add r10, r11, r10, lsl #16",
        "sxtb r11, lr, ror #8",
        "asrs lr, lr, #24",
        "add r11, lr, r11, lsl #16",
        "waft_pixels r2, r3",
        "waft_pixels r4, r5",
        ".endm",
        // On the stack: patches, end, sums, where unrolled rounds end; behind what is saved: sums_end, behind, start.
        "push {{r4-r11, lr}}",
        "sub sp, #16",
        "strd r0, r2, [sp]",
        "str r3, [sp, #8]",
        "subs r4, r2, r0",
        "bic r4, r4, #127",
        "add r4, r0",
        "str r4, [sp, #12]",
        "movw r12, #0x8000",
        "movt r12, #0xff00",
        "0:",
        "ldr r0, [sp]",
        "ldr r2, [sp, #60]",
        "ldr lr, [sp, #12]",
        "mov r3, r2",
        "mov r4, r2",
        "mov r5, r2",
        "cmp r0, lr",
        "beq 2f",
        "1:",
        ".rept 4",
        "waft_group",
        ".endr",
        "ldr lr, [sp, #12]",
        "cmp r0, lr",
        "bne 1b",
        "2:",
        "ldr lr, [sp, #4]",
        "cmp r0, lr",
        "beq 4f",
        "3:",
        "waft_group",
        "ldr lr, [sp, #4]",
        "cmp r0, lr",
        "bne 3b",
        "4:",
        "ldr r0, [sp, #8]",
        "ldrd r6, r7, [sp, #52]",
        "stmia r0!, {{r2-r5}}",
        "add r1, r7",
        "str r0, [sp, #8]",
        "cmp r0, r6",
        "bne 0b",
        "add sp, #16",
        "pop {{r4-r11, pc}}",
        ".purgem waft_group",
        ".purgem waft_pixels",
    )
}

/// Writes the sums of pairs of rows of weights, `stride` apart, over the patches up to `end`, which is not where they begin.
///
/// A group has 32 products and takes 60 instructions: 32 for products and sums, 16 loads of activations, 8 of weights, 4 for the
/// loop. It takes 48 where a pixel is idle.
#[cfg(armv7m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_two_rows(call: &mut blocks::Call<2>) {
    core::arch::naked_asm!(
        // One pixel's activation, which lies at `at`, times both channels' weights.
        ".macro waft_pixel at, a, b",
        "ldrsh r2, [r0, #\\at]",
        "mla \\a, r2, r12, \\a",
        "mla \\b, r2, lr, \\b",
        ".endm",
        // One tap, where its activations lie in the group, and whether the first and the last pixel have any.
        ".macro waft_tap place, first, last",
        "ldrsb lr, [r1, r3]",
        "ldrsb r12, [r1], #1",
        ".if \\first",
        "waft_pixel \\place, r4, r8",
        ".endif",
        "waft_pixel 8+\\place, r5, r9",
        "waft_pixel 16+\\place, r6, r10",
        ".if \\last",
        "waft_pixel 24+\\place, r7, r11",
        ".endif",
        ".endm",
        // As many groups as the word at `bytes` of the call says.
        ".macro waft_groups bytes, first, last",
        "ldr r2, [sp, #4]",
        "ldr r2, [r2, #\\bytes]",
        "cmp r2, #0",
        "beq.w 9f",
        "add r2, r0",
        "str r2, [sp]",
        "8:",
        "waft_tap 0, \\first, \\last",
        "waft_tap 4, \\first, \\last",
        "waft_tap 2, \\first, \\last",
        "waft_tap 6, \\first, \\last",
        "ldr r2, [sp]",
        "adds r0, #32",
        "cmp r0, r2",
        "bne.w 8b",
        "9:",
        ".endm",
        // On the stack: where groups end, the call.
        "push {{r4-r11, lr}}",
        "sub sp, #12",
        "str r0, [sp, #4]",
        "ldr r1, [r0, #8]",
        "ldr r3, [r0, #12]",
        "ldr r0, [r0]",
        "1:",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "mov r8, r4",
        "mov r9, r4",
        "mov r10, r4",
        "mov r11, r4",
        "2:",
        "waft_groups 20, 0, 1",
        "waft_groups 24, 1, 1",
        "waft_groups 28, 1, 0",
        "ldr r2, [sp, #4]",
        "ldr r2, [r2, #4]",
        "cmp r0, r2",
        "bne.w 2b",
        "ldr r2, [sp, #4]",
        "ldr r0, [r2, #16]",
        "stmia r0!, {{r4-r11}}",
        "str r0, [r2, #16]",
        "ldr r1, [r2, #8]",
        "add r1, r1, r3, lsl #1",
        "str r1, [r2, #8]",
        "ldr r4, [r2, #32]",
        "cmp r0, r4",
        "ldr r0, [r2]",
        "bne.w 1b",
        "add sp, #12",
        "pop {{r4-r11, pc}}",
        ".purgem waft_groups",
        ".purgem waft_tap",
        ".purgem waft_pixel",
    )
}
