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
mod tests {
    use super::*;

    /// Factors of the clean samples of two earlier steps, and these samples.
    const LOOK_BACK: [f64; 2] = [-0.75, 0.125];
    const EARLIER: [f64; 2] = [0.9, -1.0];

    /// `x0 = clamp(a·x + b·m)`, `x' = p·x0 + q·x + r·m + s·z + u·h₁ + v·h₂` in double precision.
    fn exact([a, b]: [f64; 2], [p, q, r, s]: [f64; 4], [x, m, z]: [f64; 3]) -> f64 {
        let x0 = (a * x + b * m).clamp(-1.0, 1.0);
        let history =
            if cfg!(feature = "history") { LOOK_BACK[0] * EARLIER[0] + LOOK_BACK[1] * EARLIER[1] } else { 0.0 };
        p * x0 + q * x + r * m + s * z + history
    }

    /// The next sample of a step.
    fn next<S: Copy, T: Step<S>>(step: &T, [x, m, z]: [S; 3], history: [S; 2]) -> S {
        step.next(Terms { x0: step.clean(x, m), x, m, z }, history)
    }

    /// DDIM with η = 1 from cumulative α 0.2 to 0.5, for a model that predicts noise, and the extremes of samples.
    fn coefficients() -> ([f64; 2], [f64; 4]) {
        let (now, next) = (0.2f64, 0.5f64);
        let sigma = ((1.0 - next) / (1.0 - now) * (1.0 - now / next)).sqrt();
        let x0 = [1.0 / now.sqrt(), -((1.0 - now) / now).sqrt()];
        // The direction is the predicted noise, re-derived from the clamped x0: ε = (x − √ᾱ·x0)/√(1 − ᾱ).
        let direction = (1.0 - next - sigma * sigma).sqrt() / (1.0 - now).sqrt();
        (x0, [next.sqrt() - direction * now.sqrt(), direction, 0.0, sigma])
    }

    const VALUES: [f64; 7] = [-5.5, -1.0, -0.3, 0.0, 0.7, 1.0, 5.5];

    #[test]
    fn steps_in_fixed_point_are_the_closed_form() {
        const ONE: f64 = (1 << SAMPLE_BITS) as f64;
        let (x0, factors) = coefficients();
        let fixed = |value: f64| (value * f64::from(1 << 24)).round() as i32;
        let step = FixedStep {
            clip: 1 << SAMPLE_BITS,
            x0: x0.map(fixed),
            x0_shift: 24,
            next: factors.map(fixed),
            next_shift: 24,
            history: LOOK_BACK.map(fixed),
            timestep: 0,
        };
        assert!(step.has_noise());
        for x in VALUES {
            for m in VALUES {
                for z in VALUES {
                    let bits = |value: f64| (value * ONE).round() as i32;
                    let found = f64::from(next(&step, [x, m, z].map(bits), EARLIER.map(bits))) / ONE;
                    let expected = exact(x0, factors, [x, m, z]);
                    // Half a unit for each rounding of operands, coefficients and results.
                    assert!((found - expected).abs() < 8.0 / ONE, "{x} {m} {z}: {found}, not {expected}");
                }
            }
        }
    }

    #[cfg(any(feature = "f16", feature = "f32"))]
    #[test]
    fn steps_in_single_precision_are_the_closed_form() {
        let (x0, factors) = coefficients();
        let single = |value: f64| value as f32;
        let step = FloatStep {
            clip: 1.0,
            x0: x0.map(single),
            next: factors.map(single),
            history: LOOK_BACK.map(single),
            ..bytemuck::Zeroable::zeroed()
        };
        for x in VALUES {
            for m in VALUES {
                for z in VALUES {
                    let found = f64::from(next(&step, [x, m, z].map(single), EARLIER.map(single)));
                    let expected = exact(x0, factors, [x, m, z]);
                    assert!((found - expected).abs() < 1e-5, "{x} {m} {z}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn bytes_are_rounded_and_saturated() {
        const ONE: i32 = 1 << SAMPLE_BITS;
        assert_eq!([i32::MIN, -ONE, 0, ONE, i32::MAX].map(Sample::to_byte), [0, 0, 128, 255, 255]);
        for byte in 0..=255 {
            let value = f64::from(byte) / 127.5 - 1.0;
            let bits = (value * f64::from(ONE)).round() as i32;
            assert_eq!(i32::from(bits.to_byte()), byte);
            assert_eq!(i32::from_byte(byte as u8), bits);
        }
    }

    #[test]
    fn noise_is_added_in_closed_form() {
        const ONE: f64 = (1 << SAMPLE_BITS) as f64;
        let bits = |value: f64, bits: u32| (value * 2f64.powi(bits as i32)).round() as i32;
        for (signal, noise) in [(0.0, 1.0), (0.6, 0.8), (1.0, 0.0), (2.0, -7.9)] {
            let level = Level { signal: bits(signal, LEVEL_BITS), noise: bits(noise, LEVEL_BITS) };
            for x0 in VALUES {
                for z in VALUES {
                    let found = f64::from(bits(x0, SAMPLE_BITS).noised(bits(z, SAMPLE_BITS), level)) / ONE;
                    let expected = signal * x0 + noise * z;
                    assert!((found - expected).abs() < 6.0 / ONE, "{signal} {noise} {x0} {z}: {found}, not {expected}");
                    #[cfg(any(feature = "f16", feature = "f32"))]
                    assert!((f64::from((x0 as f32).noised(z as f32, level)) - expected).abs() < 1e-5);
                }
            }
        }
        assert_eq!(i32::MAX.noised(i32::MAX, Level { signal: i32::MAX, noise: i32::MAX }), i32::MAX);
        assert_eq!(i32::MIN.noised(i32::MIN, Level { signal: i32::MIN, noise: 0 }), i32::MAX);
        assert_eq!(100.started(0), 100);
        assert_eq!(100.started(3 << (START_BITS - 1)), 150);
        assert_eq!(i32::MIN.started(i32::MAX), i32::MIN);
    }

    /// The threshold in double precision, and the sample clamped to it and divided by it.
    #[test]
    fn clean_samples_are_bounded_by_the_closed_form() {
        const ONE: f64 = (1 << SAMPLE_BITS) as f64;
        let bits = |value: f64| (value * ONE) as u32;
        for limit in [1.0, 1.5, 40.0, 2047.0, f64::INFINITY] {
            for [low, high] in [[0.0, 0.5], [0.9, 1.3], [1.3, 1.3], [7.5, 9.0], [1500.0, 2047.9]] {
                for weight in [0.0, 0.25, 0.985] {
                    let threshold = Threshold {
                        weight: (weight * f64::from(1 << WEIGHT_BITS)) as u32,
                        limit: (limit * ONE) as i32,
                        ..bytemuck::Zeroable::zeroed()
                    };
                    let s = (low + weight * (high - low)).clamp(1.0, limit);
                    let bound = i32::bound(threshold, [low, high].map(bits));
                    #[cfg(any(feature = "f16", feature = "f32"))]
                    let single = f32::bound(threshold, [low, high].map(|value| (value as f32).to_bits()));
                    for x in [0.0, 0.3, -1.0, 1.2, -8.0, 2000.0, -2047.9] {
                        let expected = f64::clamp(x, -s, s) / s;
                        let found = f64::from(((x * ONE) as i32).bounded(bound)) / ONE;
                        assert!((found - expected).abs() <= 2.0 / ONE, "{x} in {s}: {found}, not {expected}");
                        #[cfg(any(feature = "f16", feature = "f32"))]
                        assert!((f64::from((x as f32).bounded(single)) - expected).abs() < 1e-6, "{x} in {s}");
                    }
                }
            }
        }
        // Whatever the magnitudes are.
        for neighbours in [[0; 2], [u32::MAX; 2], [1 << 31; 2], [5, 4]] {
            let threshold =
                Threshold { weight: (1 << WEIGHT_BITS) - 1, limit: i32::MAX, ..bytemuck::Zeroable::zeroed() };
            assert!(i32::MIN.bounded(i32::bound(threshold, neighbours)) >= -(1 << SAMPLE_BITS) - 1);
        }
    }

    /// `z·2^(orders·(v − 1))` in double precision.
    #[test]
    fn variances_multiply_noise_by_the_closed_form() {
        const ONE: f64 = (1 << SAMPLE_BITS) as f64;
        for orders in [0, 1 << 21, 28_521_267, 33 << 23, 32 << ORDER_BITS] {
            let variance = Variance { orders };
            let orders = f64::from(orders) / f64::from(1 << ORDER_BITS);
            for v in [-1 << 20, -(3 << 19), -123_456, 0, (1 << 20) - 1, 1 << 20, 1_500_000, i32::MIN, i32::MAX] {
                for z in [0, 1_049, -(1 << 20), 2_831_156, i32::MAX] {
                    let [v_real, z_real] = [v, z].map(|fixed| f64::from(fixed) / ONE);
                    let expected = z_real * (orders * (v_real - 1.0)).clamp(-32.0, 16.0).exp2();
                    let found = f64::from(z.varied(v, variance)) / ONE;
                    let limited = expected.clamp(-2048.0, 2048.0 - 1.0 / ONE);
                    // The exponent has 24 fractional bits.
                    let allowed = 6e-8 * expected.abs() + 1.0 / ONE;
                    assert!((found - limited).abs() <= allowed, "{orders} {v} {z}: {found}, not {limited}");
                    #[cfg(any(feature = "f16", feature = "f32"))]
                    {
                        let found = f64::from((z_real as f32).varied(v_real as f32, variance));
                        assert!((found - expected).abs() <= 4e-6 * expected.abs() + 1e-9, "{orders} {v} {z}: {found}");
                    }
                }
            }
        }
        // Whatever they are.
        for orders in [i32::MIN, -1, i32::MAX] {
            for v in [i32::MIN, 0, i32::MAX] {
                assert_eq!(0.varied(v, Variance { orders }), 0);
                assert!(i32::MIN.varied(v, Variance { orders }) <= 0);
            }
        }
    }

    #[test]
    fn guidance_mixes_and_saturates() {
        let guide = <i32 as Sample>::guide;
        assert_eq!(guide(100, 300, Guidance::NONE), 300);
        assert_eq!(guide(100, 300, Guidance::from_ratio(0, 1)), 100);
        assert_eq!(guide(100, 300, Guidance::from_ratio(5, 2)), 600);
        assert_eq!(guide(i32::MIN, i32::MAX, Guidance::from_ratio(7, 1)), i32::MAX);
        assert_eq!(guide(i32::MAX, i32::MIN, Guidance::from_ratio(7, 1)), i32::MIN);
    }
}
