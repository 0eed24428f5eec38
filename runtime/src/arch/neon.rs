//! NEON, which AArch64 has by its standard: products of four taps of two pixels in two instructions.
//!
//! A group of four channels takes 30 instructions for 64 products: a load of 32 bytes of activations, and for each channel a load
//! of its weights to both halves of a vector, their order, their extension, and 4 times products and sums.

use core::arch::aarch64::{
    int8x8_t, int16x8_t, int32x4_t, vaddvq_s32, vdup_n_s32, vdupq_n_s32, vget_low_s16, vld1_s8, vld1q_s16,
    vmlal_high_s16, vmlal_s16, vmovl_s8, vreinterpret_s8_s32, vtbl1_s8,
};

use super::patches::{GROUP, Group};
use super::quads::dot_in_quads;
use super::{PIXELS, QUAD};

/// See [`reference::dot_patches`].
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    dot_in_quads(sums, patches, weights, [taps, stride], |sums, patches, quad| {
        // SAFETY: the target has the instructions, or `build.rs` would not have chosen this file.
        unsafe { dot_quad(sums, patches, quad) };
    });
}

/// The sums of four channels whose taps are a whole number of groups.
// Channels have names: where code is to be small, the compiler keeps an array in memory.
#[inline(never)]
#[target_feature(enable = "neon")]
fn dot_quad(sums: &mut [[i32; PIXELS]; QUAD], patches: &[Group], [a, b, c, d]: [&[[i8; GROUP]]; QUAD]) {
    /// Where the order of a patch has the taps of two groups of bytes.
    const ORDER: [i8; 8] = [0, 2, 1, 3, 4, 6, 5, 7];
    // SAFETY: the constant is eight bytes.
    let order = unsafe { vld1_s8(ORDER.as_ptr()) };
    let zero = [vdupq_n_s32(0); PIXELS];
    let [mut first, mut second, mut third, mut fourth] = [zero; QUAD];
    for ((((group, &a), &b), &c), &d) in patches.iter().zip(a).zip(b).zip(c).zip(d) {
        let pixels = halves(group);
        first = add(first, pixels, a, order);
        second = add(second, pixels, b, order);
        third = add(third, pixels, c, order);
        fourth = add(fourth, pixels, d, order);
    }
    *sums = [total(first), total(second), total(third), total(fourth)];
}

/// The activations of pixels 0 and 1, and of 2 and 3.
#[inline]
#[target_feature(enable = "neon")]
fn halves(group: &Group) -> [int16x8_t; 2] {
    let from = group.as_ptr().cast::<i16>();
    // SAFETY: a group is 16 halves.
    unsafe { [vld1q_s16(from), vld1q_s16(from.add(8))] }
}

/// Adds the products of one channel's weights at each pixel, tap by tap.
#[inline]
#[target_feature(enable = "neon")]
fn add(
    [a, b, c, d]: [int32x4_t; PIXELS],
    [near, far]: [int16x8_t; 2],
    weights: [i8; GROUP],
    order: int8x8_t,
) -> [int32x4_t; PIXELS] {
    let twice = vreinterpret_s8_s32(vdup_n_s32(i32::from_le_bytes(bytemuck::cast(weights))));
    let weights = vmovl_s8(vtbl1_s8(twice, order));
    let low = vget_low_s16(weights);
    [
        vmlal_s16(a, vget_low_s16(near), low),
        vmlal_high_s16(b, near, weights),
        vmlal_s16(c, vget_low_s16(far), low),
        vmlal_high_s16(d, far, weights),
    ]
}

/// The sums over the taps.
#[inline]
#[target_feature(enable = "neon")]
fn total([a, b, c, d]: [int32x4_t; PIXELS]) -> [i32; PIXELS] {
    [vaddvq_s32(a), vaddvq_s32(b), vaddvq_s32(c), vaddvq_s32(d)]
}
