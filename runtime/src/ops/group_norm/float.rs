//! Statistics in two passes: the variance is summed around the mean, so that nothing cancels.

use core::ops::Range;

use super::Groups;
use crate::float::{Float, sqrt};
use crate::format::GroupNorm;
use crate::ops::Context;

pub(crate) fn run<E: Float>(
    context: &Context<'_>,
    op: &GroupNorm,
    mut groups: Range<u32>,
    arena: &mut [u8],
) -> Option<()> {
    let all = Groups::bind(context, op)?;
    groups.try_for_each(|group| {
        let group = (&all, group);
        let mean = mean_of::<E>(group, arena, &|x| x)?;
        let variance = mean_of::<E>(group, arena, &|x| (x - mean) * (x - mean))?;
        apply(context, op, group, arena, [mean, variance])
    })
}

/// Writes the maps of a group's channels, from its mean and variance.
#[inline(always)]
pub(crate) fn apply(
    context: &Context<'_>,
    op: &GroupNorm,
    (groups, group): (&Groups<'_>, u32),
    arena: &mut [u8],
    [mean, variance]: [f32; 2],
) -> Option<()> {
    let inverse = inverse_deviation(op, variance);
    for part in groups.parts(group) {
        for (gamma, beta, map) in part.channels::<f32>(context, op, arena)? {
            *map = channel_map(mean, inverse, gamma, beta);
        }
    }
    Some(())
}

/// The mean of `f(x)` over the group; partial sums of pixels and rows keep the rounding error of long sums small.
fn mean_of<E: Float>((groups, group): (&Groups<'_>, u32), arena: &[u8], f: &dyn Fn(f32) -> f32) -> Option<f32> {
    let mut total = 0.0;
    let mut count = 0.0;
    for part in groups.parts(group) {
        let mut pixels = part.pixels::<E>(arena)?;
        for _ in 0..part.source.tensor.rows {
            let row = pixels.by_ref().take(part.source.tensor.columns.into());
            total += row.fold(0.0, |sum, pixel| sum + pixel.iter().map(|&x| f(x.to_f32())).sum::<f32>());
        }
        count += part.count() as f32;
    }
    Some(total / count)
}

/// One over the deviation; 0 where nothing deviates from the mean, so that no rounding of it becomes a deviation, 316 times as large
/// with an epsilon of 10⁻⁵.
#[inline]
pub fn inverse_deviation(op: &GroupNorm, variance: f32) -> f32 {
    if variance == 0.0 { 0.0 } else { 1.0 / sqrt(variance + op.epsilon) }
}

/// `[A, B]` of a channel.
#[inline]
pub fn channel_map(mean: f32, inverse: f32, gamma: f32, beta: f32) -> [f32; 2] {
    let a = gamma * inverse;
    [a, beta - mean * a]
}
