//! The record of what a classifier and its backward pass are made of besides convolutions.

use super::record::{coded_fields, codes, record};

codes! {
    /// Which part it computes.
    pub enum Pass {
        /// The SiLU: `y = z·σ(z)`.
        Forward = 0,
        /// What its derivative makes of a gradient: `y = g·σ(z)·(1 + z·(1 − σ(z)))`.
        Backward = 1,
        /// The same times the step's factor.
        BackwardScaled = 2,
        /// The gradient of the class's log-probability with respect to the logits: `y = onehot(class) − softmax(z)`.
        Loss = 3,
    }
}

record! {
    /// An elementwise operation of a classifier whose gradient with respect to the sample guides it (Dhariwal and Nichol, 2021,
    /// arXiv:2105.05233, section 4).
    pub struct Classifier {
        /// [`OpKind::Classifier`](super::OpKind::Classifier)
        pub kind: u8,
        /// [`Pass`]
        pub pass: u8,
        /// tensor: z, the input of the SiLU, in i8 `i8`; or the logits of one pixel, in i8 `i16`
        pub source: u16,
        /// tensor of the input's shape: the gradient that comes back, or [`NONE`](super::NONE)
        pub gradient: u16,
        /// tensor of the input's shape: output; `i16` in i8 but for the SiLU
        pub output: u16,
        /// offset in i8 of 256 `i16`, one for each input from −128: results of the SiLU, or its derivatives with
        /// [`SLOPE_BITS`](super::SLOPE_BITS) fractional bits
        pub table: u32,
        /// offset of the step's factor within the biases of a step: (multiplier, shift) from products to the output, or `f32`
        pub factor_at: u32,
        /// multiplier from a product of a gradient and a derivative to the output, or from a difference of logits to 8 fractional
        /// bits of a binary exponent
        pub multiplier: i32,
        /// the shift that goes with it
        pub shift: i32,
        /// zeros
        pub reserved_end: [u8; 96],
    }
}

coded_fields! {
    Classifier {
        /// Which part it computes.
        pass: Pass or Forward,
    }
}

/// Fractional bits of a derivative, and of the gradient with respect to logits.
pub const SLOPE_BITS: u32 = 14;
