//! Armv6-M: eight registers that instructions reach, products of 32 bits. Sums lie in the high registers, to which a product
//! can be added.
//!
//! A word of patches holds two pixels at one tap, `W = (a₀ + 2¹⁵) + 2¹⁶·a₁`: `W >> 16` is `a₁` in one instruction, and what `W`
//! itself gives times the weights is `Σa₀·w + 2¹⁵·Σw + 2¹⁶·Σa₁·w` modulo 2³², of which the other two are known. So two
//! products take five instructions, where halves brought apart would take six.

mod dots;
mod results;
mod unfold;

#[cfg(feature = "attention")]
pub(crate) use self::dots::weighted4_i8;
pub(crate) use self::dots::{dot4_i8, dot4_i16};
pub(crate) use self::results::{finish_i8, finish_i16, scale_each};
use self::unfold::{unfold_bytes, unfold_halves};
use super::PIXELS;
use super::patches::{GROUP, Group, Patches, rows};

/// See [`reference::patches_i8`](super::reference::patches_i8).
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    Patches { unfold: unfold_bytes, multiply, taps: GROUP }
}

/// See [`reference::patches_i16`](super::reference::patches_i16).
#[inline(always)]
pub(crate) fn patches_i16() -> Patches<i16> {
    Patches { unfold: unfold_halves, multiply, taps: GROUP }
}

/// The four pixels at one tap: the first and third of them with their highest bit changed, which adds 2¹⁵ modulo 2¹⁶.
type Tap = [i16; PIXELS];

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline(never)]
fn multiply(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let patches: &[Tap] = patches.as_flattened();
    let aligned = stride.is_multiple_of(GROUP) && weights.as_ptr().addr().is_multiple_of(4);
    let whole = if aligned { (taps - taps % GROUP).min(patches.len()) } else { 0 };
    for (sums, weights) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        *sums = [0; PIXELS];
        if whole > 0 {
            multiply_taps(sums, patches, weights, whole);
        }
        let rest = weights.get(whole..).unwrap_or_default();
        if !rest.is_empty() {
            add_taps(sums, patches.get(whole..).unwrap_or_default(), rest);
        }
    }
}

/// Adds the products of taps one by one.
// Sums have names: where code is to be small, the compiler keeps an array in memory.
#[inline(never)]
fn add_taps(sums: &mut [i32; PIXELS], taps: &[Tap], weights: &[i8]) {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = *sums;
    for (&[a, b, c, d], &weight) in taps.iter().zip(weights) {
        let weight = i32::from(weight);
        sum_a = sum_a.wrapping_add(i32::from(a ^ i16::MIN).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c ^ i16::MIN).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d).wrapping_mul(weight));
    }
    *sums = [sum_a, sum_b, sum_c, sum_d];
}

/// The sums over the first taps, of which there are whole groups, one at least; weights begin at a word's address.
#[inline(always)]
fn multiply_taps(sums: &mut [i32; PIXELS], patches: &[Tap], weights: &[i8], taps: usize) {
    #[cfg(armv6m)]
    // SAFETY: there are `taps` of both, whole groups, and the loop ends behind the last; weights are aligned.
    unsafe {
        multiply_groups(patches.as_ptr(), weights.as_ptr().cast(), patches.as_ptr().add(taps), sums);
    }
    #[cfg(not(armv6m))]
    {
        let (mut words, mut highs, mut all) = ([0i32; 2], [0i32; 2], 0i32);
        for (&[a, b, c, d], &weight) in patches.iter().zip(weights).take(taps) {
            let weight = i32::from(weight);
            all = all.wrapping_add(weight);
            for (pair, (low, high)) in [(a, b), (c, d)].into_iter().enumerate() {
                let word = i32::from(low as u16) | i32::from(high) << 16;
                words[pair] = words[pair].wrapping_add(word.wrapping_mul(weight));
                highs[pair] = highs[pair].wrapping_add((word >> 16).wrapping_mul(weight));
            }
        }
        let low = |pair: usize| words[pair].wrapping_sub(highs[pair] << 16).wrapping_sub(all << 15);
        *sums = [low(0), highs[0], low(1), highs[1]];
    }
}

/// Writes the sums of products from `patches` to `end`, which is not where they begin; weights are aligned to words.
///
/// A group has 16 products and takes 57 instructions: 40 for products and sums, 4 loads of activations, 7 that load and spread
/// weights, 4 that add them up, 2 for the loop.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_groups(
    patches: *const Tap,
    weights: *const [i8; GROUP],
    end: *const Tap,
    sums: *mut [i32; PIXELS],
) {
    core::arch::naked_asm!(
        // A tap, whose weight is in r5.
        ".macro waft_tap",
        "ldmia r0!, {{r2, r3}}",
        "add r12, r5",
        "asrs r4, r2, #16",
        "muls r2, r5, r2",
        "add r8, r2",
        "muls r4, r5, r4",
        "add r9, r4",
        "asrs r4, r3, #16",
        "muls r3, r5, r3",
        "add r10, r3",
        "muls r4, r5, r4",
        "add r11, r4",
        ".endm",
        "push {{r3-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov lr, r2",
        "movs r2, #0",
        "mov r8, r2",
        "mov r9, r2",
        "mov r10, r2",
        "mov r11, r2",
        "mov r12, r2",
        "2:",
        "ldmia r1!, {{r6}}",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r5, r6, #8",
        "waft_tap",
        "cmp r0, lr",
        "bne 2b",
        // What the words gave, less what is not the lower pixel's.
        "mov r3, r12",
        "lsls r3, r3, #15",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "subs r4, r4, r3",
        "subs r6, r6, r3",
        "lsls r3, r5, #16",
        "subs r4, r4, r3",
        "lsls r3, r7, #16",
        "subs r6, r6, r3",
        "ldr r0, [sp, #16]",
        "stmia r0!, {{r4-r7}}",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r3-r7, pc}}",
        ".purgem waft_tap",
    )
}
