//! Convolution with its input transformation.
//!
//! A ring holds the last rows of the padded, transformed input, as many as the kernel has or tiles need, each of
//! `ring_width·channels` elements, so that the patch under the kernel is `kh` runs of `kw·channels` neighbours. Row `r`
//! of the padded input lies in slot `r` modulo their number. A slice computes some blocks of eight channels of one output row, or
//! all channels of some rows; the first slice of a row brings the rows into the ring that the row before did not need.
//! Slices go through the channels of a row, then to the next row. Streamed weights cut the channels into chunks; then slices go through all rows of a chunk, and each
//! chunk gathers the input again.
//!
//! Where the plan has room for the patches of four pixels, these are unfolded once for all channels of a slice.

use core::ops::Range;

use bytemuck::Pod;

use super::{Context, Source, view};
#[cfg(all(feature = "i8", any(scalar, test)))]
use crate::arch::{PIXELS, patches::Idle};
use crate::format::{Bias, CHANNEL_BLOCK, Conv2d, Element, NONE, PATCH_GROUP, Tensor};
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    rows: usize,
    #[cfg(feature = "i8")]
    columns: usize,
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
    /// Blocks of eight output channels whose weights are there at once: all, or those of a chunk of streamed weights.
    chunk_blocks: usize,
    /// Blocks that a slice computes, at most.
    slice_blocks: usize,
    /// Output rows that a slice computes, at most.
    slice_rows: usize,
    /// Rows that the ring holds.
    ring_rows: usize,
    /// Output rows whose input is in the ring at once: one, or those of some rows of tiles.
    band: usize,
}

/// Multiply-accumulates of a slice that computes more than one block of channels of one row, at most.
const SLICE_MACS: usize = 1 << 18;

/// The same with tiles, which take a quarter of the products, or less than half, where a kernel has them.
const TILED_SLICE_MACS: usize = if cfg!(dsp) {
    1 << 20
} else if cfg!(scalar) {
    1 << 19
} else {
    SLICE_MACS
};

/// Whether rows of a band are computed one by one, as there are no kernels for tiles: all channels of a row share its patches then,
/// and a slice may have a part of a band's rows.
const BY_ROWS: bool = cfg!(all(feature = "tiles", not(any(tile_kernels, test))));

/// What one slice computes.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// First output row, and how many.
    y: usize,
    #[cfg(feature = "i8")]
    rows: usize,
    /// First output channel, and how many.
    channel: usize,
    count: usize,
    /// Number of the weights' chunk, and the first output channel in it.
    chunk: usize,
    chunk_channel: usize,
}

impl Tile {
    /// Its parts of `rows` rows each.
    #[cfg(feature = "i8")]
    fn parts(&self, rows: usize) -> impl Iterator<Item = Self> + use<> {
        let tile = *self;
        let end = tile.y + tile.rows;
        let rows_from = move |y| if BY_ROWS { rows.min(end - y) } else { rows };
        (tile.y..end).step_by(rows.max(1)).map(move |y| Self { y, rows: rows_from(y), ..tile })
    }

    /// The output channels.
    fn channels(&self) -> Range<usize> {
        self.channel..self.channel + self.count
    }

    /// Its first channel within the chunk of weights.
    fn first(&self) -> usize {
        self.channel - self.chunk_channel
    }

    /// Whether this is the first slice of its row, which gathers the input.
    fn gathers(&self) -> bool {
        self.channel == self.chunk_channel
    }
}

impl Geometry {
    fn new(model: &Model<'_>, op: &Conv2d) -> Option<Self> {
        let source = model.tensor_ref(op.sources[0])?;
        let output = model.tensor_ref(op.output)?;
        let output = if cfg!(feature = "unet1d") { &op.computed(*output) } else { output };
        let ring = model.tensor_ref(op.scratch)?;
        let mut geometry = Self {
            rows: source.rows.into(),
            #[cfg(feature = "i8")]
            columns: source.columns.into(),
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
            slice_blocks: 1,
            slice_rows: 1,
            ring_rows: op.ring_rows(),
            band: op.band_rows(),
        };
        if !matches!(ring.element(), Element::F32) {
            // Weights that are transformed in the file are for tiles alone.
            let by_rows = BY_ROWS && !(cfg!(feature = "stored-tiles") && op.layout().is_transformed());
            let rows = if by_rows { 1 } else { geometry.band };
            let budget = if op.tile_rows == 0 || by_rows { SLICE_MACS } else { TILED_SLICE_MACS };
            let block = geometry.output_columns * rows * geometry.taps() * CHANNEL_BLOCK;
            let most = budget.checked_div(block).unwrap_or(1);
            geometry.slice_blocks = most.clamp(1, geometry.chunk_blocks.max(1));
            if matches!(ring.element(), Element::I8 | Element::I16) {
                let most = most.checked_div(geometry.chunk_blocks).unwrap_or(1);
                // Whole bands, of which there is a whole number, or an even part of one.
                let rows = most.max(1).saturating_mul(rows);
                let part = if by_rows {
                    (1..=geometry.band.min(rows)).rev().find(|&part| geometry.band.is_multiple_of(part)).unwrap_or(1)
                } else {
                    1
                };
                geometry.slice_rows = (rows - rows % part).min(geometry.output_rows);
            }
        }
        Some(geometry)
    }

    /// Rows of the padded input that the band of output rows from `y` on needs and the one before did not.
    fn new_rows(&self, y: usize) -> Range<usize> {
        let start = y * self.stride;
        let end = start + self.ring_rows;
        if y == 0 { start..end } else { start.max(end.saturating_sub(self.band * self.stride))..end }
    }

    /// The source row of a row of the padded input; `None` for padding.
    fn source_row(&self, ring_row: usize) -> Option<usize> {
        let row = ring_row.checked_sub(self.padding[0])? >> self.doubling;
        (row < self.rows).then_some(row)
    }

    /// The rows of the kernel that do not lie in the padding at output row `y`.
    #[cfg(feature = "i8")]
    fn covered_rows(&self, y: usize) -> Range<usize> {
        let top = y * self.stride;
        let (first, end) = (self.padding[0], self.padding[0] + (self.rows << self.doubling));
        let clamp = |row: usize| row.saturating_sub(top).min(self.kernel[0]);
        clamp(first)..clamp(end).max(clamp(first))
    }

    /// Which of neighbouring pixels has a column of the kernel in the padding.
    #[cfg(all(feature = "i8", any(scalar, test)))]
    fn idle(&self, pixels: [usize; PIXELS]) -> Idle {
        let [first, .., last] = pixels.map(|x| x * self.stride);
        let end = self.padding[1] + (self.columns << self.doubling);
        let is_third = self.kernel[1] == 3;
        Idle { column: self.channels, first: is_third && first < self.padding[1], last: is_third && last + 2 >= end }
    }

    /// Neighbours in the ring that a row of the kernel covers.
    fn run(&self) -> usize {
        self.kernel[1] * self.channels
    }

    /// Weights of one output channel.
    fn taps(&self) -> usize {
        self.kernel[0] * self.run()
    }

    /// Elements of the ring from one output pixel's patch to the next.
    fn advance(&self) -> usize {
        self.stride * self.channels
    }

    /// The run of row `ky` of the kernel at output pixel (`y`, `x`); binding has seen that the ring holds it.
    #[cfg(any(feature = "f16", feature = "f32"))]
    fn patch<'a, T>(&self, ring: &'a [T], [y, x]: [usize; 2], ky: usize) -> &'a [T] {
        let start = self.slot(y * self.stride + ky) + x * self.advance();
        ring.get(start..start + self.run()).unwrap_or_default()
    }

    /// Elements of a slot before the first of the input's pixels, and up to the last.
    #[cfg(feature = "i8")]
    fn margins(&self) -> [usize; 2] {
        let before = self.padding[1] * self.channels;
        [before, before + (self.columns << self.doubling) * self.channels]
    }

    /// Elements of one row of the ring.
    fn ring_row_len(&self) -> usize {
        self.ring_width * self.channels
    }

    /// First element of the ring's slot of a row of the padded input.
    fn slot(&self, ring_row: usize) -> usize {
        ring_row.checked_rem(self.ring_rows).unwrap_or(0) * self.ring_row_len()
    }

    /// What a slice computes.
    fn tile(&self, slice: u32) -> Tile {
        let per_chunk = self.slices_of(self.chunk_blocks);
        let chunk = (slice as usize).checked_div(per_chunk).unwrap_or(0);
        let first = chunk * self.chunk_blocks;
        let width = self.chunk_blocks.min(self.blocks().saturating_sub(first)).max(1);
        let per_row = width.div_ceil(self.slice_blocks.max(1)).max(1);
        let within = slice as usize - chunk * per_chunk;
        let block = within % per_row * self.slice_blocks;
        let channel = (first + block) * CHANNEL_BLOCK;
        let count = self.slice_blocks.min(width - block) * CHANNEL_BLOCK;
        let y = within / per_row * self.slice_rows;
        Tile {
            y,
            #[cfg(feature = "i8")]
            rows: self.slice_rows.min(self.output_rows.saturating_sub(y)),
            channel,
            count: self.output_channels.saturating_sub(channel).min(count),
            chunk,
            chunk_channel: first * CHANNEL_BLOCK,
        }
    }

    /// Blocks of eight output channels, the last of which may have fewer.
    fn blocks(&self) -> usize {
        self.output_channels.div_ceil(CHANNEL_BLOCK)
    }

    /// Slices of a chunk of some blocks.
    fn slices_of(&self, blocks: usize) -> usize {
        // At least one, which is not always seen from here.
        self.output_rows.div_ceil(self.slice_rows.max(1)) * blocks.div_ceil(self.slice_blocks.max(1))
    }

    /// Number of slices.
    fn slices(&self) -> usize {
        let whole = self.blocks().checked_div(self.chunk_blocks).unwrap_or(0);
        whole * self.slices_of(self.chunk_blocks) + self.slices_of(self.blocks() - whole * self.chunk_blocks)
    }
}

/// What one row of a source meets on its way into the ring.
struct Gathered<'a> {
    /// The row of the source.
    input: &'a mut [u8],
    /// The affine maps of the source's channels and those behind; empty without a normalization.
    norm: &'a [u8],
    /// The pixels of the ring's slot that the row comes to, two for each of its own if columns are doubled; padding and all
    /// sources' channels included.
    slot: &'a mut [u8],
}

impl<'a> Gathered<'a> {
    /// Row `row` of the source, on its way into the slot of row `ring_row` of the padded input.
    fn bind(layer: &Layer<'_>, source: &Source<'_>, row: usize, ring_row: usize, arena: &'a mut [u8]) -> Option<Self> {
        let geometry = &layer.geometry;
        let tensor = &source.tensor;
        let bytes = usize::from(tensor.columns) * usize::from(tensor.channels) * tensor.element().bytes();
        let from = tensor.offset as usize + row * bytes;
        let norm = layer.context.range(layer.op.norm);
        let [input, norm, slot] = arena.get_disjoint_mut([from..from + bytes, norm, layer.slot(ring_row)]).ok()?;
        // A map is a pair of words.
        let norm = if norm.is_empty() { norm } else { norm.get_mut(8 * source.channel..)? };
        let pixel = geometry.channels * layer.ring.element().bytes();
        let slot = slot.get_mut(geometry.padding[1] * pixel..)?;
        let needed = usize::from(tensor.columns) * (pixel << geometry.doubling);
        (slot.len() >= needed && source.channel + usize::from(tensor.channels) <= geometry.channels).then_some(Self {
            input,
            norm,
            slot,
        })
    }
}

/// What the computation of one tile reads and writes.
struct Bound<'a> {
    /// All slots; each holds every pixel of the output row's patches.
    ring: &'a [u8],
    /// The tensor that the bias comes from, if it does.
    bias: &'a [u8],
    /// What the weights come from if they are streamed.
    window: &'a [u8],
    /// Room for the patches of four pixels, or for tiles; empty if there is none.
    #[cfg_attr(not(feature = "i8"), expect(dead_code, reason = "float precisions have no patches"))]
    patches: &'a mut [u8],
    /// The rows of the residual; empty if there is none or it is the output's.
    residual: &'a mut [u8],
    /// The rows of the output.
    output: &'a mut [u8],
}

impl<'a> Bound<'a> {
    fn bind(layer: &Layer<'_>, rows: Range<usize>, arena: &'a mut [u8]) -> Option<Self> {
        let Layer { context, op, output, ring, residual, geometry } = layer;
        let rows = |tensor: &Tensor| {
            let bytes = geometry.output_columns * geometry.output_channels * tensor.element().bytes();
            let from = tensor.offset as usize;
            from + rows.start * bytes..from + rows.end * bytes
        };
        let residual = residual.map_or(0..0, rows);
        let (bias, window, patches) =
            (context.range(op.bias_tensor), context.range(op.window), context.range(op.patches));
        let places = [ring.range(), bias, window, patches, residual, rows(output)];
        let [ring_bytes, bias, window, patches, residual, output] = arena.get_disjoint_mut(places).ok()?;
        let reach = geometry.output_columns.saturating_sub(1) * geometry.advance() + geometry.run();
        let slots = geometry.ring_rows * geometry.ring_row_len() * ring.element().bytes();
        (reach <= geometry.ring_row_len() && slots <= ring_bytes.len()).then_some(Self {
            ring: ring_bytes,
            bias,
            window,
            patches,
            residual,
            output,
        })
    }
}

/// A convolution and where it stands.
#[derive(Clone, Copy)]
struct Layer<'a> {
    context: &'a Context<'a>,
    op: &'a Conv2d,
    output: &'a Tensor,
    ring: &'a Tensor,
    /// The residual, if it is not at the output's place, where it is read through the output.
    residual: Option<&'a Tensor>,
    geometry: Geometry,
}

impl<'a> Layer<'a> {
    fn new(context: &'a Context<'a>, op: &'a Conv2d) -> Option<Self> {
        let (output, ring) = (context.tensor(op.output)?, context.tensor(op.scratch)?);
        let residual = context.tensor(op.residual).filter(|residual| residual.offset != output.offset);
        Some(Self { context, op, output, ring, residual, geometry: Geometry::new(context.model, op)? })
    }

    /// Place in the arena of the slot of a row of the padded input.
    fn slot(&self, ring_row: usize) -> Range<usize> {
        let bytes = self.ring.element().bytes();
        let start = self.ring.offset as usize + self.geometry.slot(ring_row) * bytes;
        start..start + self.geometry.ring_row_len() * bytes
    }

    /// The biases of a tile's channels; `tensor` is what a tensor of biases holds.
    fn bias<T: Pod>(&self, tile: &Tile, tensor: &'a [u8]) -> Option<&'a [T]> {
        let Self { context, op, geometry, .. } = self;
        let bias: &[T] = match op.bias() {
            Bias::Constant => context.data(op.bias_at, geometry.output_channels)?,
            Bias::Step => context.data(context.biases_of_step() + op.bias_at, geometry.output_channels)?,
            Bias::Tensor => view(tensor)?,
        };
        bias.get(tile.channels())
    }

    /// The weights of a tile's chunk: in the file, or in the window of the arena that they pass through.
    fn weights<T: Pod>(&self, tile: &Tile, window: &'a [u8]) -> Option<&'a [T]> {
        let Self { context, op, geometry, .. } = self;
        let outputs = geometry.output_channels as u64;
        match op.chunks(outputs, geometry.channels as u64) {
            None => {
                let bytes = op.layout().bytes(outputs, op.taps(geometry.channels as u64));
                let len = bytes as usize / size_of::<T>();
                // With what lies behind for kernels that read whole groups, where anything does.
                let more = context.data(op.weights, len + PATCH_GROUP - 1).filter(|more| !more.is_empty());
                more.or_else(|| context.data(op.weights, len))
            }
            Some(chunks) => {
                // Both fit an address, as the window does.
                let [buffers, bytes] = [chunks.buffers(window.len() as u64), chunks.bytes].map(|count| count as usize);
                view(window.get(tile.chunk.checked_rem(buffers)? * bytes..)?)
            }
        }
    }
}

/// The chunk of streamed weights that a slice needs.
pub(crate) fn chunk(context: &Context<'_>, op: &Conv2d, slice: u32) -> Option<usize> {
    Some(Geometry::new(context.model, op)?.tile(slice).chunk)
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Conv2d) -> Option<u32> {
    Some(Geometry::new(model, op)?.slices() as u32)
}
