//! Group normalization: the statistics of all channels, or groups, in one pass over the map.

use super::{Scratch, room};
use crate::arch::wide::{Instructions, Wide, Work};
use crate::format::GroupNorm;
use crate::ops::group_norm::Groups;
use crate::ops::{Context, sources, view};

/// In the `i8` precision: the sums of each channel.
pub(super) fn run_i8(
    instructions: Instructions,
    context: &Context<'_>,
    op: &GroupNorm,
    scratch: &mut Scratch,
    arena: &mut [u8],
) -> Option<()> {
    use crate::format::Element;
    use crate::ops::group_norm::i8::run_with;

    let sources = sources(context, op.sources)?;
    let channels = sources.iter().flatten().map(|source| usize::from(source.tensor.channels)).sum();
    let (sums, squares) = room::<i64>(&mut scratch.sums, 2 * channels).split_at_mut_checked(channels)?;
    for source in sources.iter().flatten() {
        let channels = source.channel..source.channel + usize::from(source.tensor.channels);
        let zero = if source.index() == 0 { op.zero[0] } else { op.zero[1] };
        let into = [sums.get_mut(channels.clone())?, squares.get_mut(channels)?];
        let bytes = arena.get(source.tensor.range())?;
        match source.tensor.element() {
            Element::I8 => instructions.dispatch(Sums { values: view::<i8>(bytes)?, zero, into }),
            Element::I16 => instructions.dispatch(Sums { values: view::<i16>(bytes)?, zero, into }),
            _ => return None,
        }
    }
    let groups = Groups::bind(context, op)?;
    for group in 0..op.groups {
        run_with(context, op, (&groups, group.into()), arena, |part, _| {
            let channels = part.joined_channels();
            let sum = sums.get(channels.clone())?.iter().fold(0i64, |sum, &channel| sum.wrapping_add(channel));
            let squares = squares.get(channels)?.iter().fold(0u64, |sum, &channel| sum.wrapping_add(channel as u64));
            Some((sum, squares))
        })?;
    }
    Some(())
}

/// Σ(x − zero) and Σ(x − zero)² of each channel, modulo 2⁶⁴.
struct Sums<'a, S> {
    values: &'a [S],
    zero: i32,
    into: [&'a mut [i64]; 2],
}

impl<S: Copy + Into<i32>> Work for Sums<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<W: Wide>(self, _wide: W) {
        let Self { values, zero, into: [sums, squares] } = self;
        sums.fill(0);
        squares.fill(0);
        for pixel in values.chunks_exact(sums.len().max(1)) {
            for ((sum, square), &value) in sums.iter_mut().zip(&mut *squares).zip(pixel) {
                let value = i64::from(value.into().wrapping_sub(zero));
                *sum = sum.wrapping_add(value);
                *square = square.wrapping_add(value * value);
            }
        }
    }
}

/// In the float precisions: the means of all groups side by side, each summed in the order of
/// [`ops::group_norm`](crate::ops::group_norm::float).
pub(super) fn run_float<E: crate::float::Float>(
    instructions: Instructions,
    context: &Context<'_>,
    op: &GroupNorm,
    scratch: &mut Scratch,
    arena: &mut [u8],
) -> Option<()> {
    let sources = sources(context, op.sources)?;
    let groups = usize::from(op.groups);
    let width = usize::from(context.tensor(op.output)?.columns).checked_div(groups)?;
    let (means, rest) = room::<f32>(&mut scratch.sums, 5 * groups).split_at_mut_checked(groups)?;
    let (squares, rest) = rest.split_at_mut_checked(groups)?;
    let (row, rest) = rest.split_at_mut_checked(groups)?;
    let (zeros, counts) = rest.split_at_mut_checked(groups)?;
    zeros.fill(0.0);
    for is_variance in [false, true] {
        let (totals, around) = if is_variance { (&mut *squares, &*means) } else { (&mut *means, &*zeros) };
        totals.fill(0.0);
        counts.fill(0.0);
        for source in sources.iter().flatten() {
            let tensor = &source.tensor;
            let values: &[E] = view(arena.get(tensor.range())?)?;
            let pixels = usize::from(tensor.rows) * usize::from(tensor.columns);
            let channels = usize::from(tensor.channels);
            let end = source.channel + channels;
            // Groups that begin in the source before and end in the one behind are summed by their parts.
            let mut first = source.channel;
            while first < end {
                let group = first / width;
                let [width, many] = match (first.is_multiple_of(width), (end - first) / width) {
                    (true, many @ 1..) => [width, many],
                    _ => [end.min((group + 1) * width) - first, 1],
                };
                let groups = group..group + many;
                instructions.dispatch(Means {
                    values,
                    channels,
                    columns: tensor.columns.into(),
                    first: first - source.channel,
                    width,
                    is_variance,
                    row: row.get_mut(groups.clone())?,
                    around: around.get(groups.clone())?,
                    totals: totals.get_mut(groups.clone())?,
                });
                counts.get_mut(groups)?.iter_mut().for_each(|count| *count += (pixels * width) as f32);
                first += many * width;
            }
        }
        totals.iter_mut().zip(&*counts).for_each(|(total, count)| *total /= count);
    }
    let groups = Groups::bind(context, op)?;
    for (group, (&mean, &variance)) in (0..).zip(means.iter().zip(&*squares)) {
        crate::ops::group_norm::float::apply(context, op, (&groups, group), arena, [mean, variance])?;
    }
    Some(())
}

/// Adds Σx of each group to its total, or Σ(x − around)².
struct Means<'a, E> {
    values: &'a [E],
    /// Channels of a pixel, and pixels of a row.
    channels: usize,
    columns: usize,
    /// First channel of the first group.
    first: usize,
    /// Channels of a group.
    width: usize,
    is_variance: bool,
    /// Room for a row's sums.
    row: &'a mut [f32],
    around: &'a [f32],
    totals: &'a mut [f32],
}

impl<E: crate::float::Float> Work for Means<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<W: Wide>(self, _wide: W) {
        // Widths that are known while compiling make vectors of groups.
        match self.width {
            1 => self.sum::<1>(),
            2 => self.sum::<2>(),
            3 => self.sum::<3>(),
            4 => self.sum::<4>(),
            6 => self.sum::<6>(),
            8 => self.sum::<8>(),
            12 => self.sum::<12>(),
            16 => self.sum::<16>(),
            24 => self.sum::<24>(),
            _ => self.sum_any(),
        }
    }
}

impl<E: crate::float::Float> Means<'_, E> {
    /// What is summed of a value.
    #[inline(always)]
    fn term(is_variance: bool, value: f32, around: f32) -> f32 {
        if is_variance { (value - around) * (value - around) } else { value }
    }

    #[inline(always)]
    fn sum<const WIDTH: usize>(self) {
        let Self { values, channels, columns, first, is_variance, row, around, totals, .. } = self;
        for values in values.chunks_exact((channels * columns).max(1)) {
            row.fill(0.0);
            for pixel in values.chunks_exact(channels.max(1)) {
                let pixel = pixel.get(first..).unwrap_or_default().as_chunks::<WIDTH>().0;
                for ((sum, values), &around) in row.iter_mut().zip(pixel).zip(around) {
                    let mut of_pixel = -0.0;
                    for value in values {
                        of_pixel += Self::term(is_variance, value.to_f32(), around);
                    }
                    *sum += of_pixel;
                }
            }
            for (total, &row) in totals.iter_mut().zip(&*row) {
                *total += row;
            }
        }
    }

    /// The same for any width.
    #[inline(always)]
    fn sum_any(self) {
        let Self { values, channels, columns, first, width, is_variance, row, around, totals } = self;
        for values in values.chunks_exact((channels * columns).max(1)) {
            row.fill(0.0);
            for pixel in values.chunks_exact(channels.max(1)) {
                let pixel = pixel.get(first..).unwrap_or_default().chunks_exact(width.max(1));
                for ((sum, values), &around) in row.iter_mut().zip(pixel).zip(around) {
                    let mut of_pixel = -0.0;
                    for value in values {
                        of_pixel += Self::term(is_variance, value.to_f32(), around);
                    }
                    *sum += of_pixel;
                }
            }
            for (total, &row) in totals.iter_mut().zip(&*row) {
                *total += row;
            }
        }
    }
}
