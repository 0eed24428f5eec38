//! The record of a group normalization.

use super::record::{coded_fields, codes, record};

codes! {
    /// Where the factors and summands of a normalization come from.
    pub enum Affine {
        /// Two vectors in the file.
        Constant = 0,
        /// Two parts of the per-step biases of the schedule.
        Step = 1,
        /// A tensor, factors before summands, written by [`Linear`](super::Linear).
        Tensor = 2,
    }
}

record! {
    /// Group normalization's statistics, turned into one affine map per channel: `y = x·A + B`.
    pub struct GroupNorm {
        /// [`OpKind::GroupNorm`](super::OpKind::GroupNorm)
        pub kind: u8,
        /// [`Affine`]
        pub affine: u8,
        /// tensor: factors and summands with [`Affine::Tensor`], else 0
        pub affine_tensor: u16,
        /// tensors: inputs, joined along the channels; the second may be [`NONE`](super::NONE)
        pub sources: [u16; 2],
        /// tensor: (A, B) per channel: `i32` pairs or `f32` pairs
        pub output: u16,
        /// groups of consecutive channels
        pub groups: u16,
        /// offset of the factor per channel, in the file or within the biases of a step: `i32` in 20 fractional bits, or `f32`
        pub gamma: u32,
        /// offset of the summand per channel, likewise: `i32` in 12 fractional bits, or `f32`
        pub beta: u32,
        /// scale of each source over the larger of both, in 15 fractional bits, 1 to 32768
        pub ratio: [u32; 2],
        /// zero point of each source
        pub zero: [i32; 2],
        /// epsilon in f16 and f32
        pub epsilon: f32,
        /// epsilon over the square of the larger scale, in 16 fractional bits, at least 1
        pub epsilon_q16: u64,
        /// fractional bits of A beyond those of the result, 4 to 30
        pub affine_shift: u32,
        /// zeros
        pub reserved_end: [u8; 68],
    }
}

coded_fields! {
    GroupNorm {
        /// Where factors and summands come from.
        affine: Affine or Constant,
    }
}
