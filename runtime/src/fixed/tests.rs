//! Arithmetic against `f64` and `i128`.

use super::{HighWord, affine, affine_by_halves, exp2, multiply_high_by_halves};
use crate::noise::philox;

#[test]
fn powers_of_two_are_those_of_double_precision() {
    let dense = (-(32 << 24)..=32 << 24).step_by(997);
    let beside = (-32..=32).flat_map(|whole| [-1, 0, 1, (1 << 23) - 1, 1 << 23].map(|rest| (whole << 24) + rest));
    for x in dense.chain(beside) {
        let (mantissa, power) = exp2(x);
        let found = f64::from(mantissa) * f64::from(power - 30).exp2();
        let expected = (f64::from(x) / f64::from(1 << 24)).exp2();
        assert!((found / expected - 1.0).abs() < f64::from(-28).exp2(), "{x}: {found:e}, not {expected:e}");
        assert!((759_250_124..=1_518_500_250).contains(&mantissa), "{x}: {mantissa}");
    }
    assert_eq!([exp2(0), exp2(1 << 24), exp2(-5 << 24)], [(1 << 30, 0), (1 << 30, 1), (1 << 30, -5)]);
}

#[test]
fn maps_by_halves_are_exact() {
    let words = || (0..200).map(|i| philox([i, 2], [0; 4]));
    let values =
        || [-32_768, -32_767, -1, 0, 1, 32_767].into_iter().chain(words().map(|word| i32::from(word[0] as i16)));
    let factors =
        || [i32::MIN, -65_536, -1, 0, 1, 65_535, i32::MAX].into_iter().chain(words().map(|word| word[1] as i32));
    for (right, value) in (17..31).flat_map(|right| values().map(move |value| (right, value))) {
        for (factor, summand) in factors().flat_map(|factor| [i32::MIN, -5, 0, i32::MAX].map(|s| (factor, s))) {
            let found = affine_by_halves(value, factor, right, summand);
            assert_eq!(found, affine(value, factor, right, summand), "{value}·{factor} >> {right}, {summand}");
        }
    }
}

#[test]
fn values_with_room_are_requantized_by_the_high_word() {
    let (mut there, mut none) = (0, 0);
    for (shift, size) in (-34..34).flat_map(|shift| (0..32).map(move |size| (shift, size))) {
        let values: [i32; 4] = philox([size, 3], [0; 4]).map(|word| word as i32 >> size);
        let mut shifted = values;
        for multiplier in [1 << 30, i32::MAX, 1_234_567_890, -5] {
            shifted = values;
            let Some(high) = HighWord::with_room(&mut shifted, multiplier, shift) else { continue };
            there += 1;
            for (value, shifted) in values.into_iter().zip(shifted) {
                let right = 31 - shift.clamp(-31, 30);
                let product = i128::from(value) * i128::from(multiplier);
                assert_eq!(i128::from(high.scale(shifted)), (product + (1 << (right - 1))) >> right);
            }
        }
        none += u32::from(shifted == values && shift > -2);
    }
    assert!(there > 4000 && none > 100, "{there} {none}");
}

#[test]
fn products_of_halves_are_exact() {
    let edges = [i32::MIN, i32::MIN + 1, -65_537, -65_536, -65_535, -1, 0, 1, 65_535, 65_536, 65_537, i32::MAX];
    let random = (0..2000).flat_map(|i| philox([i, 0], [0; 4])).map(|word| word as i32);
    for a in edges.into_iter().chain(random) {
        for b in edges.into_iter().chain([a, !a, a.wrapping_mul(0x9E37_79B1u32 as i32)]) {
            let expected = ((i64::from(a) * i64::from(b)) >> 32) as i32;
            assert_eq!(multiply_high_by_halves(a, b), expected, "{a} {b}");
        }
    }
}

/// Whatever a model says of a raw source, a map is made without an overflow, or not at all.
#[cfg(not(no_long_multiply))]
#[test]
fn raw_maps_of_any_numbers_are_made_or_left() {
    for shift in [i32::MIN, -32, -31, -2, -1, 0, 11, 12, 30, i32::MAX - 1, i32::MAX] {
        for from in [i32::MIN, -65_536, -65_535, 0, 65_535, 65_536, i32::MAX] {
            for zero in [i32::MIN, -128, 0, 127, 1 << 30, i32::MAX] {
                let map = super::IntoRing::raw(from, [1 << 30, shift], zero);
                let fits = (-31..=11).contains(&shift) && (-65_535..=65_535).contains(&from);
                assert!(map.is_none() || fits, "{shift} {from} {zero}");
                assert!(
                    map.is_some() || !fits || zero.unsigned_abs() >= 1 << 30 || shift < -20,
                    "{shift} {from} {zero}"
                );
            }
        }
    }
}
