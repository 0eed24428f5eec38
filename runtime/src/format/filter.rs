//! The record of a filter that halves or doubles rows.

use super::record::{coded_fields, codes, record};

codes! {
    /// What becomes of the number of columns.
    pub enum Resampling {
        /// Half of them: a result for every second column.
        Halve = 0,
        /// Twice as many: two results for each column.
        Double = 1,
    }
}

record! {
    /// Cubic resampling of each channel along the rows, whose ends are reflected: `x₋ᵢ` is `xᵢ`, and likewise at the other end.
    ///
    /// With the taps `k` = (−3, −9, 29, 111, 111, 29, −9, −3)/256, halving gives `yⱼ = Σ kᵢ·x₂ⱼ₊ᵢ₋₃`, and doubling
    /// `y₂ⱼ = 2·Σ k₇₋₂ᵢ·xⱼ₊ᵢ₋₂` and `y₂ⱼ₊₁ = 2·Σ k₆₋₂ᵢ·xⱼ₊ᵢ₋₁` over four of them.
    pub struct Filter {
        /// [`OpKind::Filter`](super::OpKind::Filter)
        pub kind: u8,
        /// [`Resampling`]
        pub resampling: u8,
        /// tensor: input
        pub source: u16,
        /// tensor of the input's rows and channels: output
        pub output: u16,
        /// zeros
        pub reserved: [u8; 2],
        /// multiplier from 256 times a halved value, or 128 times a doubled one, to the output
        pub multiplier: i32,
        /// the shift that goes with it
        pub shift: i32,
        /// subtracted from the input
        pub zero: i32,
        /// added to the output
        pub output_zero: i32,
        /// zeros
        pub reserved_end: [u8; 96],
    }
}

coded_fields! {
    Filter {
        /// What becomes of the number of columns.
        resampling: Resampling or Halve,
    }
}
