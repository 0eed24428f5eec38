//! Self-attention over pixels (Vaswani et al., 2017, equation 1), one query at a time: scores of one row live in the
//! scratch, the context is written over the query. A slice is some queries, all heads.

use bytemuck::Pod;

use super::{Context, tail, view, view_mut};
use crate::format::Attention;
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// What the query at a place reads and writes, with elements `E` and scores `S`.
struct Operands<'a, E, S> {
    /// The channels of the query, which the context replaces.
    query: &'a mut [E],
    /// (pixel, 2·channels): keys, then values.
    key_value: KeyValue<'a, E>,
    /// The same, learned.
    memory: KeyValue<'a, E>,
    /// One for each that is learned.
    memory_scores: &'a mut [S],
    /// One for each pixel.
    scores: &'a mut [S],
    /// Channels of a head.
    head: usize,
}

impl<'a, E: Pod, S: Pod> Operands<'a, E, S> {
    fn bind(context: &Context<'a>, op: &Attention, place: u32, arena: &'a mut [u8]) -> Option<Self> {
        let query = context.tensor(op.query)?;
        let key_value = context.tensor(op.key_value)?;
        let scratch = context.tensor(op.scratch)?;
        let channels = usize::from(query.channels);
        let [rows, key_value, scores] =
            arena.get_disjoint_mut([query.range(), key_value.range(), scratch.range()]).ok()?;
        let start = place as usize * channels;
        // Networks with learned keys have linear attention too.
        let learned = if cfg!(feature = "linear-attention") { op.memory.into() } else { 0 };
        let memory = context.data(op.memory_at, learned * 2 * channels)?;
        let (memory_scores, scores) = view_mut(scores)?.split_at_mut_checked(learned)?;
        Some(Self {
            query: view_mut(rows)?.get_mut(start..start + channels)?,
            key_value: KeyValue { values: view(key_value)?, channels },
            memory: KeyValue { values: memory, channels },
            memory_scores,
            scores,
            head: channels.checked_div(op.heads.into())?.max(1),
        })
    }
}

/// Keys and values.
#[derive(Clone, Copy)]
struct KeyValue<'a, E> {
    values: &'a [E],
    channels: usize,
}

impl<'a, E> KeyValue<'a, E> {
    /// Elements from one pixel to the next.
    fn stride(self) -> usize {
        (2 * self.channels).max(1)
    }

    /// The keys of each pixel from a channel on, the first of every `stride` and those behind.
    fn keys(self, channel: usize) -> &'a [E] {
        tail(self.values, channel)
    }

    /// The values of each pixel from a channel on, the first of every `stride` and those behind.
    fn values(self, channel: usize) -> &'a [E] {
        tail(self.values, self.channels + channel)
    }
}

/// Multiply-accumulates of a slice of more than one query, at most.
const SLICE_MACS: u32 = 1 << 16;

/// Queries of a slice, and all there are.
pub(super) fn per_slice(model: &Model<'_>, op: &Attention) -> Option<[u32; 2]> {
    let [queries, keys] = [op.query, op.key_value].map(|id| {
        model
            .tensor_ref(id)
            .map_or([0; 2], |tensor| [u32::from(tensor.rows) * u32::from(tensor.columns), tensor.channels.into()])
    });
    // A key and a value for each channel of the query.
    let macs = keys[0].saturating_add(op.memory.into()).saturating_mul(keys[1]);
    Some([SLICE_MACS.checked_div(macs)?.max(1), queries[0]])
}
