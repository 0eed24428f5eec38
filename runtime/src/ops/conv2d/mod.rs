//! Convolution with its input transformation.
//!
//! The input is never unfolded. A ring holds the last `kh` rows of the padded, transformed input, each of
//! `ring_width·channels` elements, so that the patch under the kernel is `kh` runs of `kw·channels` neighbours. Row `r`
//! of the padded input lies in slot `r mod kh`. A slice computes eight channels of one output row; the first slice of a
//! row brings the rows into the ring that the row before did not need. Slices go through the channels of a row, then to the
//! next row. Streamed weights cut the channels into chunks; then slices go through all rows of a chunk, and each chunk
//! gathers the input again.

use bytemuck::Pod;

use super::{Context, view};
use crate::format::{CHANNEL_BLOCK, Conv2d, NONE};
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    rows: usize,
    channels: usize,
    output_columns: usize,
    output_channels: usize,
    ring_width: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    /// 1 if rows and columns are doubled, else 0.
    doubling: usize,
    output_rows: usize,
    /// Blocks of eight output channels that are computed together: all, or those of a chunk of streamed weights.
    chunk_blocks: usize,
}

/// What one slice computes.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Output row.
    y: usize,
    /// First output channel, and how many.
    channel: usize,
    count: usize,
    /// Number of the weights' chunk, and the first output channel in it.
    chunk: usize,
    chunk_channel: usize,
}

impl Tile {
    /// Whether this is the first slice of its row, which gathers the input.
    fn gathers(&self) -> bool {
        self.channel == self.chunk_channel
    }
}

impl Geometry {
    fn new(context: &Context<'_>, op: &Conv2d) -> Option<Self> {
        let source = context.tensor(op.sources[0])?;
        let output = context.tensor(op.output)?;
        let ring = context.tensor(op.scratch)?;
        Some(Self {
            rows: source.rows.into(),
            channels: ring.channels.into(),
            output_columns: output.columns.into(),
            output_channels: output.channels.into(),
            ring_width: ring.columns.into(),
            kernel: op.kernel.map(usize::from),
            stride: op.stride.into(),
            padding: op.padding.map(usize::from),
            doubling: op.doubling() as usize,
            output_rows: output.rows.into(),
            chunk_blocks: if op.window == NONE {
                usize::from(output.channels).div_ceil(CHANNEL_BLOCK)
            } else {
                op.chunk_blocks.into()
            },
        })
    }

    /// Rows of the padded input that output row `y` needs and the row before did not.
    fn new_rows(&self, y: usize) -> core::ops::Range<usize> {
        let start = y * self.stride;
        let end = start + self.kernel[0];
        if y == 0 { start..end } else { start.max(end - self.stride)..end }
    }

    /// The source row of a row of the padded input; `None` for padding.
    fn source_row(&self, ring_row: usize) -> Option<usize> {
        let row = ring_row.checked_sub(self.padding[0])? >> self.doubling;
        (row < self.rows).then_some(row)
    }

    /// Elements of one row of the ring.
    fn ring_row_len(&self) -> usize {
        self.ring_width * self.channels
    }

    /// First element of the ring's slot of a row of the padded input.
    fn slot(&self, ring_row: usize) -> usize {
        ring_row.checked_rem(self.kernel[0]).unwrap_or(0) * self.ring_row_len()
    }

    /// What a slice computes.
    fn tile(&self, slice: u32) -> Tile {
        let blocks = self.output_channels.div_ceil(CHANNEL_BLOCK);
        let chunk = (slice as usize).checked_div(self.chunk_blocks.saturating_mul(self.output_rows)).unwrap_or(0);
        let first = chunk * self.chunk_blocks;
        let width = self.chunk_blocks.min(blocks.saturating_sub(first)).max(1);
        let within = slice as usize - first * self.output_rows;
        let channel = (first + within % width) * CHANNEL_BLOCK;
        let count = self.output_channels.saturating_sub(channel).min(CHANNEL_BLOCK);
        Tile { y: within / width, channel, count, chunk, chunk_channel: first * CHANNEL_BLOCK }
    }
}

/// The weights of a tile's chunk: in the file, or in the window of the arena that they pass through.
fn weights<'a, T: Pod>(
    context: &Context<'a>,
    op: &Conv2d,
    geometry: &Geometry,
    tile: &Tile,
    window: &'a [u8],
) -> Option<&'a [T]> {
    let outputs = geometry.output_channels as u64;
    match op.chunks(outputs, geometry.channels as u64) {
        None => {
            let bytes = op.layout().bytes(outputs, op.taps(geometry.channels as u64));
            context.data(op.weights, bytes as usize / size_of::<T>())
        }
        Some(chunks) => {
            let buffer = (tile.chunk as u64).checked_rem(chunks.buffers(window.len() as u64))?;
            view(window.get((buffer * chunks.bytes) as usize..)?)
        }
    }
}

/// The chunk of streamed weights that a slice needs.
pub(crate) fn chunk(context: &Context<'_>, op: &Conv2d, slice: u32) -> Option<usize> {
    Some(Geometry::new(context, op)?.tile(slice).chunk)
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Conv2d) -> Option<u32> {
    let output = model.tensor(op.output)?;
    Some(u32::from(output.rows) * u32::from(output.channels).div_ceil(CHANNEL_BLOCK as u32))
}
