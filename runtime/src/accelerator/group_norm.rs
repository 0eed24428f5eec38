//! Group normalization of the `i8` precision: the sums of all channels in one pass over the map.

use bytemuck::Pod;

use super::{Scratch, room};
use crate::arch::wide::{Instructions, Wide, Work};
use crate::format::{Element, GroupNorm};
use crate::ops::group_norm::i8::run_with;
use crate::ops::{Context, sources, view};

pub(super) fn run_i8(
    instructions: Instructions,
    context: &Context<'_>,
    op: &GroupNorm,
    scratch: &mut Scratch,
    arena: &mut [u8],
) -> Option<()> {
    let sources = sources(context, op.sources)?;
    let channels = sources.iter().map(|source| usize::from(source.tensor.channels)).sum();
    let (sums, squares) = room::<i64>(&mut scratch.sums, 2 * channels).split_at_mut_checked(channels)?;
    for source in &sources {
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
    for group in 0..op.groups {
        run_with(context, op, group.into(), arena, |part, _| {
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

impl<S: Pod + Into<i32>> Work for Sums<'_, S> {
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
