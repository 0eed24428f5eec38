//! Attention: all queries of a head at once.

mod integer;
mod products;

use bytemuck::Pod;

use self::products::{multiply, pack};
use super::activation::exp;
use super::{Scratch, room};
use crate::arch::wide::{Instructions, LANES, PIXELS, Wide, Work};
use crate::float::Float;
use crate::format::{Attention, Element};
use crate::ops::{Context, view, view_mut};

pub(super) fn run(
    instructions: Instructions,
    context: &Context<'_>,
    op: &Attention,
    scratch: &mut Scratch,
    arena: &mut [u8],
) -> Option<()> {
    if op.memory > 0 {
        return None;
    }
    let (query, key_value) = (context.tensor(op.query)?, context.tensor(op.key_value)?);
    let channels = usize::from(query.channels);
    let head = channels.checked_div(op.heads.into())?.max(1);
    let [queries, key_value] = arena.get_disjoint_mut([query.range(), key_value.range()]).ok()?;
    match query.element() {
        Element::I8 => instructions.dispatch(Heads::<'_, i8> {
            op,
            queries: view_mut(queries)?,
            key_value: view(key_value)?,
            channels,
            head,
            scratch,
        }),
        Element::F16 => instructions.dispatch(Heads::<'_, half::f16> {
            op,
            queries: view_mut(queries)?,
            key_value: view(key_value)?,
            channels,
            head,
            scratch,
        }),
        Element::F32 => instructions.dispatch(Heads::<'_, f32> {
            op,
            queries: view_mut(queries)?,
            key_value: view(key_value)?,
            channels,
            head,
            scratch,
        }),
        _ => None,
    }
}

/// What an attention reads and writes.
struct Heads<'a, E> {
    op: &'a Attention,
    /// (pixel, channel): queries, which contexts replace.
    queries: &'a mut [E],
    /// (pixel, 2·channels): keys, then values.
    key_value: &'a [E],
    channels: usize,
    /// Channels of a head.
    head: usize,
    scratch: &'a mut Scratch,
}

macro_rules! float {
    ($element:ty) => {
        impl Work for Heads<'_, $element> {
            type Output = Option<()>;

            #[inline(always)]
            fn run<W: Wide>(self, wide: W) -> Option<()> {
                heads(wide, self)
            }
        }
    };
}
float!(half::f16);
float!(f32);

/// Scores of some queries with all keys, each summed over the channels in their order; contexts of all channels, over the pixels.
#[inline(always)]
fn heads<E: Pod + Float, W: Wide>(wide: W, heads: Heads<'_, E>) -> Option<()> {
    let Heads { op, queries, key_value, channels, head, scratch } = heads;
    let pixels = key_value.len() / (2 * channels).max(1);
    let width = pixels.next_multiple_of(LANES);
    let keys: &mut [f32] = room(&mut scratch.values, width * head);
    let values: &mut [f32] = room(&mut scratch.maps, head.next_multiple_of(LANES) * pixels);
    let rows: &mut [f32] = room(&mut scratch.row, PIXELS * head);
    let weights: &mut [f32] = room(&mut scratch.weights, PIXELS * pixels);
    let sums: &mut [f32] = room(&mut scratch.sums, PIXELS * width.max(head.next_multiple_of(LANES)));
    for first in (0..channels).step_by(head) {
        let of = |pixel: usize, half: usize, channel: usize| {
            key_value.get((2 * pixel + half) * channels + first + channel).map(|value| value.to_f32())
        };
        pack::<_, 1>(keys, [pixels, head], head, |pixel, channel| of(pixel, 0, channel));
        pack::<_, 1>(values, [head, pixels], pixels, |channel, pixel| of(pixel, 1, channel));
        for tile in queries.chunks_mut(PIXELS * channels) {
            let count = tile.len() / channels;
            for (row, query) in rows.chunks_exact_mut(head).zip(tile.chunks_exact(channels)) {
                for (to, &from) in row.iter_mut().zip(query.get(first..first + head)?) {
                    *to = from.to_f32();
                }
            }
            multiply(wide, (&*rows, head, &*keys), pixels, |_| [-0.0; LANES], sums.chunks_exact_mut(width))?;
            let mut totals = [0.0; PIXELS];
            let scores = sums.chunks_exact(width).zip(weights.chunks_exact_mut(pixels));
            for ((scores, weights), total) in scores.zip(&mut totals).take(count) {
                *total = weigh(scores.get(..pixels)?, weights, op.scale);
            }
            let width = head.next_multiple_of(LANES);
            multiply(wide, (&*weights, pixels, &*values), head, |_| [0.0; LANES], sums.chunks_exact_mut(width))?;
            for ((query, contexts), total) in tile.chunks_exact_mut(channels).zip(sums.chunks_exact(width)).zip(totals)
            {
                for (query, context) in query.get_mut(first..first + head)?.iter_mut().zip(contexts) {
                    *query = E::from_f32(context / total);
                }
            }
        }
    }
    Some(())
}

/// Turns a query's scores into weights; their total, in their order.
#[inline(always)]
fn weigh(scores: &[f32], weights: &mut [f32], scale: f32) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    for (weight, score) in weights.iter_mut().zip(scores) {
        *weight = score * scale;
        largest = largest.max(*weight);
    }
    for weight in weights.iter_mut() {
        *weight = exp(*weight - largest);
    }
    let mut total = 0.0;
    for weight in weights {
        total += *weight;
    }
    total
}
