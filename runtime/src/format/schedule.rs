//! Schedules, their steps, and what a step may carry.

use super::Conv2d;
use super::record::record;

record! {
    /// One list of steps.
    pub struct Schedule {
        /// number of steps, 1 to 10000
        pub steps: u32,
        /// offset of the steps; a [`Variance`] for each follows them if the header names a tensor of variances
        pub rows: u32,
        /// offset of the time embeddings, one row of conditioning length a step: `i16` in i8, else `f32`
        pub embeddings: u32,
        /// offset of the per-step biases
        pub biases: u32,
        /// bytes of the biases of one step; [`StepScales`] lie among them
        pub bias_bytes: u32,
        /// offset of the [`Level`]s, one a step; 0: the list starts from noise alone
        pub levels: u32,
        /// factor of the noise that the list starts from, with 24 fractional bits; 0 counts as 1
        pub start: i32,
        /// offset of the [`Threshold`] of the clean samples, 0 if there is none
        pub threshold: u32,
    }
}

record! {
    /// Dynamic thresholding (Saharia et al., 2022, arXiv:2205.11487, section 2.3): a step's clean sample is clamped to ±s and
    /// divided by s, a quantile of its magnitudes over the whole picture, at least 1. Whatever the precision.
    pub struct Threshold {
        /// number of the largest magnitude, counted from the smallest, 0, that is not above the quantile
        pub rank: u32,
        /// how far the quantile lies from there to the next magnitude, with 24 fractional bits, less than 1
        pub weight: u32,
        /// largest s, at least 1, with 20 fractional bits; `i32::MAX` for none
        pub limit: i32,
        /// zeros
        pub reserved: [u8; 4],
    }
}

/// Fractional bits of [`Threshold::weight`].
pub const WEIGHT_BITS: u32 = 24;

record! {
    /// What the sample before a step consists of, the forward process in closed form: `signal·x0 + noise·ε` for a clean
    /// sample and standard Gaussian noise, whatever the precision.
    pub struct Level {
        /// factor of the clean sample, with 28 fractional bits
        pub signal: i32,
        /// factor of the noise, with 28 fractional bits
        pub noise: i32,
    }
}

/// Fractional bits of a [`Level`].
pub const LEVEL_BITS: u32 = 28;

record! {
    /// What a learned variance makes of a step's noise (Nichol and Dhariwal, 2021, arXiv:2102.09672, equation 15), whatever the
    /// precision: the logarithm of the variance lies between those of β and β̃, so that an output `v` of the network in [−1, 1]
    /// multiplies the noise by `2^(orders·(v − 1))` besides the step's factor, which is √β.
    pub struct Variance {
        /// binary orders from the standard deviation at 1 to that at 0, with 24 fractional bits, 0 to 32
        pub orders: i32,
    }
}

/// Fractional bits of [`Variance::orders`].
pub const ORDER_BITS: u32 = 24;

impl Schedule {
    /// Offset of the [`Variance`]s, where the header names a tensor of variances.
    pub const fn variances(&self) -> u64 {
        self.rows as u64 + self.steps as u64 * STEP_BYTES as u64
    }
}

/// Fractional bits of [`Schedule::start`].
pub const START_BITS: u32 = 24;

record! {
    /// A step in i8: how the sample `x`, the model output `m`, noise `z` and the clean samples `h` of earlier steps become
    /// the next sample: `x0 = clamp(a·x + b·m, ±clip)`, `x' = p·x0 + q·x + r·m + s·z + u·h₁ + v·h₂`.
    pub struct FixedStep {
        /// timestep, rounded
        pub timestep: i32,
        /// clip, in 20 fractional bits; `i32::MAX` for none
        pub clip: i32,
        /// a, b: mantissas with `x0_shift` fractional bits
        pub x0: [i32; 2],
        /// at most 62
        pub x0_shift: u32,
        /// p, q, r, s: mantissas with `next_shift` fractional bits
        pub next: [i32; 4],
        /// at most 62
        pub next_shift: u32,
        /// u, v: the same for the clean sample of the step before, and of the one before that
        pub history: [i32; 2],
    }
}

record! {
    /// The same in f16 and f32, whose sampler works in single precision.
    pub struct FloatStep {
        /// timestep, rounded
        pub timestep: i32,
        /// clip, infinity for none
        pub clip: f32,
        /// a, b
        pub x0: [f32; 2],
        /// zeros
        pub reserved: [u8; 4],
        /// p, q, r, s
        pub next: [f32; 4],
        /// zeros
        pub reserved_middle: [u8; 4],
        /// u, v
        pub history: [f32; 2],
    }
}

/// Bytes of a step, whatever the precision.
pub const STEP_BYTES: usize = size_of::<FixedStep>();

const _: () = assert!(size_of::<FloatStep>() == STEP_BYTES);

record! {
    /// The scales of a ring during one step (So et al., 2023, TDQ, arXiv:2306.02316, with the steps known in advance).
    ///
    /// With them a ring's values are `round(activation · multiplier) + ring_zero`. Accumulators start at zero; one becomes
    /// `requantize(accumulator − ring_zero·Σweights, rescale) + bias`, in the units of the convolution's biases and
    /// requantization.
    pub struct StepScales {
        /// value of the ring that means zero
        pub ring_zero: i32,
        /// multiplier of the activation
        pub multiplier: i32,
        /// the shift that goes with it
        pub shift: i32,
        /// multiplier and shift from this step's accumulators to those of the convolution's record
        pub rescale: [i32; 2],
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
}
