//! The `.waft` file, byte by byte.
//!
//! All integers are little-endian. Every section starts at a multiple of 16 from the start of the file; the file is
//! read in place, from flash, a file map or any slice whose address is a multiple of 4. `offset` always means bytes
//! from the start of the file, `arena offset` bytes from the start of the arena.
//!
//! # Header, 128 bytes
//! | at | type | field |
//! |---:|---|---|
//! | 0 | `[u8; 4]` | magic, `WAFT` |
//! | 4 | `u16` | version, [`VERSION`] |
//! | 6 | `u8` | precision: 0 `i8`, 1 `f16`, 2 `f32` |
//! | 7 | `u8` | 0 |
//! | 8 | `u32` | bytes of the whole file |
//! | 12 | `u32` | CRC-32 (IEEE 802.3, reflected, as zip) of the whole file without these four bytes |
//! | 16 | `u32` | arena bytes |
//! | 20 | `u32` | lower bound of the arena: the largest sum of live tensors over the operations |
//! | 24, 26 | `u16` | number of tensors, of operations |
//! | 28, 30 | `u16` | number of classes (0: unconditional), class that means "none" ([`NONE`]: there is no such class) |
//! | 32, 34, 36 | `u16` | tensors: the sample `x_t`, the model output, the unconditional output for guidance or [`NONE`] |
//! | 38 | `u16` | number of schedules |
//! | 40, 44, 48 | `u32` | offset of the tensor table, the operation table, the schedule table |
//! | 52, 56 | `u32` | offset and length of the name, UTF-8, at most 64 bytes |
//! | 60, 64 | `u32` | offset and length of the provenance, UTF-8, at most 1024 bytes |
//! | 68 | `u32` | length of the conditioning vector (0: the schedules carry per-step biases instead) |
//! | 72, 80 | `u64` | multiply-accumulates of one network call, parameters of the checkpoint |
//! | 88 | `u32` | bytes of the weights that lie in a file of their own, see below (0: there is none) |
//! | 92 | `[u8; 36]` | 0 |
//!
//! # Tensor, 32 bytes
//! | at | type | field |
//! |---:|---|---|
//! | 0, 4 | `u32` | arena offset (multiple of 16), bytes |
//! | 8, 10, 12 | `u16` | rows, columns, channels; (row, column, channel) order, dense |
//! | 14 | `u8` | element: 0 `i8`, 1 `i16`, 2 `i32`, 3 `f16`, 4 `f32` |
//! | 15 | `u8` | 0 |
//! | 16, 18 | `u16` | first and last operation during which it holds data; the number of operations stands for the sampler |
//! | 20 | `f32` | real value of one unit, for reports (the device does not read it) |
//! | 24 | `i32` | zero point, for reports |
//! | 28 | `u32` | 0 |
//!
//! # Operation, 112 bytes
//! Byte 0 is the kind: 0 [`Conv2d`], 1 [`GroupNorm`], 2 [`Attention`], 3 [`Embed`], 4 [`Linear`]. The fields and their
//! places are those of the `decode` functions of these types.
//!
//! # Schedule, 32 bytes
//! | at | type | field |
//! |---:|---|---|
//! | 0 | `u32` | number of steps |
//! | 4 | `u32` | offset of the steps |
//! | 8 | `u32` | offset of the time embeddings, one row of conditioning length a step (`i16`, or `f32` in the float precisions) |
//! | 12, 16 | `u32` | offset of the per-step biases, bytes of one step; a step's [`StepScales`] lie among its biases |
//! | 20 | `[u8; 12]` | 0 |
//!
//! # Step, 48 bytes
//! A step maps the sample `x`, the model output `m` and noise `z` to the next sample:
//! `x0 = clamp(a·x + b·m, ±clip)`, `x' = p·x0 + q·x + r·m + s·z`.
//! | at | type | field |
//! |---:|---|---|
//! | 0 | `i32` | timestep |
//! | 4 | `i32` or `f32` | clip, in 20 fractional bits; `i32::MAX` or infinity for none |
//! | 8, 12 | `i32` or `f32` | a, b: mantissas with `shift0` fractional bits |
//! | 16 | `u32` | `shift0`, at most 62 (float precisions: 0) |
//! | 20, 24, 28, 32 | `i32` or `f32` | p, q, r, s: mantissas with `shift1` fractional bits |
//! | 36 | `u32` | `shift1`, at most 62 (float precisions: 0) |
//! | 40 | `[u8; 8]` | 0 |

//! # The weights' own file
//! A model that streams its weights ([`WeightSource`](crate::WeightSource)) keeps those of its convolutions in a second
//! file, in the order in which they are needed. The weights of one convolution are cut into chunks of
//! [`Conv2d::chunk_blocks`] blocks of eight output channels; each chunk starts at a multiple of 16, with zeros between, and
//! its CRC-32 (zeros included) stands in the model file at [`Conv2d::checks`]. While chunk `k` is in use it lies in the
//! window tensor at `(k mod n)·s`, where `s` is the size of a whole chunk and `n` = ⌊window / s⌋.

use crate::error::{Field, ModelError};

/// First bytes of every file.
pub const MAGIC: [u8; 4] = *b"WAFT";
/// Version of the format that this crate reads and its exporter writes.
pub const VERSION: u16 = 4;
/// Stands for "no tensor" or "no class".
pub const NONE: u16 = 0xFFFF;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of a tensor record.
pub const TENSOR_BYTES: usize = 32;
/// Bytes of an operation record.
pub const OP_BYTES: usize = 112;
/// Bytes of a schedule record.
pub const SCHEDULE_BYTES: usize = 32;
/// Bytes of a step record.
pub const STEP_BYTES: usize = 48;
/// Bytes of a [`StepScales`] record.
pub const STEP_SCALES_BYTES: usize = 20;
/// Sections, tensors and the arena itself are aligned to this many bytes.
pub const ALIGN: usize = 16;
/// Output channels that one slice of a convolution computes, and the block of float weights.
pub const CHANNEL_BLOCK: usize = 8;
/// Output channels whose four-bit weights stand side by side.
pub const QUAD: usize = 4;
/// Outputs that one slice of a linear operation computes.
pub const LINEAR_BLOCK: usize = 32;

/// How a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Precision {
    /// Integers only; bit-identical on every target.
    I8 = 0,
    /// Half-precision weights and activations, single-precision accumulation.
    F16 = 1,
    /// Single precision: the reference.
    F32 = 2,
}

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Element {
    /// 8-bit integer with a zero point.
    I8 = 0,
    /// 16-bit integer, symmetric.
    I16 = 1,
    /// 32-bit integer.
    I32 = 2,
    /// IEEE 754 half precision.
    F16 = 3,
    /// IEEE 754 single precision.
    F32 = 4,
}

impl Element {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Element::I8 => 1,
            Element::I16 | Element::F16 => 2,
            Element::I32 | Element::F32 => 4,
        }
    }

    const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Element::I8),
            1 => Some(Element::I16),
            2 => Some(Element::I32),
            3 => Some(Element::F16),
            4 => Some(Element::F32),
            _ => None,
        }
    }
}

/// The bytes at `at`, as an array; zeros beyond the end, which validation has excluded for every offset in a model.
const fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    if let Some((_, tail)) = bytes.split_at_checked(at)
        && let Some(found) = tail.first_chunk::<N>()
    {
        return *found;
    }
    [0; N]
}

pub(crate) const fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes_at::<1>(bytes, at)[0]
}

pub(crate) const fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) const fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at) as i32
}

pub(crate) const fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) const fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(bytes, at))
}

/// `bytes[at..at + len]`, empty if that is outside.
pub(crate) const fn slice_at(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    if let Some((_, tail)) = bytes.split_at_checked(at)
        && let Some((found, _)) = tail.split_at_checked(len)
    {
        return found;
    }
    &[]
}

/// CRC-32 (IEEE 802.3) of the file without its checksum field.
pub const fn checksum(bytes: &[u8]) -> u32 {
    let (head, tail) = bytes.split_at(if bytes.len() < 12 { bytes.len() } else { 12 });
    !crc32(crc32(!0, head), slice_at(tail, 4, tail.len().saturating_sub(4)))
}

/// The CRC-32 register after more bytes; it starts as `!0` and is inverted at the end.
pub(crate) const fn crc32(mut crc: u32, bytes: &[u8]) -> u32 {
    const NIBBLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        crc ^= byte as u32;
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        rest = tail;
    }
    crc
}

/// CRC-32 (IEEE 802.3) of any bytes: what guards a chunk of streamed weights.
pub const fn chunk_checksum(bytes: &[u8]) -> u32 {
    !crc32(!0, bytes)
}

/// A tensor's place, shape and lifetime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    /// First byte in the arena.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Channels, the innermost dimension.
    pub channels: u16,
    /// Element type.
    pub element: Element,
    /// First operation during which it holds data.
    pub first: u16,
    /// Last operation during which it holds data; the number of operations stands for the sampler.
    pub last: u16,
    /// Real value of one unit.
    pub scale: f32,
    /// Integer that means zero.
    pub zero_point: i32,
}

impl Tensor {
    const fn decode(record: &[u8]) -> Option<Self> {
        let element = match Element::from_u8(u8_at(record, 14)) {
            Some(element) => element,
            None => return None,
        };
        Some(Self {
            offset: u32_at(record, 0),
            bytes: u32_at(record, 4),
            rows: u16_at(record, 8),
            columns: u16_at(record, 10),
            channels: u16_at(record, 12),
            element,
            first: u16_at(record, 16),
            last: u16_at(record, 18),
            scale: f32_at(record, 20),
            zero_point: i32_at(record, 24),
        })
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.rows as usize * self.columns as usize * self.channels as usize
    }

    /// Whether it has no elements; never true in a valid model.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the arena.
    pub const fn range(&self) -> core::ops::Range<usize> {
        let start = self.offset as usize;
        start..start + self.bytes as usize
    }

    const fn row_bytes(&self) -> u64 {
        self.columns as u64 * self.channels as u64 * self.element.bytes() as u64
    }
}

/// What a convolution does to an input element on its way into the ring of rows that the kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Gather {
    /// `requantize(x − zero, M, s) + ring zero`, or a copy where `M = 0`.
    Raw = 0,
    /// Per-channel affine map of a group normalization.
    Affine = 1,
    /// The same followed by SiLU.
    AffineSilu = 2,
}

/// Where a convolution's bias comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bias {
    /// One vector in the file.
    Constant = 0,
    /// A part of the per-step biases of the schedule.
    Step = 1,
    /// A tensor, written by [`Linear`].
    Tensor = 2,
}

/// A convolution, its input transformation, its optional residual and its requantization.
///
/// The one or two sources are joined along the channels, doubled by nearest neighbour if `upsample`, padded, convolved,
/// added to the residual, and written. Weights are `i8` in (output, row, column, input) order in the `i8` precision, or four
/// bits wide in (block of 4 outputs, row, column, input, output in block) order, the first of a block in the lowest bits of
/// its 16; in the float precisions they are in (block of 8 outputs, row, column, input, output in block) order. Missing outputs
/// of a block have zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    /// At 4, 6: inputs; the second may be [`NONE`].
    pub sources: [u16; 2],
    /// At 8: output.
    pub output: u16,
    /// At 10: tensor of the output's shape that is added, or [`NONE`]; may be the output itself.
    pub residual: u16,
    /// At 12: per-channel affine of all input channels, or [`NONE`] with [`Gather::Raw`].
    pub norm: u16,
    /// At 14: the ring of `kernel[0]` rows of `ring_width` pixels.
    pub scratch: u16,
    /// At 1.
    pub gather: Gather,
    /// At 2: whether rows and columns are doubled.
    pub upsample: bool,
    /// At 3: whether weights are four bits wide; `i8` precision.
    pub four_bits: bool,
    /// At 16, 17: rows and columns of the kernel, 1 to 15.
    pub kernel: [u8; 2],
    /// At 18: 1 to 4.
    pub stride: u8,
    /// At 19, 20: rows above, columns to the left; below the kernel size. The output's shape fixes the rest.
    pub padding: [u8; 2],
    /// At 21.
    pub bias: Bias,
    /// At 22: with [`Bias::Tensor`], else [`NONE`].
    pub bias_tensor: u16,
    /// At 24: offset.
    pub weights: u32,
    /// At 28: offset of the constant bias, or offset within the biases of a step.
    pub bias_at: u32,
    /// At 32: offset of (multiplier, shift) per output channel; 0 in the float precisions.
    pub requant: u32,
    /// At 36: value of the ring that means zero; padding. Not read where each step has its own, see `weight_sums`.
    pub ring_zero: i32,
    /// At 40, 48: multiplier of each source (`Raw`) or of the activation (index 0; not read where each step has its own).
    pub multiplier: [i32; 2],
    /// At 44, 52: the shifts that go with them.
    pub shift: [i32; 2],
    /// At 56: added to the output.
    pub output_zero: i32,
    /// At 60, 64: scale of the residual, with [`RESIDUAL_BITS`](crate::fixed::RESIDUAL_BITS) extra bits.
    pub residual_multiplier: i32,
    /// See `residual_multiplier`.
    pub residual_shift: i32,
    /// At 68: subtracted from the residual.
    pub residual_zero: i32,
    /// At 72: fractional bits of the affine map's factor beyond those of its result.
    pub affine_shift: u32,
    /// At 76, 80: subtracted from a raw source.
    pub source_zero: [i32; 2],
    /// At 84: factor of the residual, float precisions.
    pub residual_gain: f32,
    /// At 88, 92: a raw source enters as `gain·x + offset`, float precisions.
    pub input_gain: f32,
    /// See `input_gain`.
    pub input_offset: f32,
    /// At 96: the window that streamed weights pass through, or [`NONE`] if `weights` is an offset in this file.
    pub window: u16,
    /// At 98: blocks of eight output channels in a chunk of streamed weights, at least 1.
    pub chunk_blocks: u16,
    /// At 100: offset of the CRC-32 of each chunk.
    pub checks: u32,
    /// At 104: with `weight_sums`, offset of this convolution's [`StepScales`] within the biases of a step, a multiple of 4.
    pub step_scales: u32,
    /// At 108: offset of the `i32` sum of each output channel's weights, where each step has scales of its own: `i8` precision,
    /// rings of 8 bits, gathers through a map. 0: every step has those of this record.
    pub weight_sums: u32,
}

/// The scales of a ring during one step (So et al., 2023, TDQ, arXiv:2306.02316, with the steps known in advance); all
/// fields are `i32`.
///
/// With them a ring's values are `round(activation · multiplier) + ring_zero`. Accumulators start at zero; one becomes
/// `requantize(accumulator − ring_zero·Σweights, rescale) + bias`, in the units of the record's biases and requantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepScales {
    /// At 0: value of the ring that means zero.
    pub ring_zero: i32,
    /// At 4: multiplier of the activation.
    pub multiplier: i32,
    /// At 8: the shift that goes with it.
    pub shift: i32,
    /// At 12, 16: multiplier and shift from this step's accumulators to those of the record's scales.
    pub rescale: [i32; 2],
}

impl StepScales {
    /// From its record of [`STEP_SCALES_BYTES`].
    pub const fn decode(record: &[u8]) -> Self {
        Self {
            ring_zero: i32_at(record, 0),
            multiplier: i32_at(record, 4),
            shift: i32_at(record, 8),
            rescale: [i32_at(record, 12), i32_at(record, 16)],
        }
    }
}

impl Conv2d {
    /// The operation as it is during a step with scales of its own.
    #[must_use]
    pub const fn during(mut self, scales: &StepScales) -> Self {
        self.ring_zero = scales.ring_zero;
        self.multiplier[0] = scales.multiplier;
        self.shift[0] = scales.shift;
        self
    }

    /// Bytes of the weights of `channels` output channels, for `inputs` input channels.
    pub(crate) const fn weights_len(&self, channels: u64, inputs: u64, precision: Precision) -> u64 {
        let taps = self.kernel[0] as u64 * self.kernel[1] as u64 * inputs;
        match precision {
            Precision::I8 if self.four_bits => channels.next_multiple_of(QUAD as u64) / 2 * taps,
            Precision::I8 => channels * taps,
            Precision::F16 => channels.next_multiple_of(CHANNEL_BLOCK as u64) * taps * 2,
            Precision::F32 => channels.next_multiple_of(CHANNEL_BLOCK as u64) * taps * 4,
        }
    }

    /// How the weights are streamed, for `outputs` and `inputs` channels; `None` if they are not.
    pub const fn chunks(&self, precision: Precision, outputs: u64, inputs: u64) -> Option<Chunks> {
        if self.window == NONE || self.chunk_blocks == 0 {
            return None;
        }
        let channels = self.chunk_blocks as u64 * CHANNEL_BLOCK as u64;
        let count = outputs.div_ceil(channels);
        let last = outputs - (count - 1) * channels;
        Some(Chunks {
            count,
            bytes: self.weights_len(channels, inputs, precision).next_multiple_of(ALIGN as u64),
            last_bytes: self.weights_len(last, inputs, precision).next_multiple_of(ALIGN as u64),
        })
    }
}

/// The chunks of one convolution's streamed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// How many.
    pub count: u64,
    /// Bytes of each but the last.
    pub bytes: u64,
    /// Bytes of the last.
    pub last_bytes: u64,
}

impl Chunks {
    /// Bytes of the largest.
    pub const fn largest(&self) -> u64 {
        if self.count > 1 { self.bytes } else { self.last_bytes }
    }

    /// How many fit a window of `window` bytes: two or more are read ahead.
    pub const fn buffers(&self, window: u64) -> u64 {
        match window.checked_div(self.bytes) {
            Some(fit) if fit > 0 => fit,
            _ => 1,
        }
    }

    /// Bytes of all.
    pub const fn total(&self) -> u64 {
        (self.count - 1) * self.bytes + self.last_bytes
    }
}

/// Group normalization's statistics, turned into one affine map per channel: `y = x·A + B`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// At 4, 6: inputs, joined along the channels; the second may be [`NONE`].
    pub sources: [u16; 2],
    /// At 8: (A, B) per channel: `i32` pairs or `f32` pairs.
    pub output: u16,
    /// At 16.
    pub groups: u16,
    /// At 24: offset of the factor per channel: `i32` in 20 fractional bits times the source's scale ratio, or `f32`.
    pub gamma: u32,
    /// At 28: offset of the summand per channel: `i32` in 12 fractional bits, or `f32`.
    pub beta: u32,
    /// At 32, 36: scale of each source over the larger of both, in 15 fractional bits, 1 to 32768.
    pub ratio: [u32; 2],
    /// At 40, 44: zero point of each source.
    pub zero: [i32; 2],
    /// At 48: epsilon over the square of the larger scale, in 16 fractional bits, at least 1.
    pub epsilon_q16: u64,
    /// At 56: epsilon, float precisions.
    pub epsilon: f32,
    /// At 60: fractional bits of A beyond those of the result, 4 to 30.
    pub affine_shift: u32,
}

/// Self-attention over the pixels of a map, one query at a time, the context written over the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// At 4: queries; (pixels, channels).
    pub query: u16,
    /// At 6: keys then values; (pixels, 2·channels).
    pub key_value: u16,
    /// At 8: context, at the place of the queries.
    pub output: u16,
    /// At 14: one `i32` or `f32` per pixel.
    pub scratch: u16,
    /// At 16: divides the channels.
    pub heads: u16,
    /// At 40, 44: from a difference of scores to 8 fractional bits of a binary exponent.
    pub score_multiplier: i32,
    /// See `score_multiplier`.
    pub score_shift: i32,
    /// At 48, 52: from a weighted mean of values to the output.
    pub value_multiplier: i32,
    /// See `value_multiplier`.
    pub value_shift: i32,
    /// At 56: fractional bits of the unnormalized weights, at most 15.
    pub weight_bits: u32,
    /// At 60: factor of the scores, float precisions.
    pub scale: f32,
}

/// The conditioning vector of a step and a class: `silu(time row + class row)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embed {
    /// At 8: `i16` or `f32` vector of conditioning length.
    pub output: u16,
    /// At 24: offset of the class table, one row of conditioning length a class; `i16` or `f32`.
    pub table: u32,
    /// At 32: left shift that brings the sum to 12 fractional bits, at most 12.
    pub input_shift: u32,
    /// At 36: right shift from 15 fractional bits to the output's, at most 15.
    pub output_shift: u32,
}

/// `W·e + b`, a bias vector in the units of the accumulator of the convolution that takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// At 4: the conditioning vector.
    pub source: u16,
    /// At 8: `i32` or `f32` vector.
    pub output: u16,
    /// At 24: offset of the weights, (output, input) order; `i16` or `f32`.
    pub weights: u32,
    /// At 28: offset of the biases, `i32` or `f32`.
    pub bias: u32,
    /// At 32: offset of (multiplier, shift) per output; 0 in the float precisions.
    pub requant: u32,
}

/// One operation of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// See [`Conv2d`].
    Conv2d(Conv2d),
    /// See [`GroupNorm`].
    GroupNorm(GroupNorm),
    /// See [`Attention`].
    Attention(Attention),
    /// See [`Embed`].
    Embed(Embed),
    /// See [`Linear`].
    Linear(Linear),
}

impl Conv2d {
    /// From its record of [`OP_BYTES`]; `None` if an enumeration is out of range.
    pub const fn decode(record: &[u8]) -> Option<Self> {
        let gather = match u8_at(record, 1) {
            0 => Gather::Raw,
            1 => Gather::Affine,
            2 => Gather::AffineSilu,
            _ => return None,
        };
        let upsample = match u8_at(record, 2) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let four_bits = match u8_at(record, 3) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let bias = match u8_at(record, 21) {
            0 => Bias::Constant,
            1 => Bias::Step,
            2 => Bias::Tensor,
            _ => return None,
        };
        Some(Self {
            sources: [u16_at(record, 4), u16_at(record, 6)],
            output: u16_at(record, 8),
            residual: u16_at(record, 10),
            norm: u16_at(record, 12),
            scratch: u16_at(record, 14),
            gather,
            upsample,
            four_bits,
            kernel: [u8_at(record, 16), u8_at(record, 17)],
            stride: u8_at(record, 18),
            padding: [u8_at(record, 19), u8_at(record, 20)],
            bias,
            bias_tensor: u16_at(record, 22),
            weights: u32_at(record, 24),
            bias_at: u32_at(record, 28),
            requant: u32_at(record, 32),
            ring_zero: i32_at(record, 36),
            multiplier: [i32_at(record, 40), i32_at(record, 48)],
            shift: [i32_at(record, 44), i32_at(record, 52)],
            output_zero: i32_at(record, 56),
            residual_multiplier: i32_at(record, 60),
            residual_shift: i32_at(record, 64),
            residual_zero: i32_at(record, 68),
            affine_shift: u32_at(record, 72),
            source_zero: [i32_at(record, 76), i32_at(record, 80)],
            residual_gain: f32_at(record, 84),
            input_gain: f32_at(record, 88),
            input_offset: f32_at(record, 92),
            window: u16_at(record, 96),
            chunk_blocks: u16_at(record, 98),
            checks: u32_at(record, 100),
            step_scales: u32_at(record, 104),
            weight_sums: u32_at(record, 108),
        })
    }

    /// Elements of one pixel of the ring times its pixels.
    pub const fn ring_width(&self, columns: usize, output_columns: usize) -> usize {
        let reach = (output_columns.saturating_sub(1)) * self.stride as usize + self.kernel[1] as usize;
        let held = self.padding[1] as usize + if self.upsample { 2 * columns } else { columns };
        if reach > held { reach } else { held }
    }
}

impl GroupNorm {
    /// From its record of [`OP_BYTES`].
    pub const fn decode(record: &[u8]) -> Self {
        Self {
            sources: [u16_at(record, 4), u16_at(record, 6)],
            output: u16_at(record, 8),
            groups: u16_at(record, 16),
            gamma: u32_at(record, 24),
            beta: u32_at(record, 28),
            ratio: [u32_at(record, 32), u32_at(record, 36)],
            zero: [i32_at(record, 40), i32_at(record, 44)],
            epsilon_q16: u64_at(record, 48),
            epsilon: f32_at(record, 56),
            affine_shift: u32_at(record, 60),
        }
    }
}

impl Attention {
    /// From its record of [`OP_BYTES`].
    pub const fn decode(record: &[u8]) -> Self {
        Self {
            query: u16_at(record, 4),
            key_value: u16_at(record, 6),
            output: u16_at(record, 8),
            scratch: u16_at(record, 14),
            heads: u16_at(record, 16),
            score_multiplier: i32_at(record, 40),
            score_shift: i32_at(record, 44),
            value_multiplier: i32_at(record, 48),
            value_shift: i32_at(record, 52),
            weight_bits: u32_at(record, 56),
            scale: f32_at(record, 60),
        }
    }
}

impl Embed {
    /// From its record of [`OP_BYTES`].
    pub const fn decode(record: &[u8]) -> Self {
        Self {
            output: u16_at(record, 8),
            table: u32_at(record, 24),
            input_shift: u32_at(record, 32),
            output_shift: u32_at(record, 36),
        }
    }
}

impl Linear {
    /// From its record of [`OP_BYTES`].
    pub const fn decode(record: &[u8]) -> Self {
        Self {
            source: u16_at(record, 4),
            output: u16_at(record, 8),
            weights: u32_at(record, 24),
            bias: u32_at(record, 28),
            requant: u32_at(record, 32),
        }
    }
}

impl Op {
    pub(crate) const fn decode(record: &[u8]) -> Option<Self> {
        Some(match u8_at(record, 0) {
            0 => match Conv2d::decode(record) {
                Some(op) => Op::Conv2d(op),
                None => return None,
            },
            1 => Op::GroupNorm(GroupNorm::decode(record)),
            2 => Op::Attention(Attention::decode(record)),
            3 => Op::Embed(Embed::decode(record)),
            4 => Op::Linear(Linear::decode(record)),
            _ => return None,
        })
    }

    /// The tensor it writes as its result.
    pub const fn output(&self) -> u16 {
        match self {
            Op::Conv2d(op) => op.output,
            Op::GroupNorm(op) => op.output,
            Op::Attention(op) => op.output,
            Op::Embed(op) => op.output,
            Op::Linear(op) => op.output,
        }
    }

    /// The tensors it reads and its scratch; [`NONE`] where there is none.
    pub const fn operands(&self) -> [u16; 7] {
        match self {
            Op::Conv2d(op) => {
                [op.sources[0], op.sources[1], op.residual, op.norm, op.bias_tensor, op.scratch, op.window]
            }
            Op::GroupNorm(op) => [op.sources[0], op.sources[1], NONE, NONE, NONE, NONE, NONE],
            Op::Attention(op) => [op.query, op.key_value, op.scratch, NONE, NONE, NONE, NONE],
            Op::Embed(_) => [NONE; 7],
            Op::Linear(op) => [op.source, NONE, NONE, NONE, NONE, NONE, NONE],
        }
    }

    /// Whether an operand is scratch: written before it is read, within the operation.
    const fn is_scratch(&self, id: u16) -> bool {
        match self {
            Op::Conv2d(op) => id == op.scratch || id == op.window,
            Op::Attention(op) => id == op.scratch,
            _ => false,
        }
    }
}

/// The header's fields that are not section offsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// How it computes.
    pub precision: Precision,
    /// Bytes of the file.
    pub file_bytes: u32,
    /// Bytes of the arena.
    pub arena_bytes: u32,
    /// The largest sum of live tensors.
    pub arena_lower_bound: u32,
    /// Number of tensors.
    pub tensors: u16,
    /// Number of operations.
    pub ops: u16,
    /// Number of classes, 0 if unconditional.
    pub classes: u16,
    /// The class that means "no class", or [`NONE`].
    pub unconditional_class: u16,
    /// The sample `x_t`.
    pub sample: u16,
    /// The model output.
    pub prediction: u16,
    /// The unconditional output that guidance keeps, or [`NONE`].
    pub unconditional: u16,
    /// Number of schedules.
    pub schedules: u16,
    /// Offset of the tensor table.
    pub tensors_at: u32,
    /// Offset of the operation table.
    pub ops_at: u32,
    /// Offset of the schedule table.
    pub schedules_at: u32,
    /// Offset and length of the name.
    pub name: [u32; 2],
    /// Offset and length of the provenance.
    pub provenance: [u32; 2],
    /// Length of the conditioning vector.
    pub conditioning: u32,
    /// Multiply-accumulates of one network call.
    pub macs: u64,
    /// Parameters of the checkpoint.
    pub params: u64,
    /// Bytes of the weights' own file, 0 if there is none.
    pub weights_bytes: u32,
}

/// One list of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Number of steps.
    pub steps: u32,
    /// Offset of the steps.
    pub rows: u32,
    /// Offset of the time embeddings.
    pub embeddings: u32,
    /// Offset of the per-step biases.
    pub biases: u32,
    /// Bytes of the biases of one step.
    pub bias_bytes: u32,
}

impl Schedule {
    const fn decode(record: &[u8]) -> Self {
        Self {
            steps: u32_at(record, 0),
            rows: u32_at(record, 4),
            embeddings: u32_at(record, 8),
            biases: u32_at(record, 12),
            bias_bytes: u32_at(record, 16),
        }
    }
}

impl Header {
    pub(crate) const fn decode(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() < HEADER_BYTES {
            return Err(ModelError::Truncated { expected: HEADER_BYTES, found: bytes.len() });
        }
        if u32_at(bytes, 0) != u32::from_le_bytes(MAGIC) {
            return Err(ModelError::Magic);
        }
        if u16_at(bytes, 4) != VERSION {
            return Err(ModelError::Version { found: u16_at(bytes, 4) });
        }
        let precision = match u8_at(bytes, 6) {
            0 => Precision::I8,
            1 => Precision::F16,
            2 => Precision::F32,
            found => return Err(ModelError::Precision { found }),
        };
        Ok(Self {
            precision,
            file_bytes: u32_at(bytes, 8),
            arena_bytes: u32_at(bytes, 16),
            arena_lower_bound: u32_at(bytes, 20),
            tensors: u16_at(bytes, 24),
            ops: u16_at(bytes, 26),
            classes: u16_at(bytes, 28),
            unconditional_class: u16_at(bytes, 30),
            sample: u16_at(bytes, 32),
            prediction: u16_at(bytes, 34),
            unconditional: u16_at(bytes, 36),
            schedules: u16_at(bytes, 38),
            tensors_at: u32_at(bytes, 40),
            ops_at: u32_at(bytes, 44),
            schedules_at: u32_at(bytes, 48),
            name: [u32_at(bytes, 52), u32_at(bytes, 56)],
            provenance: [u32_at(bytes, 60), u32_at(bytes, 64)],
            conditioning: u32_at(bytes, 68),
            macs: u64_at(bytes, 72),
            params: u64_at(bytes, 80),
            weights_bytes: u32_at(bytes, 88),
        })
    }

    pub(crate) const fn tensor(&self, bytes: &[u8], id: u16) -> Option<Tensor> {
        if id >= self.tensors {
            return None;
        }
        Tensor::decode(slice_at(bytes, self.tensors_at as usize + id as usize * TENSOR_BYTES, TENSOR_BYTES))
    }

    pub(crate) const fn record<'a>(&self, bytes: &'a [u8], index: u16) -> &'a [u8] {
        if index >= self.ops {
            return &[];
        }
        slice_at(bytes, self.ops_at as usize + index as usize * OP_BYTES, OP_BYTES)
    }

    pub(crate) const fn op(&self, bytes: &[u8], index: u16) -> Option<Op> {
        if index >= self.ops { None } else { Op::decode(self.record(bytes, index)) }
    }

    pub(crate) const fn schedule(&self, bytes: &[u8], index: u16) -> Option<Schedule> {
        if index >= self.schedules {
            return None;
        }
        let at = self.schedules_at as usize + index as usize * SCHEDULE_BYTES;
        Some(Schedule::decode(slice_at(bytes, at, SCHEDULE_BYTES)))
    }
}

mod validate;
pub(crate) use validate::validate;

const fn malformed(field: Field, index: usize) -> ModelError {
    ModelError::Malformed { field, index }
}
