//! Statistics in two passes: the variance is summed around the mean, so that nothing cancels.

use super::overlap;
use crate::float::{Float, sqrt};
use crate::format::GroupNorm;
use crate::ops::{Context, bytes, sources, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &GroupNorm, slice: u32, arena: &mut [u8]) -> Option<()> {
    let output = context.tensor(op.output)?;
    let channels = usize::from(output.columns);
    let sources = sources(context, op.sources)?;
    let per_group = channels.checked_div(op.groups.into())?;
    let group = slice as usize * per_group..(slice as usize + 1) * per_group;

    // The mean of `f(x)` over the group; partial sums per pixel keep the rounding error of long sums small.
    let mean_of = |f: &dyn Fn(f32) -> f32| -> Option<f32> {
        let mut total = 0.0;
        let mut count = 0.0;
        for source in &sources {
            let part = overlap(&group, source);
            if part.is_empty() {
                continue;
            }
            let input: &[E] = view(bytes(arena, &source.tensor)?)?;
            let columns = usize::from(source.tensor.columns);
            let row_len = usize::from(source.tensor.channels) * columns;
            for row in input.chunks_exact(row_len.max(1)) {
                let mut row_sum = 0.0;
                for pixel in row.chunks_exact(usize::from(source.tensor.channels).max(1)) {
                    row_sum += pixel.get(part.clone())?.iter().map(|&x| f(x.to_f32())).sum::<f32>();
                }
                total += row_sum;
            }
            count += (part.len() * columns * usize::from(source.tensor.rows)) as f32;
        }
        Some(total / count)
    };
    let mean = mean_of(&|x| x)?;
    let variance = mean_of(&|x| (x - mean) * (x - mean))?;
    let inverse = inverse_deviation(op, variance);

    let gamma: &[f32] = context.data(op.gamma, channels)?;
    let beta: &[f32] = context.data(op.beta, channels)?;
    let map: &mut [[f32; 2]] = view_mut(arena.get_mut(output.range())?)?;
    for channel in group {
        *map.get_mut(channel)? = channel_map(mean, inverse, *gamma.get(channel)?, *beta.get(channel)?);
    }
    Some(())
}

/// One over the deviation.
#[inline]
pub fn inverse_deviation(op: &GroupNorm, variance: f32) -> f32 {
    1.0 / sqrt(variance + op.epsilon)
}

/// `[A, B]` of a channel.
#[inline]
pub fn channel_map(mean: f32, inverse: f32, gamma: f32, beta: f32) -> [f32; 2] {
    let a = gamma * inverse;
    [a, beta - mean * a]
}
