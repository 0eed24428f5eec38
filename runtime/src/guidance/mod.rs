//! Classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598): two model outputs, `c` for the class and `u` for none,
//! become `m = u + g·(c − u)`. Where a classifier guides (Dhariwal and Nichol, 2021, arXiv:2105.05233, algorithm 2), `c` is the sum
//! of `u` and the classifier's gradient, so that `g` is the gradient's scale, and both come from one network call. Where it is
//! rescaled, `m` is multiplied by a [factor](Spread::factor) then.

mod spread;

pub use spread::{FACTOR_BITS, Moments, Spread};

/// How far to go from the unconditional prediction towards the conditional one and beyond: 16 fractional bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Guidance(i32);

impl Guidance {
    /// The conditional prediction alone, at the cost of one network call a step.
    pub const NONE: Self = Self(1 << 16);

    /// `numerator / denominator`, saturated to ±32767; a denominator of 0 counts as 1.
    pub const fn from_ratio(numerator: i16, denominator: u16) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator as i64 };
        Self(((numerator as i64 * (1 << 17) / denominator + 1) >> 1) as i32)
    }

    /// The nearest representable scale; NaN counts as 0. Float arithmetic: call it in a constant on cores without.
    pub const fn from_f32(scale: f32) -> Self {
        let scaled = scale * 65536.0;
        Self((if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32)
    }

    /// From 16 fractional bits.
    pub const fn from_bits(bits: i32) -> Self {
        Self(bits)
    }

    /// In 16 fractional bits.
    pub const fn to_bits(self) -> i32 {
        self.0
    }

    /// As a float.
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub(crate) fn to_f32(self) -> f32 {
        self.0 as f32 / 65536.0
    }
}

impl Default for Guidance {
    fn default() -> Self {
        Self::NONE
    }
}

/// How far a guided output is brought back to the standard deviation that the conditional one has over the picture, which
/// keeps large scales from overexposing it (Lin et al., 2023, arXiv:2305.08891, equations 15 and 16, φ): 0 leaves it as it
/// is, 1 brings it all the way. 16 fractional bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rescale(u32);

impl Rescale {
    /// The guided output as it is.
    pub const NONE: Self = Self(0);

    /// `numerator / denominator`, at most 1; a denominator of 0 counts as 1.
    pub const fn from_ratio(numerator: u16, denominator: u16) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator as u32 };
        Self::from_bits(((numerator as u64 * (1 << 17) / denominator as u64 + 1) >> 1) as u32)
    }

    /// The nearest representable share between 0 and 1; NaN counts as 0. Float arithmetic: call it in a constant on cores
    /// without.
    pub const fn from_f32(share: f32) -> Self {
        // The cast saturates.
        Self::from_bits((share * 65536.0 + 0.5) as u32)
    }

    /// From 16 fractional bits; more than 1 counts as 1.
    pub const fn from_bits(bits: u32) -> Self {
        Self(if bits > 1 << 16 { 1 << 16 } else { bits })
    }

    /// In 16 fractional bits.
    pub const fn to_bits(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_is_rounded_and_saturated() {
        assert_eq!(Guidance::from_ratio(3, 2).to_bits(), 98_304);
        assert_eq!(Guidance::from_ratio(1, 3).to_bits(), 21_845);
        assert_eq!(Guidance::from_ratio(2, 3).to_bits(), 43_691);
        assert_eq!(Guidance::from_ratio(5, 0).to_bits(), 5 << 16);
        assert_eq!(Guidance::from_ratio(1, 1), Guidance::NONE);
        for scale in [-2.0f32, 0.0, 0.1, 1.0, 7.5] {
            assert_eq!(Guidance::from_f32(scale).to_bits(), (scale * 65_536.0).round() as i32);
        }
        assert_eq!(Guidance::from_f32(f32::NAN).to_bits(), 0);
        assert_eq!(Guidance::from_f32(f32::INFINITY).to_bits(), i32::MAX);
        #[cfg(any(feature = "f16", feature = "f32"))]
        for scale in [-2.0f32, 0.0, 1.0, 7.5] {
            assert_eq!(Guidance::from_f32(scale).to_f32(), scale);
        }
    }

    #[test]
    fn shares_are_rounded_and_stay_between_0_and_1() {
        assert_eq!(Rescale::from_ratio(7, 10).to_bits(), 45_875);
        assert_eq!(Rescale::from_ratio(2, 3).to_bits(), 43_691);
        assert_eq!(Rescale::from_ratio(3, 2).to_bits(), 65_536);
        assert_eq!(Rescale::from_ratio(0, 0), Rescale::NONE);
        for (share, bits) in [(0.7, 45_875), (-1.0, 0), (f32::NAN, 0), (2.0, 65_536), (f32::INFINITY, 65_536)] {
            assert_eq!(Rescale::from_f32(share).to_bits(), bits, "{share}");
        }
    }
}
