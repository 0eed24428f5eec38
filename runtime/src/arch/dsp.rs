//! The DSP extension of Armv7E-M and Armv8-M Mainline: two products of 16 bits and their sum in one instruction.
//!
//! Four weights of a row are one word, from any address. `sxtb16` spreads two of its bytes, 0 and 2 or 1 and 3, over the
//! halves of a register; the activations come in the same pairs, and `smlad` adds both products of a pair. A sum beyond
//! 32 bits wraps, as in the reference.

/// In assembly: `waft_products`, the products of a group of four pixels, at r0, which moves on, with four weights in a register,
/// added to r2 to r5. Changes that register, r6 to r9 and r12.
#[cfg(dsp)]
macro_rules! group_products {
    () => {
        concat!(
            ".macro waft_products word\n",
            "ldmia r0!, {{r6-r9}}\n",
            "sxtb16 r12, \\word\n",
            "sxtb16 \\word, \\word, ror #8\n",
            "smlad r2, r6, r12, r2\n",
            "smlad r2, r7, \\word, r2\n",
            "smlad r3, r8, r12, r3\n",
            "smlad r3, r9, \\word, r3\n",
            "ldmia r0!, {{r6-r9}}\n",
            "smlad r4, r6, r12, r4\n",
            "smlad r4, r7, \\word, r4\n",
            "smlad r5, r8, r12, r5\n",
            "smlad r5, r9, \\word, r5\n",
            ".endm",
        )
    };
}

/// In assembly: `waft_row`, the products of eight elements of a row, which moves on, with activations in r7 to r10, added to a
/// sum. Changes r11, r12 and lr.
#[cfg(dsp)]
macro_rules! row_products {
    () => {
        concat!(
            ".macro waft_row row, sum\n",
            "ldrd r11, r12, [\\row], #8\n",
            "sxtb16 lr, r11\n",
            "sxtb16 r11, r11, ror #8\n",
            "smlad \\sum, lr, r7, \\sum\n",
            "smlad \\sum, r11, r8, \\sum\n",
            "sxtb16 lr, r12\n",
            "sxtb16 r12, r12, ror #8\n",
            "smlad \\sum, lr, r9, \\sum\n",
            "smlad \\sum, r12, r10, \\sum\n",
            ".endm",
        )
    };
}

// Where the instructions are modelled, what is marked has no unsafe code, so that an interpreter has nothing to find there.
#[cfg(dsp)]
mod call;
mod channel;
#[cfg_attr(not(dsp), forbid(unsafe_code))]
mod convolution;
#[cfg_attr(not(dsp), forbid(unsafe_code))]
mod gather;
#[cfg_attr(not(dsp), forbid(unsafe_code))]
mod moments;
#[cfg(dsp)]
mod pixel;
#[cfg(feature = "attention")]
#[cfg_attr(not(dsp), forbid(unsafe_code))]
mod rows;
#[cfg_attr(not(dsp), forbid(unsafe_code))]
mod unfold;
#[cfg(feature = "tiles")]
mod winograd;

pub(crate) use self::convolution::{convolve_i8, convolve_i16};
#[cfg(feature = "tiles")]
pub(crate) use self::convolution::{finish_blocks_i8, finish_blocks_i16};
pub(crate) use self::gather::{gather_i8_i8, gather_i8_i16, gather_i16_i8, gather_i16_i16};
#[cfg(feature = "conditioning")]
pub(crate) use self::moments::dot_i16;
pub(crate) use self::moments::{moments_i8, moments_i16};
#[cfg(feature = "attention")]
pub(crate) use self::rows::scores_i8;
pub(crate) use self::unfold::{unfold_i8, unfold_i16};
#[cfg(feature = "tiles")]
pub(crate) use self::winograd::{
    limit_i16,
    output::{winograd_output, winograd2_output},
    two::{winograd2_input, winograd2_weights},
    winograd_input, winograd_multiply, winograd_weights,
};
use super::patches::{GROUP, Group, rows};
use super::{PIXELS, QUAD};

/// Activations and weights that are taken at once.
const STEP: usize = 4;

/// See [`reference::dot4_i8`](super::reference::dot4_i8).
#[inline(never)]
pub(crate) fn dot4_i8(sums: [i32; QUAD], activations: &[i8], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4(sums, activations, weights, |four: [i8; STEP]| {
        let word = bytemuck::cast(four);
        [even_bytes(word), odd_bytes(word)]
    })
}

/// See [`reference::dot4_i16`](super::reference::dot4_i16).
#[inline(never)]
pub(crate) fn dot4_i16(sums: [i32; QUAD], activations: &[i16], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4(sums, activations, weights, |four: [i16; STEP]| {
        let [low, high]: [u32; 2] = bytemuck::cast(four);
        [low & 0xFFFF | high << 16, low >> 16 | high & 0xFFFF_0000]
    })
}

/// `pairs` gives activations 0 and 2, and 1 and 3, as halves of a word.
#[inline(always)]
fn dot4<T: Copy + Into<i32>>(
    [mut sum_a, mut sum_b, mut sum_c, mut sum_d]: [i32; QUAD],
    activations: &[T],
    [a, b, c, d]: [&[i8]; QUAD],
    pairs: impl Fn([T; STEP]) -> [u32; 2],
) -> [i32; QUAD] {
    let len = activations.len().min(a.len()).min(b.len()).min(c.len()).min(d.len());
    let mut x = activations.as_ptr();
    let (mut a, mut b, mut c, mut d) = (a.as_ptr(), b.as_ptr(), c.as_ptr(), d.as_ptr());
    // SAFETY: the pointers start at slices of at least `len` elements, and both loops together take and pass `len` of each.
    // Reads need no alignment.
    unsafe {
        let end = x.add(len - len % STEP);
        while x != end {
            let [even, odd] = pairs(x.cast::<[T; STEP]>().read_unaligned());
            x = x.add(STEP);
            let word = a.cast::<u32>().read_unaligned();
            a = a.add(STEP);
            sum_a = multiply_add(multiply_add(sum_a, even, even_bytes(word)), odd, odd_bytes(word));
            let word = b.cast::<u32>().read_unaligned();
            b = b.add(STEP);
            sum_b = multiply_add(multiply_add(sum_b, even, even_bytes(word)), odd, odd_bytes(word));
            let word = c.cast::<u32>().read_unaligned();
            c = c.add(STEP);
            sum_c = multiply_add(multiply_add(sum_c, even, even_bytes(word)), odd, odd_bytes(word));
            let word = d.cast::<u32>().read_unaligned();
            d = d.add(STEP);
            sum_d = multiply_add(multiply_add(sum_d, even, even_bytes(word)), odd, odd_bytes(word));
        }
        for _ in 0..len % STEP {
            let activation: i32 = (*x).into();
            sum_a = sum_a.wrapping_add(activation.wrapping_mul((*a).into()));
            sum_b = sum_b.wrapping_add(activation.wrapping_mul((*b).into()));
            sum_c = sum_c.wrapping_add(activation.wrapping_mul((*c).into()));
            sum_d = sum_d.wrapping_add(activation.wrapping_mul((*d).into()));
            (x, a, b, c, d) = (x.add(1), a.add(1), b.add(1), c.add(1), d.add(1));
        }
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// See [`reference::weighted4_i8`](super::reference::weighted4_i8). A word holds the four neighbours.
#[cfg(feature = "attention")]
#[inline(never)]
pub(crate) fn weighted4_i8(weights: &[i32], values: &[i8], stride: usize) -> [i32; QUAD] {
    let rows = values.len().div_ceil(stride.max(1)).min(weights.len());
    if rows == 0 || stride < QUAD || values.len() < (rows - 1) * stride + QUAD {
        return super::reference::weighted4_i8(weights, values, stride);
    }
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = [0i32; QUAD];
    let (mut weight, mut value) = (weights.as_ptr(), values.as_ptr());
    // SAFETY: there are at least `rows` weights, and four values at each of as many multiples of the stride. A pointer past
    // the last is not read. Reads of values need no alignment.
    unsafe {
        let end = weight.add(rows);
        while weight != end {
            let word = value.cast::<i32>().read_unaligned();
            value = value.wrapping_add(stride);
            sum_a = sum_a.wrapping_add((*weight).wrapping_mul(word << 24 >> 24));
            sum_b = sum_b.wrapping_add((*weight).wrapping_mul(word << 16 >> 24));
            sum_c = sum_c.wrapping_add((*weight).wrapping_mul(word << 8 >> 24));
            sum_d = sum_d.wrapping_add((*weight).wrapping_mul(word >> 24));
            weight = weight.add(1);
        }
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline(always)]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    if taps.is_multiple_of(GROUP) && stride.is_multiple_of(GROUP) {
        dot_channels(sums, patches, weights, taps, stride);
    } else {
        dot_rows(sums, patches, weights, taps, stride);
    }
}

/// The same where taps are left over behind the last whole group.
#[inline(never)]
fn dot_rows(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let whole = taps - taps % GROUP;
    for (sums, row) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        dot_channels(core::slice::from_mut(sums), patches, row, whole, whole);
        if let (Some(group), Some(rest)) = (patches.get(whole / GROUP), row.get(whole..)) {
            let mut last = [0; GROUP];
            last.iter_mut().zip(rest).for_each(|(weight, &value)| *weight = value);
            add_group(sums, group, last);
        }
    }
}

/// Adds the products of one group.
#[inline(always)]
fn add_group(sums: &mut [i32; PIXELS], group: &Group, weights: [i8; GROUP]) {
    let word = bytemuck::cast(weights);
    let (even, odd) = (even_bytes(word), odd_bytes(word));
    for (sum, &pixel) in sums.iter_mut().zip(group) {
        let [first, second]: [u32; 2] = bytemuck::cast(pixel);
        *sum = multiply_add(multiply_add(*sum, first, even), second, odd);
    }
}

/// The sums of channels whose taps are a whole number of groups.
#[inline(always)]
fn dot_channels(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let groups = patches.len().min(taps / GROUP);
    let there = rows(weights, taps, stride).take(sums.len()).count();
    let sums = sums.get_mut(..there).unwrap_or_default();
    #[cfg(dsp)]
    if !sums.is_empty() {
        /// Groups that the unrolled loop takes at once.
        const UNROLLED: usize = 4;
        // Two words of weights are loaded by one instruction, which asks for their alignment.
        let aligned = weights.as_ptr().addr().is_multiple_of(4) && stride.is_multiple_of(4);
        let unrolled = if aligned { groups - groups % UNROLLED } else { 0 };
        let ends = sums.as_mut_ptr_range();
        // SAFETY: there are `groups` groups of patches, and of weights in each channel's row, of which there are as many as
        // sums; a group of patches is 32 bytes, one of weights four; the loops end where they are told, after whole rounds.
        unsafe {
            let patches = patches.as_ptr();
            let behind = stride - groups * GROUP;
            multiply_channels(
                patches,
                weights.as_ptr(),
                patches.add(unrolled),
                ends.start,
                patches.add(groups),
                ends.end,
                behind,
            );
        }
    }
    // The same loop over the modelled instructions.
    #[cfg(not(dsp))]
    for (sums, row) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        *sums = [0; PIXELS];
        for (group, &weights) in patches.iter().zip(row.as_chunks().0).take(groups) {
            add_group(sums, group, weights);
        }
    }
}

/// Writes the sums of products from `patches` to `end` of each channel, from `sums` to `sums_end`, which is not where they
/// begin. Up to `unrolled`, a multiple of four groups further, weights are aligned to words; `behind` of them lie between
/// those of two channels.
///
/// A group has 16 products and takes 12.5 instructions: 2 loads of four words of activations, half a load of two words of
/// weights, 2 `sxtb16` that spread a word of weights, and 8 `smlad` that add two products each.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_channels(
    patches: *const Group,
    weights: *const i8,
    unrolled: *const Group,
    sums: *mut [i32; PIXELS],
    end: *const Group,
    sums_end: *mut [i32; PIXELS],
    behind: usize,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        group_products!(),
        // On the stack: patches, unrolled, sums; behind what is saved: end, sums_end, behind.
        "push {{r0, r2-r11, lr}}",
        "0:",
        "ldrd r0, lr, [sp]",
        "movs r2, #0",
        "movs r3, #0",
        "movs r4, #0",
        "movs r5, #0",
        "cmp r0, lr",
        "beq 2f",
        ".p2align 2",
        "1:",
        ".rept 2",
        "ldmia r1!, {{r10, r11}}",
        "waft_products r10",
        "waft_products r11",
        ".endr",
        "cmp r0, lr",
        "bne 1b",
        "2:",
        "ldr lr, [sp, #48]",
        "cmp r0, lr",
        "beq 4f",
        "3:",
        "ldr r10, [r1], #4",
        "waft_products r10",
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
        "add sp, #12",
        "pop {{r4-r11, pc}}",
        ".purgem waft_products",
    )
}

/// Bytes 0 and 2, sign-extended to halves.
#[inline(always)]
fn even_bytes(word: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: arithmetic on registers; the target has the extension, or `build.rs` would not have chosen this file.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "sxtb16 {result}, {word}",
                result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::even_bytes(word)
}

/// Bytes 1 and 3, sign-extended to halves.
#[inline(always)]
fn odd_bytes(word: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "sxtb16 {result}, {word}, ror #8",
                result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::even_bytes(word.rotate_right(8))
}

/// The sum and the products of both halves, as signed numbers, modulo 2³².
#[inline(always)]
fn multiply_add(sum: i32, a: u32, b: u32) -> i32 {
    #[cfg(dsp)]
    {
        let mut result = sum;
        // SAFETY: as above. A sum that wraps sets the flag Q, so flags are not preserved.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "smlad {result}, {a}, {b}, {result}",
                result = inout(reg) result, a = in(reg) a, b = in(reg) b,
                options(pure, nomem, nostack),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::multiply_add(sum, a, b)
}

/// The instructions as the architecture manual defines them (Armv7-M, A7.7), for machines without.
#[cfg(not(dsp))]
mod model {
    pub(super) fn even_bytes(word: u32) -> u32 {
        let extend = |byte: u32| u32::from(i16::from(byte as u8 as i8) as u16);
        extend(word) | extend(word >> 16) << 16
    }

    pub(super) fn multiply_add(sum: i32, a: u32, b: u32) -> i32 {
        let half = |word: u32| i32::from(word as u16 as i16);
        sum.wrapping_add(half(a) * half(b)).wrapping_add(half(a >> 16) * half(b >> 16))
    }
}
