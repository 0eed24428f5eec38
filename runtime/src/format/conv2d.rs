//! The record of a convolution.

use super::record::{coded_fields, codes, record};
use super::weight_layout::{Chunks, WeightLayout};
use super::{Activation, MOST_TILED_INPUTS, NONE, PATCH_GROUP, TILE, Tensor};

codes! {
    /// What a convolution does to an input element on its way into the ring of rows that the kernel reads.
    pub enum Gather {
        /// `requantize(x − zero, M, s) + ring zero`, or a copy where `M = 0`.
        Raw = 0,
        /// Per-channel affine map of a group normalization.
        Affine = 1,
        /// The same followed by [`Activation::Silu`].
        AffineSilu = 2,
        /// The same followed by [`Activation::Relu`].
        AffineRelu = 3,
        /// The same followed by [`Activation::Gelu`].
        AffineGelu = 4,
        /// The same followed by [`Activation::Mish`].
        AffineMish = 5,
    }
}

impl Gather {
    /// An affine map of each channel, and what follows it.
    pub const fn affine(activation: Option<Activation>) -> Self {
        match activation {
            None => Gather::Affine,
            Some(Activation::Silu) => Gather::AffineSilu,
            Some(Activation::Relu) => Gather::AffineRelu,
            Some(Activation::Gelu) => Gather::AffineGelu,
            Some(Activation::Mish) => Gather::AffineMish,
        }
    }

    /// What follows the affine map, if anything does.
    #[inline(always)]
    pub const fn activation(self) -> Option<Activation> {
        match self {
            Gather::Raw | Gather::Affine => None,
            Gather::AffineSilu => Some(Activation::Silu),
            Gather::AffineRelu => Some(Activation::Relu),
            Gather::AffineGelu => Some(Activation::Gelu),
            Gather::AffineMish => Some(Activation::Mish),
        }
    }
}

codes! {
    /// Whether the input is enlarged before it is convolved.
    pub enum Upsample {
        /// It is not.
        None = 0,
        /// Rows and columns are doubled by nearest neighbour.
        Nearest = 1,
    }
}

codes! {
    /// Whether output channels become neighbours (Shi et al., 2016, arXiv:1609.05158).
    pub enum Shuffle {
        /// They do not.
        None = 0,
        /// The first half of the channels of column `x` goes to column `2·x` of the output, the second half to `2·x + 1`: a
        /// transposed convolution of stride 2 in its two phases.
        Columns = 1,
    }
}

codes! {
    /// Where a convolution's bias comes from.
    pub enum Bias {
        /// One vector in the file.
        Constant = 0,
        /// A part of the per-step biases of the schedule.
        Step = 1,
        /// A tensor, written by [`Linear`](super::Linear).
        Tensor = 2,
    }
}

record! {
    /// A convolution, its input transformation, its optional residual and its requantization.
    ///
    /// The one or two sources are joined along the channels, upsampled, padded, convolved, added to the residual, and
    /// written.
    pub struct Conv2d {
        /// [`OpKind::Conv2d`](super::OpKind::Conv2d)
        pub kind: u8,
        /// [`Gather`]
        pub gather: u8,
        /// [`Upsample`]
        pub upsample: u8,
        /// [`WeightLayout`]
        pub layout: u8,
        /// tensors: inputs; the second may be [`NONE`](super::NONE)
        pub sources: [u16; 2],
        /// tensor: output
        pub output: u16,
        /// tensor of the output's shape that is added, or [`NONE`](super::NONE); may be at the output's place
        pub residual: u16,
        /// tensor: per-channel affine map of all input channels, or [`NONE`](super::NONE) with [`Gather::Raw`]
        pub norm: u16,
        /// tensor: the ring of [`Conv2d::ring_rows`] rows of padded input
        pub scratch: u16,
        /// rows and columns of the kernel, 1 to 15
        pub kernel: [u8; 2],
        /// step in both directions, 1 to 4
        pub stride: u8,
        /// rows above, columns to the left, below the kernel's size; the output's shape fixes the rest
        pub padding: [u8; 2],
        /// [`Bias`]
        pub bias: u8,
        /// tensor: the bias with [`Bias::Tensor`], else [`NONE`](super::NONE)
        pub bias_tensor: u16,
        /// offset of the weights
        pub weights: u32,
        /// offset of the constant bias, or offset within the biases of a step
        pub bias_at: u32,
        /// offset of (multiplier, shift) per output channel; 0 in f16 and f32
        pub requant: u32,
        /// value of the ring that means zero, and its padding; not read where each step has its own, see `weight_sums`
        pub ring_zero: i32,
        /// multiplier of each source (`Raw`) or of the activation (index 0; not read where each step has its own)
        pub multiplier: [i32; 2],
        /// the shifts that go with them
        pub shift: [i32; 2],
        /// added to the output
        pub output_zero: i32,
        /// multiplier of the residual, with [`RESIDUAL_BITS`](crate::fixed::RESIDUAL_BITS) extra bits
        pub residual_multiplier: i32,
        /// the shift that goes with it
        pub residual_shift: i32,
        /// subtracted from the residual
        pub residual_zero: i32,
        /// fractional bits of the affine map's factor beyond those of its result, 4 to 30
        pub affine_shift: u32,
        /// subtracted from a raw source
        pub source_zero: [i32; 2],
        /// factor of the residual in f16 and f32
        pub residual_gain: f32,
        /// a raw source enters as `gain·x + offset` in f16 and f32
        pub input_gain: f32,
        /// see `input_gain`
        pub input_offset: f32,
        /// tensor: the window that external weights pass through, or [`NONE`](super::NONE) if they are in this file
        pub window: u16,
        /// blocks of eight output channels in a chunk of external weights, at least 1
        pub chunk_blocks: u16,
        /// offset of the CRC-32 of each chunk
        pub checks: u32,
        /// with `weight_sums`, offset of this convolution's [`StepScales`](super::StepScales) within the biases of a step, a
        /// multiple of 4
        pub step_scales: u32,
        /// offset of the `i32` sum of each output channel's weights, where each step has scales of its own: i8, rings of 8
        /// bits, gathers through a map; 0: every step has the scales of this record
        pub weight_sums: u32,
        /// tensor: patches of [`PATCH_PIXELS`](super::PATCH_PIXELS) output pixels, see [`Conv2d::patch_groups`], or transformed
        /// tiles, see [`Conv2d::tile_columns`], or [`NONE`](super::NONE): the kernel reads the ring as it is
        pub patches: u16,
        /// rows of tiles that are computed at once by Winograd's F(4×4, 3×3), see [`Conv2d::tiles`]; 0: as it is defined
        pub tile_rows: u8,
        /// [`Shuffle`]
        pub shuffle: u8,
        /// zeros
        pub reserved_end: [u8; 4],
    }
}

coded_fields! {
    Conv2d {
        /// What happens to an input element on its way into the ring.
        gather: Gather or Raw,
        /// Whether the input is enlarged first.
        upsample: Upsample or None,
        /// How the weights are laid out.
        layout: WeightLayout or Rows8,
        /// Where the bias comes from.
        bias: Bias or Constant,
        /// Whether output channels become neighbours.
        shuffle: Shuffle or None,
    }
}

impl Conv2d {
    /// 1 if rows and columns are doubled, else 0.
    pub const fn doubling(&self) -> u32 {
        match self.upsample() {
            Upsample::None => 0,
            Upsample::Nearest => 1,
        }
    }

    /// The output as the kernel computes it, before a shuffle: fewer columns of more channels in the same memory. Validation
    /// has seen that the columns divide and that the channels fit.
    #[must_use]
    pub const fn computed(&self, mut output: Tensor) -> Tensor {
        let phases = self.shuffle as u32;
        output.columns >>= phases;
        output.channels <<= phases;
        output
    }

    /// Pixels of a row of the ring.
    pub const fn ring_width(&self, columns: usize, output_columns: usize) -> usize {
        let reach = (output_columns.saturating_sub(1)) * self.stride as usize + self.kernel[1] as usize;
        let held = self.padding[1] as usize + (columns << self.doubling());
        if reach > held { reach } else { held }
    }

    /// Weights of one output channel, for `inputs` input channels.
    pub const fn taps(&self, inputs: u64) -> u64 {
        self.kernel[0] as u64 * self.kernel[1] as u64 * inputs
    }

    /// Groups of [`PATCH_GROUP`](super::PATCH_GROUP) taps in a patch: columns of the tensor of patches, whose pixels are of
    /// `i32`, two for each output pixel.
    pub const fn patch_groups(&self, inputs: u64) -> u64 {
        self.taps(inputs).div_ceil(PATCH_GROUP as u64)
    }

    /// Whether a convolution may be computed by tiles: 3×3 kernels in steps of one, 8-bit weights and rings, whole tiles in
    /// pairs, channels in groups of four, and few enough of them that sums of products stay exact. Not seen from here: the
    /// ring's element.
    pub const fn tiles(&self, inputs: u64, [rows, columns, outputs]: [usize; 3]) -> bool {
        let kernel = self.kernel[0] == 3 && self.kernel[1] == 3 && self.stride == 1;
        let whole = rows.is_multiple_of(TILE * self.tile_rows as usize) && columns.is_multiple_of(2 * TILE);
        let channels = inputs.is_multiple_of(4) && inputs <= MOST_TILED_INPUTS as u64 && outputs.is_multiple_of(2);
        kernel && whole && channels && matches!(self.layout(), WeightLayout::Rows8)
    }

    /// Rows of the ring: those of the kernel, or those under some rows of tiles.
    pub const fn ring_rows(&self) -> usize {
        if self.tile_rows == 0 { self.kernel[0] as usize } else { TILE * self.tile_rows as usize + 2 }
    }

    /// Columns of the tensor of transformed tiles, which has a row of `i32` and as many channels as the input: 36 for each
    /// pair of neighbouring tiles, 36 for the weights of two output channels, and 36 for products.
    pub const fn tile_columns(&self, columns: usize) -> usize {
        (columns / (2 * TILE) * self.tile_rows as usize + 2) * 36
    }

    /// How external weights are cut, for `outputs` and `inputs` channels; `None` if they are in the model file.
    pub const fn chunks(&self, outputs: u64, inputs: u64) -> Option<Chunks> {
        if self.window == NONE || self.chunk_blocks == 0 {
            return None;
        }
        Some(self.layout().chunks(self.chunk_blocks, outputs, self.taps(inputs)))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn tiles_are_whole_pairs_of_whole_groups() {
        let tiled = |tile_rows| Conv2d { kernel: [3, 3], stride: 1, tile_rows, ..Conv2d::zeroed() };
        let fits = |op: Conv2d, inputs: u64, shape: [usize; 3]| op.tiles(inputs, shape);
        assert!(fits(tiled(1), 4, [4, 8, 2]) && fits(tiled(2), u64::from(MOST_TILED_INPUTS), [16, 24, 6]));
        for (inputs, shape) in [
            (4, [2, 8, 2]),
            (4, [6, 8, 2]),
            (4, [4, 4, 2]),
            (4, [4, 12, 2]),
            (4, [4, 8, 1]),
            (6, [4, 8, 2]),
            (u64::from(MOST_TILED_INPUTS) + 4, [4, 8, 2]),
        ] {
            assert!(!fits(tiled(1), inputs, shape), "{inputs} inputs, {shape:?}");
        }
        assert!(!fits(tiled(2), 4, [4, 8, 2]));
        let changed: [fn(&mut Conv2d); 4] =
            [|op| op.kernel = [3, 1], |op| op.kernel = [1, 3], |op| op.stride = 2, |op| op.layout = 1];
        for change in changed {
            let mut op = tiled(1);
            change(&mut op);
            assert!(!fits(op, 4, [4, 8, 2]), "{op:?}");
        }
    }

    /// The most input channels keep sums below what is left of 32 bits by a factor of 64.
    #[test]
    fn sums_of_tiles_are_exact() {
        assert!(9 * 128 * 128 * i64::from(MOST_TILED_INPUTS) < 1 << 25);
    }
}
