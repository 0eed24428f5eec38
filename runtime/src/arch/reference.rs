//! The kernels in portable Rust: what every other implementation gives the bits of.
//!
//! Operands of one kernel have the same length; what is longer is cut to the shortest.

use super::PIXELS;
#[cfg(feature = "i8")]
use super::QUAD;
#[cfg(feature = "i8")]
use super::patches::{GROUP, Group, rows, unfold};
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::float::Float;
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::format::CHANNEL_BLOCK;

#[cfg(all(feature = "tiles", test))]
pub(crate) use super::winograd::{
    reference::{winograd_input, winograd_multiply, winograd_weights},
    two::reference::{winograd2_input, winograd2_weights},
};

/// `sums[c] + Σ activations[k]·weights[c][k]`, modulo 2³², for `i8` activations.
// Out of line: the loop wants the registers for itself.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn dot4_i8(sums: [i32; QUAD], activations: &[i8], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4(sums, activations, weights)
}

/// The same for `i16` activations.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn dot4_i16(sums: [i32; QUAD], activations: &[i16], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4(sums, activations, weights)
}

#[cfg(feature = "i8")]
#[inline(always)]
fn dot4<T: Copy + Into<i32>>(
    [mut sum_a, mut sum_b, mut sum_c, mut sum_d]: [i32; QUAD],
    activations: &[T],
    [a, b, c, d]: [&[i8]; QUAD],
) -> [i32; QUAD] {
    for ((((&x, &a), &b), &c), &d) in activations.iter().zip(a).zip(b).zip(c).zip(d) {
        let x: i32 = x.into();
        sum_a = sum_a.wrapping_add(x.wrapping_mul(a.into()));
        sum_b = sum_b.wrapping_add(x.wrapping_mul(b.into()));
        sum_c = sum_c.wrapping_add(x.wrapping_mul(c.into()));
        sum_d = sum_d.wrapping_add(x.wrapping_mul(d.into()));
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// [`dot4_i8`] for four-bit weights: `weights[k]` holds those of the four outputs, the first in the lowest bits.
#[cfg(feature = "i4")]
#[inline(never)]
pub(crate) fn dot4_packed_i8(sums: [i32; QUAD], activations: &[i8], weights: &[u16]) -> [i32; QUAD] {
    dot4_packed(sums, activations, weights)
}

/// The same for `i16` activations.
#[cfg(feature = "i4")]
#[inline(never)]
pub(crate) fn dot4_packed_i16(sums: [i32; QUAD], activations: &[i16], weights: &[u16]) -> [i32; QUAD] {
    dot4_packed(sums, activations, weights)
}

#[cfg(feature = "i4")]
#[inline(always)]
fn dot4_packed<T: Copy + Into<i32>>(
    [mut sum_a, mut sum_b, mut sum_c, mut sum_d]: [i32; QUAD],
    activations: &[T],
    weights: &[u16],
) -> [i32; QUAD] {
    for (&x, &packed) in activations.iter().zip(weights) {
        let x: i32 = x.into();
        let packed = i32::from(packed);
        sum_a = sum_a.wrapping_add(x.wrapping_mul(packed << 28 >> 28));
        sum_b = sum_b.wrapping_add(x.wrapping_mul(packed << 24 >> 28));
        sum_c = sum_c.wrapping_add(x.wrapping_mul(packed << 20 >> 28));
        sum_d = sum_d.wrapping_add(x.wrapping_mul(packed << 16 >> 28));
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// Writes a row of the kernel's taps at each pixel, as the taps from number `tap` on, see [`patches`](super::patches).
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn unfold_i8(patches: &mut [Group], tap: usize, runs: [&[i8]; PIXELS]) {
    unfold(patches, tap, runs, |[a, b, c, d]| [a, c, b, d].map(i16::from));
}

/// The same for `i16` activations.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn unfold_i16(patches: &mut [Group], tap: usize, runs: [&[i16]; PIXELS]) {
    unfold(patches, tap, runs, |[a, b, c, d]| [a, c, b, d]);
}

/// `sums[c][p] = Σ activations[p][k]·weights[c][k]` of each pixel `p`, for each output channel that has a sum and weights, modulo
/// 2³². Patches hold the activations; each channel has as many weights as there are taps, `stride` after those of the one
/// before.
#[cfg(feature = "i8")]
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    for (sums, weights) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        *sums = dot_channel(patches, weights);
    }
}

/// The sums of one channel.
// Sums have names: where code is to be small, the compiler keeps an array in memory.
#[cfg(feature = "i8")]
#[inline(never)]
fn dot_channel(patches: &[Group], weights: &[i8]) -> [i32; PIXELS] {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = [0i32; PIXELS];
    let (whole, rest) = weights.as_chunks();
    let mut groups = patches.iter();
    let mut add = |[a, b, c, d]: &Group, &[first, second, third, fourth]: &[i8; GROUP]| {
        let weight = first.into();
        sum_a = sum_a.wrapping_add(i32::from(a[0]).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b[0]).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c[0]).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d[0]).wrapping_mul(weight));
        let weight = second.into();
        sum_a = sum_a.wrapping_add(i32::from(a[2]).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b[2]).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c[2]).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d[2]).wrapping_mul(weight));
        let weight = third.into();
        sum_a = sum_a.wrapping_add(i32::from(a[1]).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b[1]).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c[1]).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d[1]).wrapping_mul(weight));
        let weight = fourth.into();
        sum_a = sum_a.wrapping_add(i32::from(a[3]).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b[3]).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c[3]).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d[3]).wrapping_mul(weight));
    };
    for (weights, group) in whole.iter().zip(&mut groups) {
        add(group, weights);
    }
    if let (Some(group), false) = (groups.next(), rest.is_empty()) {
        let mut last = [0; GROUP];
        last.iter_mut().zip(rest).for_each(|(weight, &value)| *weight = value);
        add(group, &last);
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// `Σ weights[k]·values[k·stride + c]` of [`QUAD`] neighbours `c`, or of as many as there are, modulo 2³²; `stride ≥ 1`.
// Out of line: the loop wants the registers for itself.
#[cfg(all(feature = "i8", feature = "attention"))]
#[inline(never)]
pub(crate) fn weighted4_i8(weights: &[i32], values: &[i8], stride: usize) -> [i32; QUAD] {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = [0i32; QUAD];
    for (&weight, values) in weights.iter().zip(values.chunks(stride.max(1))) {
        let [a, b, c, d] = match values.first_chunk() {
            Some(&four) => four,
            None => {
                let mut values = values.iter();
                [(); QUAD].map(|()| values.next().copied().unwrap_or_default())
            }
        };
        sum_a = sum_a.wrapping_add(weight.wrapping_mul(a.into()));
        sum_b = sum_b.wrapping_add(weight.wrapping_mul(b.into()));
        sum_c = sum_c.wrapping_add(weight.wrapping_mul(c.into()));
        sum_d = sum_d.wrapping_add(weight.wrapping_mul(d.into()));
    }
    [sum_a, sum_b, sum_c, sum_d]
}

/// `Σ a[k]·b[k]`, which 64 bits hold.
#[cfg(all(feature = "i8", feature = "conditioning"))]
#[inline]
pub(crate) fn dot_i16(a: &[i16], b: &[i16]) -> i64 {
    a.iter().zip(b).fold(0, |sum, (&a, &b)| sum + i64::from(i32::from(a) * i32::from(b)))
}

/// `sums[pixel][c] += Σ activations[pixel][k]·weights[k][c]`, added in the order of `k`.
#[cfg(any(feature = "f16", feature = "f32"))]
#[inline]
pub(crate) fn dot_pixels<E: Float>(
    sums: &mut [[f32; CHANNEL_BLOCK]; PIXELS],
    [a, b, c, d]: [&[f32]; PIXELS],
    weights: &[[E; CHANNEL_BLOCK]],
) {
    let mut local = *sums;
    for ((((weights, &a), &b), &c), &d) in weights.iter().zip(a).zip(b).zip(c).zip(d) {
        for i in 0..CHANNEL_BLOCK {
            let weight = weights[i].to_f32();
            local[0][i] += a * weight;
            local[1][i] += b * weight;
            local[2][i] += c * weight;
            local[3][i] += d * weight;
        }
    }
    *sums = local;
}

/// `Σ a[k]·b[k]`, added in the order of `k`.
#[cfg(all(any(feature = "f16", feature = "f32"), any(feature = "attention", feature = "conditioning")))]
#[inline]
pub(crate) fn dot_float<A: Float, B: Float>(a: &[A], b: &[B]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum()
}

/// `Σ weights[k]·values[k·stride]`, added in the order of `k`; `stride ≥ 1`.
#[cfg(all(any(feature = "f16", feature = "f32"), feature = "attention"))]
#[inline]
pub(crate) fn weighted_float<E: Float>(weights: &[f32], values: &[E], stride: usize) -> f32 {
    let values = values.iter().step_by(stride.max(1));
    weights.iter().zip(values).fold(0.0, |sum, (weight, value)| sum + weight * value.to_f32())
}
