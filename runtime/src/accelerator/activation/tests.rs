//! Bit for bit against the functions that define the arithmetic.

/// The domain in steps of a prime, and the places where a branch of the definition begins.
#[cfg(not(feature = "micromath"))]
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
