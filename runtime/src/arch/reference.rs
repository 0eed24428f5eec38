//! The kernels in portable Rust: what every other implementation gives the bits of.
//!
//! Operands of one kernel have the same length; what is longer is cut to the shortest.

use super::PIXELS;
#[cfg(feature = "i8")]
use super::QUAD;
#[cfg(feature = "i4")]
use super::SPREAD;
#[cfg(feature = "i8")]
use super::patches::{GROUP, Group, Patches, Window, rows, unfold};
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::float::Float;
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::format::CHANNEL_BLOCK;

#[cfg(all(feature = "i8", any(test, not(any(no_long_multiply, dsp)))))]
mod gather;
#[cfg(all(feature = "i8", any(test, not(any(no_long_multiply, dsp)))))]
pub(crate) use self::gather::*;

#[cfg(all(feature = "i8", test))]
mod results;
#[cfg(all(feature = "i8", test))]
pub(crate) use self::results::*;

#[cfg(all(feature = "tiles", any(test, scalar, all(feature = "stored-tiles", not(dsp)))))]
pub(crate) use super::winograd::{reference::winograd_output, two::reference::winograd2_output};
#[cfg(all(feature = "tiles", test))]
pub(crate) use super::winograd::{reference::winograd_weights, two::reference::winograd2_weights};
#[cfg(all(feature = "tiles", any(test, all(feature = "stored-tiles", not(tile_kernels)))))]
pub(crate) use super::winograd::{
    reference::{winograd_input, winograd_multiply},
    two::reference::winograd2_input,
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

/// Makes rows of eight bits of four-bit weights, four taps a word, zeros behind the last: `weights[k]` holds those of the four
/// outputs, as in [`dot4_packed_i8`].
#[cfg(feature = "i4")]
#[inline(never)]
pub(crate) fn spread_packed(rows: &mut [[u32; SPREAD / GROUP]; QUAD], weights: &[u16]) {
    let (groups, rest) = weights.as_chunks();
    spread_groups(rows.each_mut().map(<[u32; _]>::as_mut_slice), groups);
    if !rest.is_empty() {
        let mut last = [0; GROUP];
        last.iter_mut().zip(rest).for_each(|(last, &weight)| *last = weight);
        spread_groups(rows.each_mut().map(|row| row.get_mut(groups.len()..).unwrap_or_default()), &[last]);
    }
}

/// Four taps a word.
#[cfg(feature = "i4")]
#[inline(never)]
fn spread_groups([a, b, c, d]: [&mut [u32]; QUAD], groups: &[[u16; GROUP]]) {
    const HALVES: u32 = 0x00FF_00FF;
    // 120 more than weights plus 8, which have no sign, do not leave a byte, and are 128 too many.
    let signed = |word: u32| (((word & 0x0F0F_0F0F) + 0x7878_7878) ^ 0x8080_8080).to_le();
    for ((((a, b), c), d), &[first, second, third, fourth]) in a.iter_mut().zip(b).zip(c).zip(d).zip(groups) {
        let even = (u32::from(first) | u32::from(third) << 16) ^ 0x8888_8888;
        let odd = (u32::from(second) | u32::from(fourth) << 16) ^ 0x8888_8888;
        // The taps' bytes side by side: two outputs in each.
        let lower = (even & HALVES) | (odd & HALVES) << 8;
        let upper = (even >> 8 & HALVES) | (odd & !HALVES);
        (*a, *b) = (signed(lower), signed(lower >> 4));
        (*c, *d) = (signed(upper), signed(upper >> 4));
    }
}

/// Unfolds the activations under a kernel, see [`patches`](super::patches).
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn unfold_i8(patches: &mut [Group], window: &Window<'_, i8>) {
    unfold(patches, window, |&[a, b, c, d]| [a.into(), c.into(), b.into(), d.into()]);
}

/// The same for `i16` activations.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn unfold_i16(patches: &mut [Group], window: &Window<'_, i16>) {
    unfold(patches, window, |&[a, b, c, d]| [a, c, b, d]);
}

/// How patches of 8-bit rings are made and multiplied: by the kernels of their own names.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    Patches {
        unfold: super::unfold_i8,
        multiply: super::dot_patches,
        #[cfg(any(scalar, test))]
        edges: super::dot_edges,
        taps: GROUP,
    }
}

/// The same for 16-bit rings.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) fn patches_i16() -> Patches<i16> {
    Patches {
        unfold: super::unfold_i16,
        multiply: super::dot_patches,
        #[cfg(any(scalar, test))]
        edges: super::dot_edges,
        taps: GROUP,
    }
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

/// [`dot_patches`] where a pixel may be [idle](super::patches::Idle).
#[cfg(all(feature = "i8", any(armv6m, test)))]
pub(crate) fn dot_edges(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    taps: usize,
    stride: usize,
    _idle: super::patches::Idle,
) {
    dot_patches(sums, patches, weights, taps, stride);
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

/// Brings values further than `limit` from zero there.
#[cfg(all(feature = "i8", feature = "tiles"))]
pub(crate) fn limit_i16(values: &mut [i16], limit: u16) {
    let limit = limit.min(i16::MAX as u16) as i16;
    values.iter_mut().for_each(|value| *value = (*value).min(limit).max(-limit));
}

/// Σ(x − zero) and Σ(x − zero)² over the first `run` of every `stride` elements; the last run need not have elements behind.
// Out of line: the loop wants the registers for itself.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn moments_i8(values: &[i8], stride: usize, run: usize, zero: i32) -> (i64, u64) {
    moments(values, stride, run, zero)
}

/// The same for `i16` elements.
#[cfg(feature = "i8")]
#[inline(never)]
pub(crate) fn moments_i16(values: &[i16], stride: usize, run: usize, zero: i32) -> (i64, u64) {
    moments(values, stride, run, zero)
}

#[cfg(feature = "i8")]
#[inline(always)]
fn moments<T: Copy + Into<i32>>(values: &[T], stride: usize, run: usize, zero: i32) -> (i64, u64) {
    let (mut count, mut sum, mut squares) = (0i64, 0i64, 0u64);
    for pixel in values.chunks(stride.max(1)) {
        let pixel = pixel.get(..run).unwrap_or_default();
        // As many as a pixel has channels: no sum of them leaves 32 bits.
        let mut row = 0i32;
        for &value in pixel {
            let value = value.into();
            row = row.wrapping_add(value);
            // RISC-V takes an instruction for each half of a product.
            squares = squares.wrapping_add(if cfg!(any(no_long_multiply, riscv)) {
                u64::from(value.wrapping_mul(value).unsigned_abs())
            } else {
                // Signed products, of which the processor adds one to 64 bits at once.
                (i64::from(value) * i64::from(value)) as u64
            });
        }
        sum = sum.wrapping_add(row.into());
        count = count.wrapping_add(pixel.len() as i64);
    }
    around(zero, count, sum, squares)
}

/// Σ(x − z) and Σ(x − z)² of as many x, from Σx and Σx².
#[cfg(feature = "i8")]
#[inline(always)]
pub(super) fn around(zero: i32, count: i64, sum: i64, squares: u64) -> (i64, u64) {
    let zero = i64::from(zero);
    let centered = sum.wrapping_sub(count.wrapping_mul(zero));
    // z² of each, less 2·z·x.
    let more = zero.wrapping_mul(count.wrapping_mul(zero).wrapping_sub(sum.wrapping_mul(2)));
    (centered, squares.wrapping_add(more as u64))
}

/// `scores[k] = Σ query[i]·keys[k·stride + i]`, modulo 2³².
#[cfg(all(feature = "i8", feature = "attention"))]
#[inline]
pub(crate) fn scores_i8(scores: &mut [i32], query: &[i8], keys: &[i8], stride: usize) {
    let mut keys = keys.chunks(stride.max(1));
    for scores in scores.chunks_mut(QUAD) {
        // Past the last key the last one is taken again; its score is not stored.
        let mut last = &[] as &[i8];
        let mut next = || {
            last = keys.next().unwrap_or(last);
            last
        };
        let rows = [next(), next(), next(), next()];
        let sums = super::dot4_i8([0; QUAD], query, rows);
        match scores.first_chunk_mut() {
            Some(scores) => *scores = sums,
            None => scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = sum),
        }
    }
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
    // Halves of products in words, as many as cannot leave them: adding 64 bits takes three instructions and more.
    const WORDS: usize = 1 << 15;
    let len = a.len().min(b.len());
    let [a, b] = [a, b].map(|values| values.get(..len).unwrap_or_default());
    let mut all = 0;
    for (a, b) in a.chunks(WORDS).zip(b.chunks(WORDS)) {
        let (mut high, mut low) = (0i32, 0u32);
        let mut add = |a: i16, b: i16| {
            let product = i32::from(a) * i32::from(b);
            high = high.wrapping_add(product >> 16);
            low = low.wrapping_add(product as u32 & 0xFFFF);
        };
        let ((fours, rest), (others, behind)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
        for (a, b) in fours.iter().zip(others) {
            add(a[0], b[0]);
            add(a[1], b[1]);
            add(a[2], b[2]);
            add(a[3], b[3]);
        }
        rest.iter().zip(behind).for_each(|(&a, &b)| add(a, b));
        all += (i64::from(high) << 16) + i64::from(low);
    }
    all
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
