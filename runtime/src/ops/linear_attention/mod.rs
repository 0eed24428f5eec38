//! Linear attention (Shen et al., 2021, arXiv:1812.01243, efficient attention): keys are normalized over the pixels, queries over
//! their channels, so that what lies between is a matrix for each head. The first slices compute that, eight values of a channel
//! of the keys at a time, the others each some queries, which the result replaces.

use bytemuck::Pod;

use super::{Context, tail, units, view, view_mut};
use crate::format::LinearAttention;
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Values that are weighted together.
pub(crate) const BLOCK: usize = 8;
/// Multiply-accumulates of a slice of more than one block or query, at most.
const SLICE_MACS: u32 = 1 << 14;

/// What a slice reads and writes, with elements `E` and contexts `C`.
struct Operands<'a, E, C> {
    queries: &'a mut [E],
    /// Of pixels, then those that are learned: (key, 2·channels), keys before values.
    keys: [&'a [E]; 2],
    /// (channel, channel within the head): what is read of each channel.
    contexts: &'a mut [C],
    /// Of the channels of a query.
    weights: &'a mut [C],
    channels: usize,
    /// Channels of a head.
    head: usize,
}

impl<'a, E: Pod, C: Pod> Operands<'a, E, C> {
    fn bind(context: &Context<'a>, op: &LinearAttention, arena: &'a mut [u8]) -> Option<Self> {
        let query = context.tensor(op.query)?;
        let key_value = context.tensor(op.key_value)?;
        let scratch = context.tensor(op.scratch)?;
        let channels = usize::from(query.channels);
        let head = channels.checked_div(op.heads.into())?.max(1);
        let [queries, key_value, scratch] =
            arena.get_disjoint_mut([query.range(), key_value.range(), scratch.range()]).ok()?;
        let (contexts, weights) = view_mut(scratch)?.split_at_mut_checked(channels * head)?;
        let learned = context.data(op.memory_at, usize::from(op.memory) * 2 * channels)?;
        Some(Self { queries: view_mut(queries)?, keys: [learned, view(key_value)?], contexts, weights, channels, head })
    }

    /// Each key with its values, from a channel of the keys and a channel of the values on.
    fn keys(&self, key: usize, value: usize) -> impl Iterator<Item = (E, &'a [E])> + use<'a, E, C> {
        let (stride, values) = ((2 * self.channels).max(1), self.channels + value);
        let [learned, pixels] = self.keys;
        let all = learned.chunks_exact(stride).chain(pixels.chunks_exact(stride));
        all.filter_map(move |pixel| Some((*pixel.get(key)?, tail(pixel, values))))
    }

    /// The place of block `block` of the contexts: its channel of the keys, its first channel of the values, and the contexts.
    fn block(&self, block: u32) -> [usize; 2] {
        let blocks = self.head.div_ceil(BLOCK).max(1);
        let (channel, first) = (block as usize / blocks, block as usize % blocks * BLOCK);
        [channel, channel - channel % self.head + first]
    }

    /// The contexts of a block.
    fn contexts(&mut self, [channel, value]: [usize; 2]) -> &mut [C] {
        let (row, first) = (channel * self.head, value % self.head);
        let end = self.head.min(first + BLOCK);
        self.contexts.get_mut(row + first..row + end).unwrap_or_default()
    }
}

/// What slices consist of.
#[derive(Clone, Copy)]
pub(super) struct Work {
    /// Blocks of contexts, and how many are a slice.
    blocks: [u32; 2],
    /// Queries, and how many are a slice.
    queries: [u32; 2],
}

impl Work {
    pub(super) fn new(model: &Model<'_>, op: &LinearAttention) -> Option<Self> {
        let query = model.tensor_ref(op.query)?;
        let channels = u32::from(query.channels);
        let head = channels.checked_div(op.heads.into())?;
        let pixels = u32::from(query.rows) * u32::from(query.columns);
        // A key is weighed for each block anew, which takes as long as some products.
        let of_block = pixels.saturating_add(op.memory.into()).saturating_mul(2 * BLOCK as u32);
        Some(Self {
            blocks: [channels.saturating_mul(head.div_ceil(BLOCK as u32)), (SLICE_MACS.checked_div(of_block)?).max(1)],
            queries: [pixels, SLICE_MACS.checked_div(channels.saturating_mul(head))?.max(1)],
        })
    }

    fn context_slices(self) -> u32 {
        self.blocks[0].div_ceil(self.blocks[1].max(1))
    }

    pub(super) fn slices(self) -> u32 {
        self.context_slices() + self.queries[0].div_ceil(self.queries[1].max(1))
    }

    /// Blocks or queries of a slice.
    fn of_slice(self, slice: u32) -> Part {
        match slice.checked_sub(self.context_slices()) {
            None => Part::Blocks(units(slice, self.blocks[1], self.blocks[0])),
            Some(slice) => Part::Queries(units(slice, self.queries[1], self.queries[0])),
        }
    }
}

/// What a slice computes.
enum Part {
    Blocks(core::ops::Range<u32>),
    Queries(core::ops::Range<u32>),
}
