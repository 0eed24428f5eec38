//! Bit for bit against the functions that define the arithmetic.

#[cfg(feature = "i8")]
#[test]
fn integers_are_those_of_fixed() {
    use crate::fixed;
    use crate::noise::philox;

    let edges = [i32::MIN, i32::MIN + 1, -(1 << 27), -65_536, -1, 0, 1, 255, 65_535, 65_536, 1 << 27, i32::MAX];
    for x in (-70_000..70_000).chain(edges).chain((0..5000).map(|i| philox([i, 1], [0; 4])[0] as i32)) {
        assert_eq!(super::silu(x), fixed::silu(x), "{x}");
    }
    for i in 0..20_000 {
        let words = philox([i, 2], [0; 4]).map(|word| word as i32);
        let [value, factor, summand, pick] = words.map(|word| if i % 3 == 0 { word >> 12 } else { word });
        let right = pick.unsigned_abs() % 32;
        assert_eq!(super::affine(value, factor, right, summand), fixed::affine(value, factor, right, summand));
        let shift = pick % 40;
        assert_eq!(super::requantize(value, factor, shift), fixed::requantize(value, factor, shift));
    }
}

/// The domain in steps of a prime, and the places where a branch of the definition begins.
#[cfg(all(any(feature = "f16", feature = "f32"), not(feature = "micromath")))]
#[test]
fn exponentials_are_those_of_libm() {
    let places = [0x3900_0000, 0x3EB1_7218, 0x3F85_1592, 0x42AE_AC50, 0x42B1_7218, 0x42CF_F1B5, 0x7F80_0000u32];
    let near = places.into_iter().flat_map(|at| at - 40..at + 40);
    for bits in (0..1u32 << 31).step_by(997).chain(near) {
        for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
            let (found, expected) = (super::exp(x), libm::expf(x));
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{x:e}");
        }
    }
}
