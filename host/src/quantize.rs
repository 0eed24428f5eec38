//! From real numbers to the integers of the `i8` precision: multipliers, ranges and weights.

use waft::fixed::requantize;

use crate::rounding::Rounded;

/// A real factor as the (multiplier, shift) of [`requantize`]: `multiplier·2^(shift − 31)` with the multiplier in
/// [2³⁰, 2³¹), or smaller where the factor is below 2⁻³².
pub fn multiplier(real: f64) -> (i32, i32) {
    if real == 0.0 || !real.is_finite() {
        return (0, 0);
    }
    let mut shift = libm::log2(real.abs()).floor() as i32 + 1;
    shift = shift.clamp(-31, 30);
    let mut mantissa = (real * 2f64.powi(31 - shift)).round();
    if mantissa.abs() >= 2f64.powi(31) && shift < 30 {
        shift += 1;
        mantissa = (real * 2f64.powi(31 - shift)).round();
    }
    (mantissa.clamp(-2_147_483_648.0, 2_147_483_647.0) as i32, shift)
}

/// The real factor that a multiplier and a shift stand for.
pub fn real((multiplier, shift): (i32, i32)) -> f64 {
    f64::from(multiplier) * 2f64.powi(shift - 31)
}

/// `requantize` over a pair.
pub fn apply(value: i32, (multiplier, shift): (i32, i32)) -> i32 {
    requantize(value, multiplier, shift)
}

/// Integers that stand for reals: `scale·(q − zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Real value of one unit.
    pub scale: f64,
    /// Integer that means zero.
    pub zero: i32,
}

impl Scale {
    /// Symmetric: `peak` becomes `limit`.
    pub fn symmetric(peak: f64, limit: f64) -> Self {
        Self { scale: (peak / limit).max(1e-30), zero: 0 }
    }
}

/// How the range of an 8-bit activation follows from what was seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// From the smallest to the largest value.
    MinMax,
    /// Without the 0.01 % at each end.
    Percentile,
    /// The range of least squared error: clipping against resolution.
    #[default]
    Mse,
}

/// Share of the values that [`Ranges::Percentile`] gives up at each end.
const TAIL: f64 = 1e-4;

/// What was seen of a tensor: its extremes and a sample of its values.
#[derive(Clone, Debug)]
pub struct Observer {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    seen: u64,
    state: u64,
    kept: usize,
    sample: Vec<f32>,
}

impl Default for Observer {
    fn default() -> Self {
        Self::keeping(1 << 15)
    }
}

impl Observer {
    /// Nothing seen; keeps at most `kept` values.
    pub fn keeping(kept: usize) -> Self {
        let (min, max) = (f32::INFINITY, f32::NEG_INFINITY);
        Self { min, max, seen: 0, state: 0x2545_F491_4F6C_DD1D, kept, sample: vec![] }
    }

    /// Takes note of values; keeps a uniform sample of all of them (Vitter, 1985, algorithm R).
    pub fn observe(&mut self, values: impl IntoIterator<Item = f32>) {
        for value in values {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.seen += 1;
            if self.sample.len() < self.kept {
                self.sample.push(value);
            } else {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                let at = self.state % self.seen;
                if (at as usize) < self.kept {
                    self.sample[at as usize] = value;
                }
            }
        }
    }

    /// The largest magnitude, or a small positive number if nothing but zero was seen.
    pub fn peak(&self) -> f64 {
        let peak = f64::from(self.min.abs().max(self.max.abs()));
        if peak.is_finite() && peak > 0.0 { peak } else { 1e-6 }
    }

    /// Variance of the values.
    pub fn variance(&self) -> f64 {
        let count = self.sample.len().max(1) as f64;
        let mean = self.sample.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        self.sample.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count
    }

    /// The value below which a share of the sample lies.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.sample.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((share * last as f64).round() as usize).map_or(0.0, |&x| f64::from(x))
    }

    /// An 8-bit range.
    pub fn asymmetric_i8(&self, ranges: Ranges) -> Scale {
        let (low, high) = match ranges {
            Ranges::Percentile => (self.quantile(TAIL), self.quantile(1.0 - TAIL)),
            Ranges::MinMax | Ranges::Mse => (f64::from(self.min), f64::from(self.max)),
        };
        let (low, high) = (low.min(0.0), high.max(0.0));
        if !(high - low).is_finite() || high - low < 1e-12 {
            return Scale { scale: 1e-6, zero: 0 };
        }
        let all = if ranges == Ranges::Mse { (8, 24) } else { (1, 1) };
        let candidates =
            (0..all.0).flat_map(|l| (0..all.1).map(move |h| (1.0 - 0.04 * f64::from(l), 1.0 - 0.025 * f64::from(h))));
        let scales = candidates.map(|(l, h)| {
            let (low, high) = (low * l, high * h);
            let scale = (high - low) / 255.0;
            Scale { scale, zero: (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i32 }
        });
        self.best(scales)
    }

    /// A symmetric 8-bit range.
    pub fn symmetric_i8(&self, ranges: Ranges) -> Scale {
        let peak = match ranges {
            Ranges::Percentile => self.quantile(TAIL).abs().max(self.quantile(1.0 - TAIL).abs()).max(1e-6),
            Ranges::MinMax | Ranges::Mse => self.peak(),
        };
        let all = if ranges == Ranges::Mse { 40 } else { 1 };
        self.best((0..all).map(|i| Scale::symmetric(peak * (1.0 - 0.02 * f64::from(i)), 127.0)))
    }

    fn best(&self, scales: impl Iterator<Item = Scale>) -> Scale {
        let stride = (self.sample.len() / 8192).max(1);
        let error = |s: &Scale| -> f64 {
            let inverse = 1.0 / s.scale;
            let zero = f64::from(s.zero);
            self.sample
                .iter()
                .step_by(stride)
                .map(|&x| {
                    let x = f64::from(x);
                    let q = ((x * inverse).round() + zero).clamp(-128.0, 127.0);
                    let e = x - (q - zero) * s.scale;
                    e * e
                })
                .sum()
        };
        scales
            .map(|scale| (error(&scale), scale))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(Scale { scale: 1e-6, zero: 0 }, |(_, scale)| scale)
    }
}

/// Rounds every row of `weights` to the nearest integers of `bits` bits, in the scale of least squared error that is at
/// least `floors`. What that does to results is not known.
pub fn round(weights: &[f32], bits: u32, floors: &[f64]) -> Rounded {
    let taps = weights.len() / floors.len().max(1);
    let rows = weights.chunks_exact(taps).zip(floors).map(|(row, &floor)| round_row(row, bits, floor));
    let (integers, scales): (Vec<_>, Vec<_>) = rows.unzip();
    Rounded { integers: integers.concat(), scales, noise: 0.0 }
}

fn round_row(row: &[f32], bits: u32, floor: f64) -> (Vec<i8>, f64) {
    let most = f64::from((1 << (bits - 1)) - 1);
    let peak = row.iter().fold(0f64, |peak, &w| peak.max(f64::from(w).abs()));
    let quantized = |scale: f64| row.iter().map(move |&w| (f64::from(w) / scale).round().clamp(-most, most));
    let error =
        |scale: f64| -> f64 { quantized(scale).zip(row).map(|(q, &w)| (q * scale - f64::from(w)).powi(2)).sum() };
    let widest = (peak / most).max(floor).max(1e-30);
    let scale = (0..60)
        .map(|i| (widest * (1.0 - 0.01 * f64::from(i))).max(floor))
        .map(|scale| (error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(widest, |(_, scale)| scale);
    (quantized(scale).map(|q| q as i8).collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_are_within_half_a_unit_of_their_last_place() {
        for real_factor in [1e-9, 3.7e-5, 0.499_999_999_9, 0.5, 0.75, 1.0, 1.999_999_999, 2.0, 1234.5] {
            let found = real(multiplier(real_factor));
            assert!((found / real_factor - 1.0).abs() <= 2f64.powi(-31), "{real_factor}: {found}");
        }
        assert_eq!(multiplier(0.0), (0, 0));
        assert_eq!(multiplier(1.0), (1 << 30, 1));
        assert!((multiplier(2f64.powi(-40)).0 - (1 << 22)).abs() <= 1, "below 2^-32 precision is given up, not range");
    }

    #[test]
    fn uniform_values_get_their_whole_range() {
        let mut observer = Observer::default();
        observer.observe((0..=8_000).map(|i| i as f32 / 2_000.0 - 1.0));
        let found = observer.asymmetric_i8(Ranges::Mse);
        assert!((found.scale * 255.0 - 4.0).abs() < 1e-6 && found.zero == -64, "{found:?}");
    }

    #[test]
    fn ranges_differ_in_what_they_give_up_for_resolution() {
        let mut observer = Observer::default();
        observer.observe((0..=20_000).map(|i| i as f32 / 10_000.0 - 1.0).chain([20.0]));
        let width = |ranges| observer.asymmetric_i8(ranges).scale * 255.0;
        assert!((width(Ranges::MinMax) - 21.0).abs() < 1e-4);
        assert!((width(Ranges::Percentile) - 2.0).abs() < 1e-2);
        assert!(width(Ranges::Mse) < width(Ranges::MinMax));
    }
}
