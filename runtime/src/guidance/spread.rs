//! What rescaled guidance needs of whole pictures: how far the values of two model outputs spread.

use super::Rescale;
use crate::fixed::isqrt;

/// Fractional bits of [`Spread::factor`].
pub const FACTOR_BITS: u32 = 24;

/// Sums over the elements of a conditional model output and of the guided one, in 20 fractional bits. They are exact, so that
/// they are the same in whatever order they are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Elements, fewer than 2³¹.
    pub count: u32,
    /// Of the conditional and of the guided output.
    pub moments: [Moments; 2],
}

/// Sums over one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Of the values.
    pub sum: i64,
    /// Of the low and of the high words of their squares.
    pub squares: [u64; 2],
}

impl Moments {
    /// Takes a value into account.
    #[inline(always)]
    pub fn add(&mut self, value: i32) {
        let square = u64::from(value.unsigned_abs()).pow(2);
        self.sum = self.sum.wrapping_add(value.into());
        self.squares[0] = self.squares[0].wrapping_add(square & 0xFFFF_FFFF);
        self.squares[1] = self.squares[1].wrapping_add(square >> 32);
    }

    /// The variance of `count` values, times the square of that number: at most 2¹²³.
    #[inline(always)]
    fn variance(&self, count: u32) -> u128 {
        let squares = (u128::from(self.squares[1]) << 32).wrapping_add(self.squares[0].into());
        let sum = u128::from(self.sum.unsigned_abs());
        u128::from(count).wrapping_mul(squares).saturating_sub(sum.wrapping_mul(sum))
    }
}

impl Spread {
    /// Takes an element into account.
    #[inline(always)]
    pub fn add(&mut self, conditional: i32, guided: i32) {
        self.count = self.count.wrapping_add(1);
        self.moments[0].add(conditional);
        self.moments[1].add(guided);
    }

    /// `φ·σ_c/σ_m + 1 − φ` for the standard deviations of the conditional and of the guided output, with [`FACTOR_BITS`]
    /// fractional bits. The ratio is rounded down and at most 127; it counts as 1 where the guided output is the same
    /// everywhere.
    #[inline(always)]
    pub fn factor(&self, rescale: Rescale) -> i32 {
        const ONE: u64 = 1 << FACTOR_BITS;
        let [conditional, guided] = self.moments.map(|moments| moments.variance(self.count));
        let ratio = if guided == 0 { ONE } else { ratio(conditional, guided) };
        let share = u64::from(rescale.to_bits());
        ((share * ratio + ((1 << 16) - share) * ONE + (1 << 15)) >> 16) as i32
    }
}

/// `√v` for `v ≥ 1` as `mantissa·2^order` with the mantissa in [2³¹, 2³²), rounded down.
#[inline(always)]
fn root(v: u128) -> (u64, i32) {
    // An even shift brings v into [2⁶², 2⁶⁴).
    let zeros = v.leading_zeros() as i32;
    let left = (zeros - 64) & !1;
    let normal = if left >= 0 { v << (left & 127) } else { v >> (-left & 127) };
    (isqrt(normal as u64).into(), -left / 2)
}

/// `√conditional / √guided` with [`FACTOR_BITS`] fractional bits, rounded down, at most 127.
#[inline(always)]
fn ratio(conditional: u128, guided: u128) -> u64 {
    const MOST: u64 = 127 << FACTOR_BITS;
    if conditional == 0 {
        return 0;
    }
    let ((dividend, high), (divisor, low)) = (root(conditional), root(guided));
    // Between 2³⁰ and 2³², with 31 fractional bits and this order.
    let (quotient, order) = ((dividend << 31) / divisor.max(1), high - low);
    match order + FACTOR_BITS as i32 - 31 {
        right @ ..0 => quotient.checked_shr(right.unsigned_abs()).unwrap_or(0),
        left @ 0..8 => (quotient << left).min(MOST),
        _ => MOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{gaussian, philox};

    /// Equations 15 and 16 in double precision.
    fn expected(conditional: &[i32], guided: &[i32], share: f64) -> f64 {
        let deviation = |values: &[i32]| {
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt()
        };
        share * (deviation(conditional) / deviation(guided)).min(127.0) + 1.0 - share
    }

    fn factor(conditional: &[i32], guided: &[i32], rescale: Rescale) -> f64 {
        let mut spread = Spread::default();
        conditional.iter().zip(guided).for_each(|(&c, &m)| spread.add(c, m));
        f64::from(spread.factor(rescale)) / f64::from(1 << FACTOR_BITS)
    }

    #[test]
    fn factors_are_the_closed_form() {
        for (seed, [left, right]) in [[0, 0], [3, 0], [0, 3], [0, 6], [14, 14], [2, 15]].into_iter().enumerate() {
            let values = |stream: u32, right: u32| -> [i32; 300] {
                core::array::from_fn(|i| {
                    (gaussian(philox([seed as u32, stream], [i as u32, 0, 0, 0])[0]) >> right) + 999
                })
            };
            let (conditional, guided) = (values(0, left), values(1, right));
            for share in [0, 16_384, 45_875, 65_536] {
                let found = factor(&conditional, &guided, Rescale::from_bits(share));
                let expected = expected(&conditional, &guided, f64::from(share) / 65_536.0);
                assert!((found / expected - 1.0).abs() < 1e-4, "{left} {right} {share}: {found}, not {expected}");
                if left == right {
                    assert!((found / expected - 1.0).abs() < 1e-6, "{left} {share}: {found}, not {expected}");
                }
            }
        }
    }

    /// Half of the way is the mean of the ratio and of 1, rounded half up.
    #[test]
    fn shares_are_rounded() {
        let mut odd = 0;
        for conditional in 1..50 {
            let outputs = ([0, conditional, 7, 3], [0, 41, -9, 2]);
            let mut spread = Spread::default();
            outputs.0.iter().zip(outputs.1).for_each(|(&c, m)| spread.add(c, m));
            let [whole, half] = [1 << 16, 1 << 15].map(|share| spread.factor(Rescale::from_bits(share)));
            assert_eq!(half, (whole + (1 << FACTOR_BITS) + 1) >> 1);
            odd += whole & 1;
        }
        assert!(odd > 0, "nothing is rounded");
    }

    #[test]
    fn extremes_stay_in_range() {
        let full = Rescale::from_bits(1 << 16);
        let wide = [i32::MIN, i32::MAX, i32::MIN, i32::MAX];
        assert_eq!(factor(&wide, &wide, full), 1.0);
        assert_eq!(factor(&wide, &[0, 1, 0, 1], full), 127.0);
        assert_eq!(factor(&[7; 4], &wide, full), 0.0);
        assert_eq!(factor(&wide, &[7; 4], full), 1.0, "nothing to bring anywhere");
        assert_eq!(factor(&wide, &[0, 1, 0, 1], Rescale::NONE), 1.0);
        assert_eq!(Spread::default().factor(full), 1 << FACTOR_BITS);
        // As many as a picture may have.
        let most = Moments { sum: 0, squares: [0, (1 << 30) * (1 << 30)] };
        let spread = Spread { count: 1 << 30, moments: [most; 2] };
        assert_eq!(spread.factor(full), 1 << FACTOR_BITS);
    }
}
