//! Convolution. One kernel gathers the padded, transformed input of every picture, a second multiplies.
//!
//! Where the device keeps a ring of rows, a GPU keeps all rows of the padded input that the kernel reaches: in the
//! scratch, (row, column, channel) order.

pub mod float;
pub mod i8;

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::format::{Bias, Conv2d, Element, Gather, Precision, StepScales};
#[cfg(feature = "host")]
use waft::format::{CHANNEL_BLOCK, Chunks, WeightLayout};

use crate::element::Place;
use crate::memory::{Memory, Space};
use crate::{State, Strides};

/// What both kernels of a convolution know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: Conv2d,
    sources: [Place; 2],
    output: Place,
    residual: Place,
    /// Places in the arena of the map and the bias that are tensors.
    norm_at: u32,
    bias_tensor_at: u32,
    /// Place in the constants of the repacked weights.
    weights_at: u32,
    /// Rows of the padded input that the kernel reaches.
    padded_rows: u32,
    /// Pixels of such a row.
    padded_columns: u32,
    /// Channels of the joined input.
    channels: u32,
    /// The same with what is added for alignment.
    padded_channels: u32,
    /// Bytes of the padded input of one picture, or of one of its two planes.
    plane_bytes: u32,
    /// Whether the ring has 16 bits, in the `i8` precision.
    wide: u32,
    /// Whether weights are half precision, in the float precisions.
    half: u32,
}

impl Parameters {
    /// Of operation `index` of a model; `None` if it is not a convolution, or has more than 4 GiB of padded input.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides, weights_at: u32) -> Option<Self> {
        let waft::format::Op::Conv2d(op) = model.op(index)? else { return None };
        let ring = model.tensor(op.scratch)?;
        let output = op.computed(model.tensor(op.output)?);
        let channels = u32::from(ring.channels);
        let padded_rows = (u32::from(output.rows) - 1) * u32::from(op.stride) + u32::from(op.kernel[0]);
        let padded_columns = u32::from(ring.columns);
        let integer = model.precision() == Precision::I8;
        let padded_channels = if integer { channels.next_multiple_of(4) } else { channels };
        let elements = padded_rows.checked_mul(padded_columns)?.checked_mul(padded_channels)?;
        // A lane of the integer kernel reads whole fragments, up to one beyond the last pixel.
        let plane_bytes =
            if integer { elements.checked_add(16)?.checked_next_multiple_of(16)? } else { elements.checked_mul(4)? };
        plane_bytes.checked_mul(2)?;
        Some(Self {
            strides,
            op,
            sources: op.sources.map(|id| Place::of(model.tensor(id))),
            output: Place::of(Some(output)),
            residual: Place::of(model.tensor(op.residual)),
            norm_at: model.tensor(op.norm).map_or(0, |tensor| tensor.offset),
            bias_tensor_at: model.tensor(op.bias_tensor).map_or(0, |tensor| tensor.offset),
            weights_at,
            padded_rows,
            padded_columns,
            channels,
            padded_channels,
            plane_bytes,
            wide: u32::from(ring.element() == Element::I16),
            half: u32::from(model.precision() == Precision::F16),
        })
    }

    /// Bytes of scratch that one picture needs.
    pub fn scratch_bytes(&self) -> u32 {
        self.plane_bytes * (1 + self.wide)
    }

    /// Row and column of the padded input, and part of the pixel, of an item; each pixel has `parts`.
    #[inline(always)]
    fn gather_place(&self, item: u32, parts: u32) -> [u32; 3] {
        let (pixel, part) = (item / parts, item % parts);
        [pixel / self.padded_columns, pixel % self.padded_columns, part]
    }

    /// The map of a channel of the joined input; zeros where the input is gathered raw.
    #[inline(always)]
    fn map<T: Pod, M: Memory>(&self, op: &Conv2d, memory: M, arena: usize, channel: u32) -> [T; 2] {
        match op.gather() {
            Gather::Raw => Zeroable::zeroed(),
            _ => memory.load(Space::Arenas, arena + self.norm_at as usize + 2 * size_of::<T>() * channel as usize),
        }
    }

    /// The source pixel of a pixel of the padded input, or `None` for padding.
    #[inline(always)]
    fn source_pixel(&self, op: &Conv2d, row: u32, column: u32) -> Option<u32> {
        let [rows, columns] = [self.sources[0].rows, self.sources[0].columns];
        let row = row.checked_sub(op.padding[0].into())? >> op.doubling();
        let column = column.checked_sub(op.padding[1].into())? >> op.doubling();
        (row < rows && column < columns).then_some(row * columns + column)
    }

    /// Which source a channel of the joined input comes from, and its number there. (Both arms are spelled out: arrays that
    /// are indexed by a variable would live in memory.)
    #[inline(always)]
    fn source_channel(&self, channel: u32) -> (usize, Place, u32) {
        let [first, second] = self.sources;
        match channel.checked_sub(first.channels) {
            Some(channel) => (1, second, channel),
            None => (0, first, channel),
        }
    }

    /// The scales of the step, if it has its own.
    #[inline(always)]
    fn step_scales<M: Memory>(&self, op: &Conv2d, memory: M, state: &State) -> Option<StepScales> {
        if op.weight_sums == 0 {
            return None;
        }
        let at = biases_of_step(state) + op.step_scales as usize;
        Some(memory.load(Space::Constants, at))
    }

    /// The bias of an output channel.
    #[inline(always)]
    fn bias<T: Pod, M: Memory>(&self, op: &Conv2d, memory: M, arena: usize, state: &State, channel: u32) -> T {
        let element = channel as usize * size_of::<T>();
        match op.bias() {
            Bias::Constant => memory.load(Space::Constants, op.bias_at as usize + element),
            Bias::Step => memory.load(Space::Constants, biases_of_step(state) + op.bias_at as usize + element),
            Bias::Tensor => memory.load(Space::Arenas, arena + self.bias_tensor_at as usize + element),
        }
    }
}

/// Place in the constants of the biases of the step.
#[inline(always)]
fn biases_of_step(state: &State) -> usize {
    state.biases as usize + state.step as usize * state.bias_bytes as usize
}

/// The weights of a convolution in the model file, or among the external weights, whatever their layout.
#[cfg(feature = "host")]
struct Weights<'a> {
    bytes: &'a [u8],
    layout: WeightLayout,
    /// Weights of one output channel.
    taps: usize,
    outputs: usize,
    /// How they are cut: output channels of a chunk, and its bytes.
    chunks: Option<(usize, usize)>,
}

#[cfg(feature = "host")]
impl<'a> Weights<'a> {
    fn new(model: &Model<'_>, op: &Conv2d, file: &'a [u8]) -> Option<Self> {
        let (inputs, outputs) = (model.tensor(op.scratch)?.channels, op.computed(model.tensor(op.output)?).channels);
        let chunks: Option<Chunks> = op.chunks(outputs.into(), inputs.into());
        let chunks = chunks.map(|chunks| (usize::from(op.chunk_blocks) * CHANNEL_BLOCK, chunks.bytes as usize));
        let taps = op.taps(inputs.into()) as usize;
        let bytes = file.get(op.weights as usize..)?;
        Some(Self { bytes, layout: op.layout(), taps, outputs: outputs.into(), chunks })
    }

    /// The bits of a weight; 0 for outputs beyond the last. `None` for numbers that no weights are transformed to.
    fn bits(&self, output: usize, tap: usize) -> Option<u32> {
        if output >= self.outputs {
            return Some(0);
        }
        let (start, output) = match self.chunks {
            None => (0, output),
            Some((channels, bytes)) => (output / channels * bytes, output % channels),
        };
        let numbers = self.layout.numbers(self.taps as u64) as usize;
        let bit = |at: usize| self.layout.index(output, at, numbers) * self.layout.bits();
        let from = |bit: usize| self.bytes.get(start + bit / 8..);
        Some(match self.layout {
            WeightLayout::Rows8 => (*from(bit(tap))?.first()?).into(),
            WeightLayout::Groups4 => (*from(bit(tap))?.first()? >> (bit(tap) % 8) & 15).into(),
            WeightLayout::Groups16 => u16::from_le_bytes(*from(bit(tap))?.first_chunk()?).into(),
            WeightLayout::Groups32 => u32::from_le_bytes(*from(bit(tap))?.first_chunk()?),
            // The products are those of the weights themselves.
            WeightLayout::Tiles4 | WeightLayout::Tiles2 => {
                let inputs = self.taps / 9;
                let number =
                    |point: usize| Some(i16::from_le_bytes(*from(bit(point * inputs + tap % inputs))?.first_chunk()?));
                let weights = self.layout.tiling()?.weights(|point| number(point).unwrap_or_default())?;
                (*weights.get(tap / inputs)? as u8).into()
            }
        })
    }
}
