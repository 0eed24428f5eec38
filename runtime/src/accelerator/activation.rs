//! Elementwise functions without branches, so that the compiler makes vectors of them; each gives the bits of its namesake in
//! [`fixed`](crate::fixed) or [`float`](crate::float).

#[cfg(feature = "i8")]
pub(super) use integer::{affine, requantize, silu};

#[cfg(feature = "i8")]
mod integer {
    use crate::fixed::{NORM_BITS, SILU_BITS};
    use crate::tables::SILU_TAIL;

    /// The nearest `i32`.
    #[inline(always)]
    fn saturate(value: i64) -> i32 {
        value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
    }

    /// See [`fixed::affine`](crate::fixed::affine).
    #[inline(always)]
    pub(crate) fn affine(value: i32, factor: i32, right: u32, summand: i32) -> i32 {
        let right = right & 31;
        let product = i64::from(value) * i64::from(factor) + i64::from(1u32 << right >> 1);
        saturate((product >> right) + i64::from(summand))
    }

    /// See [`fixed::requantize`](crate::fixed::requantize).
    #[inline(always)]
    pub(crate) fn requantize(value: i32, multiplier: i32, shift: i32) -> i32 {
        let right = (31 - shift.clamp(-31, 30)) as u32;
        saturate((i64::from(value) * i64::from(multiplier) + (1i64 << (right - 1))) >> right)
    }

    /// Intervals of the table, and one behind, where nothing is left.
    const INTERVALS: usize = SILU_TAIL.len();

    /// For each interval where the tail starts, in the low half, and by how much it grows.
    static TAIL: [i32; INTERVALS.next_power_of_two()] = {
        let mut pairs = [0; INTERVALS.next_power_of_two()];
        let mut at = 0;
        while at + 1 < INTERVALS {
            let (low, high) = (SILU_TAIL[at] as i32, SILU_TAIL[at + 1] as i32);
            pairs[at] = low | (high - low) << 16;
            at += 1;
        }
        pairs
    };

    /// See [`fixed::silu`](crate::fixed::silu).
    #[inline(always)]
    pub(crate) fn silu(x: i32) -> i32 {
        const LIMIT: i32 = (1 << 27) - 1;
        let magnitude = x.unsigned_abs();
        let index = (magnitude >> 8).min(INTERVALS as u32 - 1) as usize;
        let pair = TAIL[index % TAIL.len()];
        let tail = (pair & 0xFFFF) + (((pair >> 16) * (magnitude & 255) as i32 + 128) >> 8);
        (x.clamp(0, LIMIT) << (SILU_BITS - NORM_BITS)) - tail
    }
}

/// See [`float::exp`](crate::float::exp): the same reduction and polynomial as `libm`'s (FreeBSD's `e_expf.c`).
#[cfg(all(any(feature = "f16", feature = "f32"), not(feature = "micromath")))]
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const INVERSE_LN2: f32 = f32::from_bits(0x3FB8_AA3B);
    const LN2_HIGH: f32 = f32::from_bits(0x3F31_7200);
    const LN2_LOW: f32 = f32::from_bits(0x35BF_BE8E);
    const P: [f32; 2] = [1.666_662_5e-1, -2.766_733_2e-3];
    // Beyond these powers are zero and infinite. What is no number goes through the sums.
    let bounded = x.clamp(-104.0, 89.0);
    let magnitude = bounded.abs();
    let rounded = (INVERSE_LN2 * bounded + 0.5f32.copysign(bounded)) as i32;
    let sign = if bounded < 0.0 { -1 } else { 1 };
    let power = if magnitude > f32::from_bits(0x3F85_1592) { rounded } else { sign };
    let power = if magnitude > f32::from_bits(0x3EB1_7218) { power } else { 0 };
    let high = bounded - power as f32 * LN2_HIGH;
    let low = power as f32 * LN2_LOW;
    let rest = high - low;
    let square = rest * rest;
    let c = rest - square * (P[0] + square * P[1]);
    let y = 1.0 + (rest * c / (2.0 - c) - low + high);
    // Two factors, of which only the second can round.
    let half = power >> 1;
    let two_to = |power: i32| f32::from_bits(((power + 127) << 23) as u32);
    let y = y * two_to(half) * two_to(power - half);
    if magnitude > f32::from_bits(0x3900_0000) { y } else { 1.0 + bounded }
}

/// See [`float::exp`](crate::float::exp).
#[cfg(all(any(feature = "f16", feature = "f32"), feature = "micromath"))]
pub(super) use crate::float::exp;

/// `x·sigmoid(x)`.
#[cfg(any(feature = "f16", feature = "f32"))]
#[inline(always)]
pub(super) fn silu_float(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests;
