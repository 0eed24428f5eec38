//! Elementwise functions without branches, so that the compiler makes vectors of them; each gives the bits of its namesake in
//! [`float`](crate::float).

/// See [`float::exp`](crate::float::exp): the same reduction and polynomial as `libm`'s (FreeBSD's `e_expf.c`).
#[cfg(not(feature = "micromath"))]
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
#[cfg(feature = "micromath")]
pub(super) use crate::float::exp;

/// `x·sigmoid(x)`.
#[inline(always)]
pub(super) fn silu_float(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests;
