//! Attention: all queries of a head at once.

mod integer;

use bytemuck::Pod;

use super::{Scratch, room};
use crate::arch::wide::{Instructions, Wide, Work};
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
            fn run<W: Wide>(self, _wide: W) -> Option<()> {
                heads(self)
            }
        }
    };
}
float!(half::f16);
float!(f32);

/// Scores of all keys side by side, each summed over the channels in their order; contexts of all channels, over the pixels.
#[inline(always)]
fn heads<E: Pod + crate::float::Float>(heads: Heads<'_, E>) -> Option<()> {
    let Heads { op, queries, key_value, channels, head, scratch } = heads;
    let pixels = key_value.len() / (2 * channels).max(1);
    let keys: &mut [f32] = room(&mut scratch.values, pixels * head);
    let scores: &mut [f32] = room(&mut scratch.sums, pixels);
    let contexts: &mut [f32] = room(&mut scratch.row, head);
    for first in (0..channels).step_by(head) {
        for (pixel, values) in key_value.chunks_exact(2 * channels).enumerate() {
            for (channel, key) in values.get(first..first + head)?.iter().enumerate() {
                *keys.get_mut(channel * pixels + pixel)? = key.to_f32();
            }
        }
        for query in queries.chunks_exact_mut(channels.max(1)) {
            let query = query.get_mut(first..first + head)?;
            scores.fill(-0.0);
            for (query, keys) in query.iter().zip(keys.chunks_exact(pixels)) {
                let query = query.to_f32();
                for (score, key) in scores.iter_mut().zip(keys) {
                    *score += query * key;
                }
            }
            let mut largest = f32::NEG_INFINITY;
            for score in scores.iter_mut() {
                *score *= op.scale;
                largest = largest.max(*score);
            }
            for score in scores.iter_mut() {
                *score = super::activation::exp(*score - largest);
            }
            let mut total = 0.0;
            for score in &*scores {
                total += score;
            }
            contexts.fill(0.0);
            for (&score, values) in scores.iter().zip(key_value.chunks_exact(2 * channels)) {
                let values = values.get(channels + first..channels + first + head)?;
                for (context, value) in contexts.iter_mut().zip(values) {
                    *context += score * value.to_f32();
                }
            }
            for (query, context) in query.iter_mut().zip(&*contexts) {
                *query = E::from_f32(context / total);
            }
        }
    }
    Some(())
}
