//! The record of a normalization over the channels of each pixel.

use super::record::{coded_fields, codes, record};
use super::{Affine, Gather};

codes! {
    /// What the channels of a pixel are divided by the deviation from.
    pub enum Center {
        /// Zero: by the root of their mean square (Zhang and Sennrich, 2019, RMSNorm, arXiv:1910.07467).
        Zero = 0,
        /// Their mean (Ba et al., 2016, layer normalization, arXiv:1607.06450).
        Mean = 1,
    }
}

record! {
    /// A normalization over the channels of each pixel: `y = f((x − c)/√(mean((x − c)²) + ε)·γ + β) + residual`.
    pub struct LayerNorm {
        /// [`OpKind::LayerNorm`](super::OpKind::LayerNorm)
        pub kind: u8,
        /// [`Center`]
        pub center: u8,
        /// [`Affine`], [`Affine::Tensor`] excluded
        pub affine: u8,
        /// [`Gather`], [`Gather::Raw`] excluded: what follows
        pub gather: u8,
        /// tensor: input
        pub source: u16,
        /// tensor of the input's shape: output; may be at the input's place, or at the residual's
        pub output: u16,
        /// tensor of the input's shape that is added, or [`NONE`](super::NONE)
        pub residual: u16,
        /// zeros
        pub reserved: [u8; 2],
        /// offset of γ of each channel, in the file or within the biases of a step: `i32` in 20 fractional bits, or `f32`
        pub gamma: u32,
        /// offset of β of each channel, likewise: `i32` in 12 fractional bits, or `f32`
        pub beta: u32,
        /// ε in f16 and f32
        pub epsilon: f32,
        /// ε over the square of the input's scale, in 16 fractional bits, at least 1
        pub epsilon_q16: u64,
        /// zero point of the input
        pub zero: i32,
        /// multiplier from 15 fractional bits to the output, with [`RESIDUAL_BITS`](crate::fixed::RESIDUAL_BITS) extra bits if
        /// there is a residual
        pub multiplier: i32,
        /// the shift that goes with it
        pub shift: i32,
        /// added to the output
        pub output_zero: i32,
        /// multiplier of the residual, with as many extra bits
        pub residual_multiplier: i32,
        /// the shift that goes with it
        pub residual_shift: i32,
        /// subtracted from the residual
        pub residual_zero: i32,
        /// zeros
        pub reserved_end: [u8; 60],
    }
}

coded_fields! {
    LayerNorm {
        /// What deviations are from.
        center: Center or Zero,
        /// Where factors and summands come from.
        affine: Affine or Constant,
        /// What follows the affine map.
        gather: Gather or Affine,
    }
}
