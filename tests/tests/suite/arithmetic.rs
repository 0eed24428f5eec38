//! The integer arithmetic against `i128` and `f64`, over whole domains where they are small enough.

use proptest::prelude::*;
use waft::Noise;
use waft::arithmetic::requantize_each;
use waft::fixed::{
    activate, affine, exp2_neg, isqrt, requantize, round_shift, rsqrt_q16, saturate_i8, saturate_i16, saturate_i32,
};
use waft::format::Activation;
use waft::noise::{Seed, gaussian};
use waft_tests::oracle;

const EDGES: [i32; 11] =
    [i32::MIN, i32::MIN + 1, -(1 << 30), -65_537, -1, 0, 1, 65_535, 1 << 30, i32::MAX - 1, i32::MAX];

#[test]
fn requantize_at_the_edges() {
    for value in EDGES {
        for multiplier in EDGES {
            for shift in [i32::MIN, -64, -32, -31, -30, -1, 0, 1, 29, 30, 31, i32::MAX] {
                let expected = oracle::requantize(value.into(), multiplier, shift);
                assert_eq!(i64::from(requantize(value, multiplier, shift)), expected, "{value} {multiplier} {shift}");
                let mut each = [value; 3];
                requantize_each(&mut each, multiplier, shift);
                assert_eq!(each.map(i64::from), [expected; 3], "{value} {multiplier} {shift}");
            }
            for shift in [4, 5, 16, 29, 30] {
                for summand in EDGES {
                    let expected = affine_in_i128(value, multiplier, shift, summand);
                    assert_eq!(
                        affine(value, multiplier, shift, summand),
                        expected,
                        "{value} {multiplier} {shift} {summand}"
                    );
                }
            }
        }
    }
}

/// The nearest `i32` of `⌊value·factor/2^right + 1/2⌋ + summand`.
fn affine_in_i128(value: i32, factor: i32, right: u32, summand: i32) -> i32 {
    let product = i128::from(value) * i128::from(factor);
    let sum = ((product + (1i128 << (right - 1))) >> right) + i128::from(summand);
    sum.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn requantize_rounds_once(value: i32, multiplier: i32, shift in -40i32..40) {
        let expected = oracle::requantize(value.into(), multiplier, shift);
        prop_assert_eq!(i64::from(requantize(value, multiplier, shift)), expected);
        let mut each = [value];
        requantize_each(&mut each, multiplier, shift);
        prop_assert_eq!(i64::from(each[0]), expected);
    }

    #[test]
    fn affine_rounds_once_and_saturates(value: i32, factor: i32, right in 4u32..=30, summand: i32) {
        prop_assert_eq!(affine(value, factor, right, summand), affine_in_i128(value, factor, right, summand));
        // As normalizations have them.
        let (value, factor) = (value >> 16, factor >> 8);
        prop_assert_eq!(affine(value, factor, right, summand), affine_in_i128(value, factor, right, summand));
    }

    #[test]
    fn requantize_is_the_nearest_integer(value: i32, multiplier in (1i32 << 30)..=i32::MAX, shift in -31i32..0) {
        let real = f64::from(value) * f64::from(multiplier) * 2f64.powi(shift - 31);
        prop_assert!((f64::from(requantize(value, multiplier, shift)) - real).abs() <= 0.5 + 1e-6);
    }

    #[test]
    fn round_shift_is_half_up(value: i64, shift in 0u32..62) {
        let half = if shift == 0 { 0 } else { 1i128 << (shift - 1) };
        prop_assert_eq!(i128::from(round_shift(value, shift)), (i128::from(value) + half) >> shift);
    }

    #[test]
    fn roots(v: u64) {
        let root = u128::from(isqrt(v));
        prop_assert!(root * root <= v.into() && (root + 1) * (root + 1) > v.into());
        prop_assert_eq!(root, u128::from(v.isqrt()));
    }

    #[test]
    fn reciprocal_roots(bits in 0u32..64, low: u64) {
        let v = (1u64 << bits) | (low & ((1u64 << bits) - 1));
        let (mantissa, exponent) = rsqrt_q16(v);
        let found = f64::from(mantissa) * 2f64.powi(-exponent);
        let expected = 1.0 / (v as f64 / 65_536.0).sqrt();
        prop_assert!((found / expected - 1.0).abs() < 2f64.powi(-29), "{} {} {}", v, found, expected);
        prop_assert!((1 << 30..=1u32 << 31).contains(&mantissa));
    }

    #[test]
    fn saturation(value: i64) {
        prop_assert_eq!(i64::from(saturate_i32(value)), value.clamp(i32::MIN.into(), i32::MAX.into()));
        let narrow = value as i32;
        prop_assert_eq!(i32::from(saturate_i16(narrow)), narrow.clamp(-32768, 32767));
        prop_assert_eq!(i32::from(saturate_i8(narrow)), narrow.clamp(-128, 127));
    }
}

#[test]
fn squares_have_exact_roots() {
    for root in [0u64, 1, 2, 3, 65_535, 65_536, 0xFFFF_FFFE, 0xFFFF_FFFF] {
        assert_eq!(u64::from(isqrt(root * root)), root);
    }
    assert_eq!(isqrt(u64::MAX), u32::MAX);
    assert_eq!(rsqrt_q16(0), rsqrt_q16(1), "zero counts as the smallest variance");
}

#[test]
fn activations_over_their_whole_interesting_domain() {
    let bounds =
        [(Activation::Silu, 2.6e-4), (Activation::Relu, 1e-9), (Activation::Gelu, 4.1e-4), (Activation::Mish, 4.1e-4)];
    assert_eq!(bounds.len(), Activation::ALL.len());
    for (activation, bound) in bounds {
        let error = |x: i32, limited: i32| {
            let real = oracle::activated(activation, f64::from(limited) / 4096.0);
            (f64::from(activate(activation, x)) / 32_768.0 - real).abs()
        };
        let worst = (-(20 << 12)..=(20 << 12)).map(|x| error(x, x)).fold(0f64, f64::max);
        assert!(worst < bound, "{activation:?}: largest error {worst:e}");
        // Where nothing is interpolated a result is an entry of a table.
        let worst = (-(20 << 4)..=(20 << 4)).map(|i| error(i << 8, i << 8)).fold(0f64, f64::max);
        assert!(worst <= 0.5001 / 32_768.0, "{activation:?}: an entry is off by {worst:e}");
        for x in [i32::MIN, -(1 << 28), -(1 << 17), 1 << 17, 1 << 26, i32::MAX] {
            // Beyond 709 the definition's exponential is infinite.
            let limited = x.clamp(-(1 << 27) + 1, (1 << 27) - 1);
            let real = if limited > 0 { f64::from(limited) / 4096.0 } else { 0.0 };
            assert!((f64::from(activate(activation, x)) / 32_768.0 - real).abs() < bound, "{activation:?} of {x}");
        }
    }
}

#[test]
fn softmax_weights_over_their_whole_domain() {
    for bits in 1..=15u32 {
        for t in 0..(18 * 256) {
            let real = 2f64.powf(f64::from(bits) - f64::from(t) / 256.0);
            let error = (f64::from(exp2_neg(t, bits)) - real).abs();
            assert!(error <= 0.5 + real * 2f64.powi(-15), "2^({bits} − {t}/256): error {error}");
        }
        assert_eq!(exp2_neg(0, bits), 1 << bits);
        assert_eq!(exp2_neg(u32::MAX, bits), 0);
    }
}

/// Upper tail of the normal distribution.
fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

#[test]
fn gaussians_are_quantiles() {
    let mut worst = 0f64;
    // Every octave, and many places within each.
    let words = (0..31u32)
        .flat_map(|bit| (0..512u32).map(move |i| (1u32 << bit) + (((1u64 << bit) * u64::from(i)) >> 9) as u32));
    for word in words.filter(|&word| word >= 1 << 7) {
        let z = f64::from(gaussian(word)) / f64::from(1 << 20);
        let p = (f64::from(word) + 0.5) / 2f64.powi(32);
        // One Newton step from z to the quantile of p measures the error of z.
        let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        worst = worst.max(((tail(z) - p) / density).abs());
        assert_eq!(gaussian(word | 1 << 31), -gaussian(word));
    }
    assert!(worst < 3e-4, "largest error {worst:e}");
    let end = f64::from(gaussian(0)) / f64::from(1 << 20);
    assert!((tail(end) / 2f64.powi(-25) - 1.0).abs() < 1e-4, "the table ends at 2^-25: {end}");
    let words: Vec<i32> = (0..1 << 16).map(|i| gaussian(i << 15)).collect();
    assert!(words.windows(2).all(|pair| pair[0] >= pair[1]), "quantiles fall with the tail's probability");
}

#[test]
fn noise_has_the_moments_of_a_gaussian() {
    let mut seed = Seed::new(0x1234_5678_9ABC);
    let count = 1 << 20;
    let values: Vec<f64> = (0..count)
        .map(|i| f64::from(seed.sample(i >> 16, i & 0xFFFF).expect("endless")) / f64::from(1 << 20))
        .collect();
    let moment = |k: i32| values.iter().map(|z| z.powi(k)).sum::<f64>() / f64::from(count);
    // Four standard errors of the mean, the variance, the third and the fourth moment over 2^20 draws.
    assert!(moment(1).abs() < 4e-3, "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 6e-3, "variance {}", moment(2));
    assert!(moment(3).abs() < 16e-3, "third moment {}", moment(3));
    assert!((moment(4) - 3.0).abs() < 40e-3, "fourth moment {}", moment(4));
}
