//! The records of the conditioning vector and its projections.

use super::Activation;
use super::record::{coded_fields, record};

record! {
    /// The conditioning vector of a step and a class: `activation(time row + class row)`.
    pub struct Embed {
        /// [`OpKind::Embed`](super::OpKind::Embed)
        pub kind: u8,
        /// [`Activation`](super::Activation)
        pub activation: u8,
        /// zeros
        pub reserved: [u8; 2],
        /// tensor: `i16` or `f32` vector of conditioning length
        pub output: u16,
        /// zeros
        pub reserved_middle: [u8; 2],
        /// offset of the class table, one row of conditioning length a class; `i16` or `f32`
        pub table: u32,
        /// left shift that brings the sum to 12 fractional bits, at most 12
        pub input_shift: u32,
        /// right shift from 15 fractional bits to the output's, at most 15
        pub output_shift: u32,
        /// zeros
        pub reserved_end: [u8; 100],
    }
}

coded_fields! {
    Embed {
        /// What the sum passes through.
        activation: Activation or Silu,
    }
}

record! {
    /// `W·e + b`: a bias vector in the units of the accumulator of the convolution that takes it, or the factors and
    /// summands of a normalization.
    pub struct Linear {
        /// [`OpKind::Linear`](super::OpKind::Linear)
        pub kind: u8,
        /// zeros
        pub reserved: [u8; 3],
        /// tensor: the conditioning vector
        pub source: u16,
        /// tensor: `i32` or `f32` vector
        pub output: u16,
        /// offset of the weights, (output, input) order; `i16` in i8, `f16` or `f32` else
        pub weights: u32,
        /// offset of the biases, `i32` or `f32`
        pub bias: u32,
        /// offset of (multiplier, shift) per output; 0 in f16 and f32
        pub requant: u32,
        /// zeros
        pub reserved_end: [u8; 100],
    }
}
