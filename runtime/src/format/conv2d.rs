//! The record of a convolution.

use super::record::{coded_fields, codes, record};
use super::weight_layout::{Chunks, WeightLayout};
use super::{Activation, CHANNEL_BLOCK, MOST_TILED_INPUTS, MOST_WIDE_TILED_INPUTS, NONE, PATCH_GROUP, Tensor};

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

/// What tiles a convolution may be computed by (Lavin and Gray, 2015, arXiv:1509.09308).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiling {
    /// Winograd's F(4×4, 3×3), over rings of 8 bits.
    Four,
    /// Winograd's F(2×2, 3×3), over rings of 16 bits whose values are limited.
    Two,
}

impl Tiling {
    /// Rows and columns of outputs of a tile.
    pub const fn side(self) -> usize {
        match self {
            Tiling::Four => 4,
            Tiling::Two => 2,
        }
    }

    /// Elements of a transformed tile.
    pub const fn points(self) -> usize {
        (self.side() + 2) * (self.side() + 2)
    }

    /// How weights that the file has transformed are laid out.
    pub const fn layout(self) -> WeightLayout {
        match self {
            Tiling::Four => WeightLayout::Tiles4,
            Tiling::Two => WeightLayout::Tiles2,
        }
    }

    /// `G` of Lavin and Gray without the denominators of its rows, by rows.
    const fn rows(self) -> &'static [[i32; 3]] {
        match self {
            Tiling::Four => &[[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]],
            Tiling::Two => &[[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]],
        }
    }

    /// What the nine weights of an input and an output, by rows, are transformed to at a point, `(G g Gᵀ)` of it.
    pub fn transformed(self, weights: &[i8; 9], point: usize) -> i16 {
        let rows = self.rows();
        let row = |at: Option<usize>| at.and_then(|at| rows.get(at)).copied().unwrap_or_default();
        let [y, x] = [point.checked_div(rows.len()), point.checked_rem(rows.len())].map(row);
        let terms = weights.iter().enumerate().map(|(tap, &weight)| y[tap / 3] * x[tap % 3] * i32::from(weight));
        terms.sum::<i32>() as i16
    }

    /// The weights that are transformed to what `at` gives for each point; `None` if there are none.
    pub fn weights(self, at: impl Fn(usize) -> i16) -> Option<[i8; 9]> {
        let side = self.rows().len();
        // The first weight of three is the first of their transforms, the third the last, the sum of all is the second.
        let line = |at: &dyn Fn(usize) -> i32| [at(0), at(1) - at(0) - at(side - 1), at(side - 1)];
        let columns = [0, 1, side - 1].map(|x| line(&|y| i32::from(at(y * side + x))));
        let mut weights = [0; 9];
        for (y, row) in weights.chunks_exact_mut(3).enumerate() {
            let [first, sum, last] = columns.map(|column| column[y]);
            for (weight, value) in row.iter_mut().zip([first, sum - first - last, last]) {
                *weight = i8::try_from(value).ok()?;
            }
        }
        let points = 0..self.points();
        points.into_iter().all(|point| self.transformed(&weights, point) == at(point)).then_some(weights)
    }

    /// Input channels, at most.
    pub const fn most_inputs(self) -> u16 {
        match self {
            Tiling::Four => MOST_TILED_INPUTS,
            Tiling::Two => MOST_WIDE_TILED_INPUTS,
        }
    }

    /// How far from zero values of the ring may be, for `inputs` input channels; 0: as far as its type allows.
    ///
    /// Tiles of two rows take four times the sum of products from 32 bits, so that this has to fit 30, whatever the weights
    /// are: 9·128 times as much for each input channel is below 2²⁹. And sums of four values are to fit 16 bits.
    pub const fn ring_limit(self, inputs: u64) -> u16 {
        const FOURTH: u64 = i16::MAX as u64 / 4;
        let taps = if inputs == 0 { 9 } else { 9 * inputs };
        let limit = ((1 << 29) - 1) / (128 * taps);
        match self {
            Tiling::Four => 0,
            Tiling::Two if limit < FOURTH => limit as u16,
            Tiling::Two => FOURTH as u16,
        }
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
        /// rows of tiles that are computed at once, see [`Conv2d::tiles`]; 0: as it is defined
        pub tile_rows: u8,
        /// [`Shuffle`]
        pub shuffle: u8,
        /// how far from zero values of the ring are at most, those further away being brought there; as
        /// [`Tiling::ring_limit`] has it at most, or 0 without [`Tiling::Two`]
        pub ring_limit: u16,
        /// zeros
        pub reserved_end: [u8; 2],
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

    /// What tiles it may be computed by.
    #[inline]
    pub const fn tiling(&self) -> Tiling {
        if self.ring_limit == 0 { Tiling::Four } else { Tiling::Two }
    }

    /// Whether a convolution may be computed by tiles: 3×3 kernels in steps of one, weights of 8 bits or transformed, whole tiles in
    /// pairs, channels in groups of four, and few enough of them that sums of products stay exact. Not seen from here: the
    /// ring's element.
    pub const fn tiles(&self, inputs: u64, [rows, columns, outputs]: [usize; 3]) -> bool {
        let tiling = self.tiling();
        let kernel = self.kernel[0] == 3 && self.kernel[1] == 3 && self.stride == 1;
        let whole = rows.is_multiple_of(self.band_rows()) && columns.is_multiple_of(2 * tiling.side());
        let channels = inputs.is_multiple_of(4) && inputs <= tiling.most_inputs() as u64 && outputs.is_multiple_of(2);
        let layout = self.layout();
        kernel
            && whole
            && channels
            && (layout.code() == WeightLayout::Rows8.code() || layout.code() == tiling.layout().code())
    }

    /// Output rows that are computed at once: one, or those of some rows of tiles.
    pub const fn band_rows(&self) -> usize {
        if self.tile_rows == 0 { 1 } else { self.tiling().side() * self.tile_rows as usize }
    }

    /// Rows of the ring: those of the kernel, or those under some rows of tiles.
    pub const fn ring_rows(&self) -> usize {
        if self.tile_rows == 0 { self.kernel[0] as usize } else { self.band_rows() + 2 }
    }

    /// Columns of the tensor of transformed tiles, which has a row of `i32` and as many channels as the input: a tile's
    /// points for each pair of neighbouring tiles, and for the weights of two output channels unless the file has all of them
    /// transformed; then four products for each
    /// point, and the sums of eight output channels. The number is even, so that the room is a whole number of groups of
    /// patches for any channels in groups of four.
    pub const fn tile_columns(&self, columns: usize, inputs: u64) -> usize {
        let tiling = self.tiling();
        let pairs = columns / (2 * tiling.side()) * self.tile_rows as usize;
        let transformed = (pairs + !self.layout().is_transformed() as usize) * tiling.points();
        let sums = 4 * tiling.points() + self.band_rows() * columns * CHANNEL_BLOCK;
        // A width of addresses may have no room for such a number.
        match inputs as usize {
            0 => transformed + sums,
            inputs => transformed + sums.div_ceil(inputs).next_multiple_of(2),
        }
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
mod tests;
