//! The record of an activation that is written out, and that of an observation.

use super::Activation;
use super::record::{coded_fields, codes, record};

codes! {
    /// How each channel is modulated (Perez et al., 2018, FiLM, arXiv:1709.07871).
    pub enum Film {
        /// It is not.
        None = 0,
        /// A summand.
        Shift = 1,
        /// A factor, then a summand.
        ScaleShift = 2,
    }
}

record! {
    /// A normalized tensor behind its activation, modulated and added to: `y = f(A·x + B)·s + t + residual`.
    ///
    /// Factors `s` and summands `t` are the sum of a part of the step's biases and of a tensor that depends on the
    /// observation; both hold the factors, if there are any, before the summands.
    pub struct Activate {
        /// [`OpKind::Activate`](super::OpKind::Activate)
        pub kind: u8,
        /// [`Activation`]
        pub activation: u8,
        /// [`Film`]
        pub film: u8,
        /// zeros
        pub reserved: u8,
        /// tensor: input
        pub source: u16,
        /// tensor of the input's shape: output; may be at the input's place, or at the residual's
        pub output: u16,
        /// tensor of the input's shape that is added, or [`NONE`](super::NONE)
        pub residual: u16,
        /// tensor: per-channel affine map
        pub norm: u16,
        /// tensor: the observation's part of factors and summands, written by [`Linear`](super::Linear), or
        /// [`NONE`](super::NONE)
        pub observed: u16,
        /// zeros
        pub reserved_middle: [u8; 2],
        /// offset of the step's part within the biases of a step: factors, `i32` in 20 fractional bits, then summands, `i32` in
        /// 15; or `f32`
        pub film_at: u32,
        /// fractional bits of the affine map's factor beyond those of its result, 4 to 30
        pub affine_shift: u32,
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
        pub reserved_end: [u8; 72],
    }
}

coded_fields! {
    Activate {
        /// What the normalized values pass through.
        activation: Activation or Mish,
        /// How each channel is modulated.
        film: Film or None,
    }
}

record! {
    /// An observation, or the result of a [`Linear`](super::Linear), on its way to projections: `f((x − center)·gain)` of each
    /// element.
    pub struct Observe {
        /// [`OpKind::Observe`](super::OpKind::Observe)
        pub kind: u8,
        /// [`Activation`]
        pub activation: u8,
        /// zeros
        pub reserved: [u8; 2],
        /// tensor: the observation, or a vector of [`Linear`](super::Linear): `i32` in 20 fractional bits, or `f32`
        pub source: u16,
        /// tensor: `i16` with 12 fractional bits, or `f32`, as many elements
        pub output: u16,
        /// offset of the centers: `i32` in 20 fractional bits, or `f32`
        pub centers: u32,
        /// offset of the gains: (multiplier, shift) from 20 to 12 fractional bits, or `f32`
        pub gains: u32,
        /// zeros
        pub reserved_end: [u8; 104],
    }
}

coded_fields! {
    Observe {
        /// What the normalized observation passes through.
        activation: Activation or Mish,
    }
}

record! {
    /// How a channel of the sample becomes an action in i8: `x·gain + offset`.
    pub struct FixedAction {
        /// multiplier of the gain
        pub multiplier: i32,
        /// the shift that goes with it
        pub shift: i32,
        /// summand, in 20 fractional bits
        pub offset: i32,
        /// zeros
        pub reserved: [u8; 4],
    }
}

record! {
    /// The same in f16 and f32.
    pub struct FloatAction {
        /// factor
        pub gain: f32,
        /// summand
        pub offset: f32,
        /// zeros
        pub reserved: [u8; 8],
    }
}

/// Bytes of an action's record, whatever the precision.
pub const ACTION_BYTES: usize = size_of::<FixedAction>();

const _: () = assert!(size_of::<FloatAction>() == ACTION_BYTES);
