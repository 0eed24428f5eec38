//! Exact integer statistics, integer reciprocal square root.

use core::ops::Range;

use super::{Groups, Part};
use crate::arch::{moments_i8, moments_i16};
use crate::fixed::{divide, divide_signed, round_shift, rsqrt_q16, saturate_i32, scale_by_power};
use crate::format::{Element, GroupNorm};
use crate::ops::Context;

pub(crate) fn run(context: &Context<'_>, op: &GroupNorm, mut groups: Range<u32>, arena: &mut [u8]) -> Option<()> {
    let all = Groups::bind(context, op)?;
    groups.try_for_each(|group| {
        run_with(context, op, (&all, group), arena, |part, arena| {
            let (_, zero) = scale(op, part);
            let (stride, run) = (part.source.tensor.channels.into(), part.channels.len());
            match part.source.tensor.element() {
                Element::I8 => Some(moments_i8(part.values(arena)?, stride, run, zero)),
                Element::I16 => Some(moments_i16(part.values(arena)?, stride, run, zero)),
                _ => None,
            }
        })
    })
}

/// One group, with `sums_of` each part: Σ(x − zero) and Σ(x − zero)².
#[inline(always)]
pub(crate) fn run_with(
    context: &Context<'_>,
    op: &GroupNorm,
    (groups, group): (&Groups<'_>, u32),
    arena: &mut [u8],
    sums_of: impl Fn(&Part<'_>, &[u8]) -> Option<(i64, u64)>,
) -> Option<()> {
    // Sums over the group in units of the larger scale: Σx with 15 fractional bits, Σx² without.
    let mut sum = 0i64;
    let mut squares = 0u64;
    let mut count = 0u64;
    for part in groups.parts(group) {
        let (ratio, _) = scale(op, &part);
        let (s, q) = sums_of(&part, arena)?;
        let (s, q) = to_common_scale(s, q, ratio);
        sum = sum.wrapping_add(s);
        squares = squares.wrapping_add(q);
        count += part.count();
    }

    let group_map = GroupMap::new(op, sum, squares, count)?;
    for part in groups.parts(group) {
        let (ratio, zero) = scale(op, &part);
        for (gamma, beta, map) in part.channels::<i32>(context, op, arena)? {
            *map = group_map.channel(op, gamma, beta, ratio, zero);
        }
    }
    Some(())
}

/// Ratio and zero point of a part's source.
fn scale(op: &GroupNorm, part: &Part<'_>) -> (u32, i32) {
    let ([first_ratio, second_ratio], [first_zero, second_zero]) = (op.ratio, op.zero);
    if part.source.index() == 0 { (first_ratio, first_zero) } else { (second_ratio, second_zero) }
}

/// Sums over a source in units of the larger scale: Σx with 15 fractional bits, Σx² without.
#[inline]
pub fn to_common_scale(sum: i64, squares: u64, ratio: u32) -> (i64, u64) {
    let ratio = u64::from(ratio);
    (sum.wrapping_mul(ratio as i64), (squares.wrapping_mul(ratio) >> 15).wrapping_mul(ratio) >> 15)
}

/// What a group's statistics do to its channels.
#[derive(Clone, Copy, Debug)]
pub struct GroupMap {
    /// Mean over deviation, 16 fractional bits.
    offset: i64,
    /// One over the deviation: `mantissa·2^(−exponent)`.
    mantissa: u32,
    exponent: i32,
}

impl GroupMap {
    /// From the sums of `count` elements in the common scale; `None` if there are none.
    pub fn new(op: &GroupNorm, sum: i64, squares: u64, count: u64) -> Option<Self> {
        // Mean and variance in 16 fractional bits of that unit.
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        let mean = divide_signed(sum << 1, count);
        let mean_square = divide(squares << 16, count);
        let variance = mean_square.saturating_sub(((mean * mean) >> 16) as u64);
        let (mantissa, exponent) = rsqrt_q16(variance.saturating_add(op.epsilon_q16));
        // |mean| < 2³¹ and the mantissa is at most 2³¹.
        Some(Self { offset: scale_by_power(mean * i64::from(mantissa), exponent), mantissa, exponent })
    }

    /// `[A, B]` of a channel of a source with this ratio and zero point.
    #[inline]
    pub fn channel(&self, op: &GroupNorm, gamma: i32, beta: i32, ratio: u32, zero: i32) -> [i32; 2] {
        let gamma = i64::from(gamma);
        // γ has 20 fractional bits, the ratio 15, the mantissa `exponent`; the result `affine_shift + 12`.
        let scaled = round_shift(gamma * i64::from(ratio), 15);
        let a = scale_by_power(scaled * i64::from(self.mantissa), self.exponent + 20 - (op.affine_shift as i32 + 12));
        let a = saturate_i32(a);
        let b = i64::from(beta)
            - round_shift(self.offset.saturating_mul(gamma), 16 + 20 - 12)
            - round_shift(i64::from(a) * i64::from(zero), op.affine_shift);
        [a, saturate_i32(b)]
    }
}
