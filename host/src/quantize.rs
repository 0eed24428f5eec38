//! From real numbers to the integers of the `i8` precision: multipliers, ranges and weights.

use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Which values of a stream a uniform sample of it keeps, and where (Vitter, 1985, algorithm R). The draws do not depend on
/// the values, so that all streams share them.
#[derive(Debug)]
pub struct Reservoir {
    kept: usize,
    drawn: Mutex<Drawn>,
}

/// The draws for the first values of a stream.
#[derive(Debug)]
struct Drawn {
    state: u64,
    seen: u64,
    /// The values that take the place of another: how many came before, and which place.
    taken: Vec<(u64, usize)>,
}

impl Reservoir {
    /// For samples of `kept` values.
    pub fn new(kept: usize) -> Self {
        let drawn = Drawn { state: 0x2545_F491_4F6C_DD1D, seen: kept as u64, taken: vec![] };
        Self { kept, drawn: Mutex::new(drawn) }
    }

    /// The draws for as many values.
    fn until(&self, count: u64) -> MutexGuard<'_, Drawn> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let Drawn { mut state, mut seen, .. } = *drawn;
        while seen < count {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let place = state % (seen + 1);
            if place < self.kept as u64 {
                drawn.taken.push((seen, place as usize));
            }
            seen += 1;
        }
        (drawn.state, drawn.seen) = (state, seen);
        drawn
    }
}

/// What was seen of a tensor: its extremes and a sample of its values.
#[derive(Clone, Debug)]
pub struct Observer {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    seen: u64,
    /// Values that took the place of another.
    taken: usize,
    sample: Vec<f32>,
}

impl Default for Observer {
    /// Nothing seen.
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, seen: 0, taken: 0, sample: vec![] }
    }
}

impl Observer {
    /// Takes note of values, always with the same reservoir.
    pub fn observe(&mut self, values: &[f32], reservoir: &Reservoir) {
        self.observe_each(extremes(values), values.len(), |index| values[index], reservoir);
    }

    /// Takes note of `count` values and their extremes, and asks for those that it keeps.
    pub fn observe_each(
        &mut self,
        [min, max]: [f32; 2],
        count: usize,
        mut value: impl FnMut(usize) -> f32,
        reservoir: &Reservoir,
    ) {
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        let before = self.seen;
        self.seen += count as u64;
        self.sample.extend((0..count.min(reservoir.kept - self.sample.len())).map(&mut value));
        let drawn = reservoir.until(self.seen);
        while let Some(&(at, place)) = drawn.taken.get(self.taken).filter(|(at, _)| *at < self.seen) {
            self.sample[place] = value((at - before) as usize);
            self.taken += 1;
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
        let sample: Vec<f64> = self.sample.iter().step_by(stride).map(|&x| f64::from(x)).collect();
        let error = |s: &Scale| -> f64 {
            let inverse = 1.0 / s.scale;
            let zero = f64::from(s.zero);
            sample
                .iter()
                .map(|&x| {
                    // What is far outside is clamped before and after.
                    let q = (round_half_away((x * inverse).clamp(-1e6, 1e6)) + zero).clamp(-128.0, 127.0);
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

/// `f64::round` of numbers that fit an `i32`, without a call for each.
fn round_half_away(value: f64) -> f64 {
    let whole = f64::from(value as i32);
    whole + f64::from(i8::from(value - whole >= 0.5) - i8::from(value - whole <= -0.5))
}

/// The smallest and the largest of some numbers; infinities with the wrong signs if there are none.
pub fn extremes(values: &[f32]) -> [f32; 2] {
    const TOGETHER: usize = 8;
    let (mut min, mut max) = ([f32::INFINITY; TOGETHER], [f32::NEG_INFINITY; TOGETHER]);
    let (chunks, rest) = values.as_chunks::<TOGETHER>();
    for chunk in chunks {
        for (at, &value) in chunk.iter().enumerate() {
            min[at] = if value < min[at] { value } else { min[at] };
            max[at] = if value > max[at] { value } else { max[at] };
        }
    }
    let min = rest.iter().chain(&min).fold(f32::INFINITY, |min, &value| min.min(value));
    let max = rest.iter().chain(&max).fold(f32::NEG_INFINITY, |max, &value| max.max(value));
    [min, max]
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
        observer.observe(&(0..=8_000).map(|i| i as f32 / 2_000.0 - 1.0).collect::<Vec<_>>(), &Reservoir::new(1 << 15));
        let found = observer.asymmetric_i8(Ranges::Mse);
        assert!((found.scale * 255.0 - 4.0).abs() < 1e-6 && found.zero == -64, "{found:?}");
    }

    #[test]
    fn ranges_differ_in_what_they_give_up_for_resolution() {
        let mut observer = Observer::default();
        observer.observe(
            &(0..=20_000).map(|i| i as f32 / 10_000.0 - 1.0).chain([20.0]).collect::<Vec<_>>(),
            &Reservoir::new(1 << 15),
        );
        let width = |ranges| observer.asymmetric_i8(ranges).scale * 255.0;
        assert!((width(Ranges::MinMax) - 21.0).abs() < 1e-4);
        assert!((width(Ranges::Percentile) - 2.0).abs() < 1e-2);
        assert!(width(Ranges::Mse) < width(Ranges::MinMax));
    }

    /// Whatever the lengths of the pieces in which a stream comes.
    #[test]
    fn samples_are_those_of_algorithm_r() {
        const KEPT: usize = 50;
        let values: Vec<f32> = (0..20_000).map(|i| i as f32).collect();
        let (mut sample, mut state) = (values[..KEPT].to_vec(), 0x2545_F491_4F6C_DD1Du64);
        for (index, &value) in values.iter().enumerate().skip(KEPT) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if let Some(place) = sample.get_mut((state % (index as u64 + 1)) as usize) {
                *place = value;
            }
        }
        let reservoir = Reservoir::new(KEPT);
        for piece in [1, 7, 64, 20_000] {
            let mut observer = Observer::default();
            values.chunks(piece).for_each(|values| observer.observe(values, &reservoir));
            assert_eq!(
                (&observer.sample, observer.min, observer.max),
                (&sample, 0.0, 19_999.0),
                "in pieces of {piece}"
            );
        }
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let steps = (-4000..4000).map(|i| f64::from(i) / 16.0);
        for value in steps.flat_map(|x| [x, x.next_up(), x.next_down()]).chain([1e6, -1e6, 0.0, -0.0]) {
            assert_eq!(round_half_away(value), value.round(), "{value}");
        }
    }

    #[test]
    fn extremes_leave_out_what_is_no_number() {
        let values: Vec<f32> = (0..21).map(|i| if i % 5 == 0 { f32::NAN } else { (i * 7 % 20) as f32 }).collect();
        assert_eq!(extremes(&values), [1.0, 19.0]);
        assert_eq!(extremes(&[]), [f32::INFINITY, f32::NEG_INFINITY]);
    }
}
