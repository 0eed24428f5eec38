//! Gaussian noise that is the same number on every device: a counter-based generator and an integer quantile table.
//!
//! Draw `d` of element `i` of seed `s` is a pure function of `(s, d, i)`: Philox4x32-10 (Salmon et al., 2011, "Parallel
//! random numbers: as easy as 1, 2, 3") with key `(s mod 2³², s >> 32)` and counter `(i >> 2, d, 0, 0)` gives four
//! words; word `i & 3` becomes a Gaussian by the inverse of the normal distribution function in [`gaussian`]. Draw 0 is
//! the initial sample, draw `k + 1` the noise of step `k`. Elements count in (row, column, channel) order.

use crate::fixed::{round_shift, saturate_i32};
use crate::tables::GAUSSIAN;

/// Where a run takes its standard Gaussian numbers from.
pub trait Noise {
    /// Element `index` of draw `draw` in [`SAMPLE_BITS`](crate::fixed::SAMPLE_BITS) fractional bits; `None` if the
    /// source has no more, which ends the run with an error. A run asks for each element of a draw once, in ascending
    /// order, draws in ascending order; draws of steps without noise are skipped. Where a mask keeps elements of an
    /// [`Original`](crate::Original), their draw 0 is asked for again in each step, and ways back, see
    /// [`Original::resample`](crate::Original::resample), take draws from 2³² − 1 downwards.
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32>;
}

/// One block of Philox4x32-10.
pub const fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let mut round = 0;
    while round < 10 {
        let a = 0xD251_1F53 * c0 as u64;
        let b = 0xCD9E_8D57 * c2 as u64;
        (c0, c1, c2, c3) = ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// Maps a uniform word to a standard Gaussian in 20 fractional bits.
///
/// The top bit is the sign. The other 31 bits `v` give the tail probability `p = (v + ½)·2⁻³²` in (0, ½); its quantile
/// is interpolated linearly in a table with 16 segments per octave of `p`, within 3·10⁻⁴ of the true quantile down to
/// `p = 2⁻²⁵` (|z| = 5.42), where it ends.
pub fn gaussian(word: u32) -> i32 {
    let v = word & 0x7FFF_FFFF;
    let octave = v.leading_zeros().saturating_sub(1);
    // 2³¹ − (v + ½)·2^octave, rounded down: 0 at the top of the octave, 2³⁰ at its end.
    let normalized = (v << (octave & 31)) | ((1 << (octave & 31)) >> 1);
    let depth = 0x7FFF_FFFF_u32.wrapping_sub(normalized) & 0x7FFF_FFFF;
    let index = (octave as usize) * 16 + (depth >> 26) as usize;
    let magnitude = match (GAUSSIAN.get(index), GAUSSIAN.get(index + 1)) {
        (Some(&low), Some(&high)) => {
            let fraction = ((depth >> 13) & 0x1FFF) as i32;
            low + (((high - low) * fraction + 4096) >> 13)
        }
        _ => GAUSSIAN[GAUSSIAN.len() - 1],
    };
    if word >> 31 == 0 { magnitude } else { -magnitude }
}

/// The documented generator of a seed: the same numbers on every target.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Seed {
    key: [u32; 2],
    // The block that was computed last, with its (block, draw).
    at: Option<(u32, u32)>,
    words: [u32; 4],
}

impl Seed {
    /// The generator of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], at: None, words: [0; 4] }
    }
}

impl Noise for Seed {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        let at = (index >> 2, draw);
        if self.at != Some(at) {
            self.words = philox(self.key, [at.0, at.1, 0, 0]);
            self.at = Some(at);
        }
        self.words.get((index & 3) as usize).map(|&word| gaussian(word))
    }
}

/// Noise between that of two seeds, for pictures that change into one another: `cos(t·π/2)·z + sin(t·π/2)·z'`.
///
/// It is the spherical interpolation of directions that are orthogonal, as those of Gaussian vectors with many elements nearly
/// are (Shoemake, 1985, "Animating rotation with quaternion curves"; Song et al., 2020, arXiv:2010.02502, appendix D.5), and
/// standard Gaussian at every `t`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Between {
    seeds: [Seed; 2],
    /// With 30 fractional bits.
    weights: [i32; 2],
}

impl Between {
    /// From seed `from`, at `t` = 0, to seed `to`, at 1; `t` has 16 fractional bits, more than 1 counts as 1.
    pub const fn new(from: u64, to: u64, t: u32) -> Self {
        let t = if t > 1 << 16 { 1 << 16 } else { t };
        let weights = [sine_of_quarter((1 << 16) - t), sine_of_quarter(t)];
        Self { seeds: [Seed::new(from), Seed::new(to)], weights }
    }
}

impl Noise for Between {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        let [from, to] = &mut self.seeds;
        let (from, to) = (from.sample(draw, index)?, to.sample(draw, index)?);
        let sum = i64::from(self.weights[0]) * i64::from(from) + i64::from(self.weights[1]) * i64::from(to);
        Some(saturate_i32(round_shift(sum, 30)))
    }
}

/// sin(t·π/2) for `t` in 16 fractional bits from 0 to 1, with 30: Taylor's series to the 11th power, within 6·10⁻⁸; exact at
/// both ends.
const fn sine_of_quarter(t: u32) -> i32 {
    /// (π/2)^k/k! for odd k with 30 fractional bits, in turn positive and negative, the highest first.
    const TERMS: [i64; 6] = [-3_864, 172_272, -5_026_995, 85_569_306, -693_598_668, 1_686_629_713];
    if t >= 1 << 16 {
        return 1 << 30;
    }
    let (t, square) = (t as i64, t as i64 * t as i64);
    let mut sum = 0;
    let mut i = 0;
    while i < TERMS.len() {
        sum = ((sum * square) >> 32) + TERMS[i];
        i += 1;
    }
    ((sum * t) >> 16) as i32
}

/// The caller's numbers: consecutive draws of `len` elements each, in 20 fractional bits, (row, column, channel) order.
///
/// Draw 0 is the initial sample. Steps without noise (η = 0) take nothing, so for them one draw is enough.
#[derive(Clone, Debug)]
pub struct Given<'a> {
    values: &'a [i32],
    len: u32,
}

impl<'a> Given<'a> {
    /// `values` holds draws of `len` elements.
    pub const fn new(values: &'a [i32], len: u32) -> Self {
        Self { values, len }
    }
}

impl Noise for Given<'_> {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        let at = u64::from(draw) * u64::from(self.len) + u64::from(index);
        usize::try_from(at).ok().and_then(|at| self.values.get(at)).copied()
    }
}

/// Noise from uniform words that a function gives, a hardware generator's for example: each element takes one.
///
/// So every version of `rand_core` serves, and generators that implement none of its traits:
///
/// ```
/// use rand_core_06 as rand_core; // the same with 0.9
/// # struct Hardware;
/// # impl rand_core::RngCore for Hardware {
/// #     fn next_u32(&mut self) -> u32 { 7 }
/// #     fn next_u64(&mut self) -> u64 { 7 }
/// #     fn fill_bytes(&mut self, _: &mut [u8]) {}
/// #     fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), rand_core::Error> { Ok(()) }
/// # }
/// fn draw(session: &mut waft::Session, mut rng: impl rand_core::RngCore) -> Result<(), waft::Error> {
///     let noise = waft::noise::Words(|| rng.next_u32());
///     let mut run = session.sample_with(waft::Request::new().class(7), noise)?;
///     while run.step()?.is_some() {}
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Words<F>(pub F);

impl<F: FnMut() -> u32> Noise for Words<F> {
    fn sample(&mut self, _draw: u32, _index: u32) -> Option<i32> {
        Some(gaussian((self.0)()))
    }
}

/// Noise from any generator of `rand_core` 0.10: each element takes one word. For other versions see [`Words`].
#[cfg(feature = "rand_core")]
#[derive(Clone, Debug)]
pub struct Random<R>(pub R);

#[cfg(feature = "rand_core")]
impl<R: rand_core::Rng> Noise for Random<R> {
    fn sample(&mut self, _draw: u32, _index: u32) -> Option<i32> {
        Some(gaussian(self.0.next_u32()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Philox4x32-10, published with the paper's reference implementation.
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox([!0; 2], [!0; 4]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        let counter = [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344];
        let expected = [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1];
        assert_eq!(philox([0xA409_3822, 0x299F_31D0], counter), expected);
    }

    #[test]
    fn noise_does_not_depend_on_the_order_of_asking() {
        let mut forward = Seed::new(7);
        let mut backward = Seed::new(7);
        let ahead: [_; 100] = core::array::from_fn(|i| forward.sample(3, i as u32));
        let back: [_; 100] = core::array::from_fn(|i| backward.sample(3, 99 - i as u32));
        assert!(ahead.iter().eq(back.iter().rev()));
        assert_ne!(Seed::new(7).sample(3, 0), Seed::new(7).sample(4, 0));
        assert_ne!(Seed::new(7).sample(0, 0), Seed::new(7 + (1 << 32)).sample(0, 0));
    }

    #[test]
    fn noise_between_seeds_is_the_spherical_interpolation() {
        let mut seeds = [Seed::new(7), Seed::new(u64::MAX)];
        for t in [0, 1, 1_000, 20_000, 32_768, 50_000, 65_535, 65_536, 70_000] {
            let mut between = Between::new(7, u64::MAX, t);
            let angle = f64::from(t.min(65_536)) / 65_536.0 * core::f64::consts::FRAC_PI_2;
            let mut squares = 0.0;
            for index in 0..4_000 {
                let [from, to] = seeds.each_mut().map(|seed| f64::from(seed.sample(2, index).expect("endless")));
                let found = f64::from(between.sample(2, index).expect("endless"));
                let expected = libm::cos(angle) * from + libm::sin(angle) * to;
                assert!((found - expected).abs() <= 1.5, "{t}: {found}, not {expected}");
                squares += (found / f64::from(1 << 20)).powi(2);
            }
            // Four standard errors of a variance over as many numbers.
            assert!((squares / 4_000.0 - 1.0).abs() < 0.09, "{t}: variance {}", squares / 4_000.0);
        }
        assert_eq!(Between::new(3, 4, 0).sample(0, 9), Seed::new(3).sample(0, 9));
        assert_eq!(Between::new(3, 4, 1 << 16).sample(0, 9), Seed::new(4).sample(0, 9));
    }

    #[test]
    fn words_become_the_numbers_of_the_generator() {
        let mut block = philox([7, 0], [0, 3, 0, 0]).into_iter();
        let mut words = Words(|| block.next().unwrap_or(0));
        let mut seed = Seed::new(7);
        for index in 0..4 {
            assert_eq!(words.sample(3, index), seed.sample(3, index));
        }
    }

    #[test]
    fn given_noise_ends() {
        let values = [1, 2, 3, 4];
        let mut given = Given::new(&values, 2);
        assert_eq!(given.sample(0, 0), Some(1));
        assert_eq!(given.sample(1, 1), Some(4));
        assert_eq!(given.sample(2, 0), None);
        assert_eq!(given.sample(u32::MAX, u32::MAX), None);
    }
}
