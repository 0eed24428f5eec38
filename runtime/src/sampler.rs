//! One step of the reverse process as linear maps, and the conversion to bytes.
//!
//! For a sample `x`, a model output `m` and noise `z`, a step of DDIM (Song et al., 2020, arXiv:2010.02502, equation 12)
//! is `x0 = clamp(a·x + b·m)`, `x' = p·x0 + q·x + r·m + s·z`, whatever the model predicts; multistep samplers add multiples
//! of the clean samples `x0` of earlier steps. A [threshold](crate::format::Threshold) bounds `x0` by a quantile of the whole
//! picture, and a learned [variance](Variance) multiplies the noise. The exporter computes the coefficients in `f64`.
//! [Guidance](crate::guidance) mixes two model outputs first.
//!
//! [`Sample`] and [`Step`] are what the session is written in; the functions for each type serve the GPU's kernels too.

use bytemuck::Pod;

use crate::fixed::{SAMPLE_BITS, exp2, requantize, round_shift, saturate_i32};
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::float::exp;
use crate::format::{
    FixedAction, FixedStep, LEVEL_BITS, Level, ORDER_BITS, START_BITS, Threshold, Variance, WEIGHT_BITS,
};
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::format::{FloatAction, FloatStep};
use crate::guidance::{FACTOR_BITS, Guidance};

/// An element of a sample, a model output or noise: `i32` with 20 fractional bits, or `f32`.
pub trait Sample: Pod {
    /// The coefficients of a step.
    type Step: Step<Self>;

    /// A number of a [`Noise`](crate::Noise) source.
    fn from_noise(value: i32) -> Self;

    /// Noise times [`Schedule::start`](crate::format::Schedule::start), what a list starts from.
    fn started(self, start: i32) -> Self;

    /// `signal·self + noise·z`: a clean sample with noise, at the level before some step.
    fn noised(self, z: Self, level: Level) -> Self;

    /// The value in [−1, 1] of a byte, rounded; the opposite of [`to_byte`](Self::to_byte).
    fn from_byte(byte: u8) -> Self;

    /// `u + g·(c − u)` for the unconditional and the conditional model output.
    fn guide(unconditional: Self, conditional: Self, guidance: Guidance) -> Self;

    /// The sum, saturated.
    fn plus(self, other: Self) -> Self;

    /// The value in 20 fractional bits, rounded and saturated.
    fn to_fixed(self) -> i32;

    /// The value times a factor with [`FACTOR_BITS`] fractional bits.
    fn scaled(self, factor: i32) -> Self;

    /// Noise times what the network's output `v` for the variance makes of it, `2^(orders·(v − 1))`, whose exponent is limited
    /// to −32 to 16.
    fn varied(self, v: Self, variance: Variance) -> Self;

    /// What a clean sample is bounded by.
    type Bound: Copy;

    /// The value without its sign, as a number whose order is that of magnitudes.
    fn magnitude(self) -> u32;

    /// What the threshold is where two neighbouring magnitudes are these.
    fn bound(threshold: Threshold, neighbours: [u32; 2]) -> Self::Bound;

    /// The value clamped to a threshold, in units of it.
    fn bounded(self, bound: Self::Bound) -> Self;

    /// The byte of a value in [−1, 1], rounded.
    fn to_byte(self) -> u8;

    /// The action that a value stands for, by the record at byte `at` of the file.
    fn to_action(self, bytes: &[u8], at: usize) -> Self;
}

/// Least and largest binary logarithm of what noise is multiplied by.
const EXPONENTS: [i32; 2] = [-32, 16];

/// A threshold in fixed point, with its inverse.
#[derive(Clone, Copy, Debug)]
pub struct FixedBound {
    bound: i32,
    /// `2^(SAMPLE_BITS + shift) / bound`, rounded down.
    factor: i32,
    shift: u32,
}

/// One step of the sampler.
///
/// It is cut where multistep samplers need it: what the model says about the clean sample, then the next sample from that
/// and from the clean samples of earlier steps.
pub trait Step<S> {
    /// The record at byte `at` of the file.
    fn read(bytes: &[u8], at: usize) -> Self;

    /// Whether `next` reads noise.
    fn has_noise(&self) -> bool;

    /// The clean sample `x0` that the model output `m` means at the sample `x`.
    fn clean(&self, x: S, m: S) -> S;

    /// The next sample; `history` holds the clean samples of the step before and of the one before that.
    fn next(&self, terms: Terms<S>, history: [S; 2]) -> S;
}

/// What the next sample is made of.
#[derive(Clone, Copy, Debug)]
pub struct Terms<S> {
    /// The clean sample.
    pub x0: S,
    /// The sample.
    pub x: S,
    /// The model output.
    pub m: S,
    /// Noise.
    pub z: S,
}

impl Sample for i32 {
    type Step = FixedStep;

    fn from_noise(value: i32) -> Self {
        value
    }

    fn started(self, start: i32) -> Self {
        if start == 0 { self } else { saturate_i32(round_shift(product(start, self), START_BITS)) }
    }

    fn noised(self, z: Self, level: Level) -> Self {
        saturate_i32(round_shift(product(level.signal, self) + product(level.noise, z), LEVEL_BITS))
    }

    fn from_byte(byte: u8) -> Self {
        // At most 255·2²⁰ < 2²⁸; the half that rounds has the value's sign.
        let scaled = (2 * i32::from(byte) - 255) << SAMPLE_BITS;
        (scaled + if scaled < 0 { -127 } else { 127 }) / 255
    }

    fn guide(unconditional: Self, conditional: Self, guidance: Guidance) -> Self {
        guide_fixed(unconditional, conditional, guidance)
    }

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn to_fixed(self) -> i32 {
        self
    }

    fn scaled(self, factor: i32) -> Self {
        saturate_i32(round_shift(product(factor, self), FACTOR_BITS))
    }

    fn varied(self, v: Self, Variance { orders }: Variance) -> Self {
        // At most 2³¹ times 2³² less some: it fits 64 bits.
        let exponent = i64::from(orders) * (i64::from(v) - (1 << SAMPLE_BITS));
        let [least, most] = EXPONENTS.map(|exponent| i64::from(exponent) << ORDER_BITS);
        let (mantissa, power) = exp2(round_shift(exponent, SAMPLE_BITS).max(least).min(most) as i32);
        // 30 less a power from −32 to 16.
        saturate_i32(round_shift(product(mantissa, self), 30i32.wrapping_sub(power) as u32))
    }

    type Bound = FixedBound;

    fn magnitude(self) -> u32 {
        self.unsigned_abs()
    }

    fn bound(threshold: Threshold, [low, high]: [u32; 2]) -> FixedBound {
        let weight = u64::from(threshold.weight);
        let between = (u64::from(high.saturating_sub(low)) * weight + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
        let quantile = u64::from(low).saturating_add(between).min(i32::MAX as u64) as i32;
        let bound = quantile.max(1 << SAMPLE_BITS).min(threshold.limit).max(1);
        // 2^(SAMPLE_BITS + shift) / bound has 31 bits, or is 2³¹ and stands for one less.
        let shift = 62 - SAMPLE_BITS - bound.leading_zeros();
        let factor = ((1u64 << (SAMPLE_BITS + shift)) / u64::from(bound.unsigned_abs())).min(i32::MAX as u64) as i32;
        FixedBound { bound, factor, shift }
    }

    fn bounded(self, FixedBound { bound, factor, shift }: FixedBound) -> Self {
        saturate_i32(round_shift(product(factor, self.max(-bound).min(bound)), shift))
    }

    fn to_byte(self) -> u8 {
        byte_fixed(self)
    }

    fn to_action(self, bytes: &[u8], at: usize) -> Self {
        let FixedAction { multiplier, shift, offset, .. } = FixedAction::read(bytes, at);
        requantize(self, multiplier, shift).saturating_add(offset)
    }
}

#[cfg(any(feature = "f16", feature = "f32"))]
impl Sample for f32 {
    type Step = FloatStep;

    fn from_noise(value: i32) -> Self {
        to_float(value)
    }

    fn started(self, start: i32) -> Self {
        if start == 0 { self } else { self * (start as f32 / (1 << START_BITS) as f32) }
    }

    fn noised(self, z: Self, level: Level) -> Self {
        let [signal, noise] = [level.signal, level.noise].map(|factor| factor as f32 / (1 << LEVEL_BITS) as f32);
        signal * self + noise * z
    }

    fn from_byte(byte: u8) -> Self {
        f32::from(byte) / 127.5 - 1.0
    }

    fn guide(unconditional: Self, conditional: Self, guidance: Guidance) -> Self {
        guide_float(unconditional, conditional, guidance)
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn to_fixed(self) -> i32 {
        let scaled = self * (1 << SAMPLE_BITS) as f32;
        // The cast saturates and takes NaN to 0.
        (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32
    }

    fn scaled(self, factor: i32) -> Self {
        self * (factor as f32 / (1 << FACTOR_BITS) as f32)
    }

    fn varied(self, v: Self, Variance { orders }: Variance) -> Self {
        let orders = orders as f32 / (1 << ORDER_BITS) as f32;
        let [least, most] = EXPONENTS.map(|exponent| exponent as f32);
        self * exp(core::f32::consts::LN_2 * (orders * (v - 1.0)).max(least).min(most))
    }

    type Bound = f32;

    fn magnitude(self) -> u32 {
        self.to_bits() & 0x7FFF_FFFF
    }

    fn bound(threshold: Threshold, neighbours: [u32; 2]) -> f32 {
        let [low, high] = neighbours.map(f32::from_bits);
        let weight = threshold.weight as f32 / (1 << WEIGHT_BITS) as f32;
        // Without a weight there may be no neighbour.
        let quantile = if threshold.weight == 0 { low } else { low + weight * (high - low) };
        let limit = if threshold.limit == i32::MAX { f32::INFINITY } else { to_float(threshold.limit) };
        quantile.max(1.0).min(limit)
    }

    fn bounded(self, bound: f32) -> Self {
        self.max(-bound).min(bound) / bound
    }

    fn to_byte(self) -> u8 {
        byte_float(self)
    }

    fn to_action(self, bytes: &[u8], at: usize) -> Self {
        let FloatAction { gain, offset, .. } = FloatAction::read(bytes, at);
        self * gain + offset
    }
}

/// No sum of products leaves 64 bits: mantissas are at most 2²⁹, values 2³¹, terms six.
impl Step<i32> for FixedStep {
    fn read(bytes: &[u8], at: usize) -> Self {
        FixedStep::read(bytes, at)
    }

    fn has_noise(&self) -> bool {
        self.next[3] != 0
    }

    fn clean(&self, x: i32, m: i32) -> i32 {
        let [a, b] = self.x0;
        let x0 = saturate_i32(round_shift(product(a, x) + product(b, m), self.x0_shift));
        x0.max(-self.clip).min(self.clip)
    }

    fn next(&self, Terms { x0, x, m, z }: Terms<i32>, history: [i32; 2]) -> i32 {
        let [p, q, r, s] = self.next;
        let mut next = product(p, x0) + product(q, x) + product(r, m) + product(s, z);
        if cfg!(feature = "history") {
            next += product(self.history[0], history[0]) + product(self.history[1], history[1]);
        }
        saturate_i32(round_shift(next, self.next_shift))
    }
}

fn product(mantissa: i32, value: i32) -> i64 {
    i64::from(mantissa) * i64::from(value)
}

/// `u + g·(c − u)` in fixed point.
pub fn guide_fixed(unconditional: i32, conditional: i32, guidance: Guidance) -> i32 {
    let difference = i64::from(conditional) - i64::from(unconditional);
    saturate_i32(i64::from(unconditional) + round_shift(difference * i64::from(guidance.to_bits()), 16))
}

/// The same in the float precisions.
#[cfg(any(feature = "f16", feature = "f32"))]
pub fn guide_float(unconditional: f32, conditional: f32, guidance: Guidance) -> f32 {
    unconditional + guidance.to_f32() * (conditional - unconditional)
}

/// A value in [−1, 1] in fixed point as a byte, rounded.
pub fn byte_fixed(value: i32) -> u8 {
    const ONE: i32 = 1 << SAMPLE_BITS;
    let value = value.clamp(-ONE, ONE) + ONE;
    // At most 255·2²¹ + 2²⁰ < 2³⁰.
    ((value * 255 + ONE) >> (SAMPLE_BITS + 1)) as u8
}

/// A fixed-point value as a float.
#[cfg(any(feature = "f16", feature = "f32"))]
pub fn to_float(value: i32) -> f32 {
    value as f32 / (1 << SAMPLE_BITS) as f32
}

#[cfg(any(feature = "f16", feature = "f32"))]
impl Step<f32> for FloatStep {
    fn read(bytes: &[u8], at: usize) -> Self {
        FloatStep::read(bytes, at)
    }

    fn has_noise(&self) -> bool {
        self.next[3] != 0.0
    }

    fn clean(&self, x: f32, m: f32) -> f32 {
        let [a, b] = self.x0;
        (a * x + b * m).max(-self.clip).min(self.clip)
    }

    fn next(&self, Terms { x0, x, m, z }: Terms<f32>, history: [f32; 2]) -> f32 {
        let [p, q, r, s] = self.next;
        let mut next = p * x0 + q * x + r * m + s * z;
        if cfg!(feature = "history") {
            for (factor, kept) in self.history.into_iter().zip(history) {
                // Before there is a history its factor is zero; what memory holds may not be a number.
                if factor != 0.0 {
                    next += factor * kept;
                }
            }
        }
        next
    }
}

/// A value in [−1, 1] as a byte, rounded.
#[cfg(any(feature = "f16", feature = "f32"))]
pub fn byte_float(value: f32) -> u8 {
    // The cast saturates and takes NaN to 0.
    ((value + 1.0) * 127.5 + 0.5) as u8
}

#[cfg(test)]
mod tests;
