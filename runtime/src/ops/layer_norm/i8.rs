//! In integers: exact sums, an integer reciprocal square root, normalized values with 16 fractional bits.

use super::{Bound, pixel};
use crate::fixed::{
    NORM_BITS, RESIDUAL_BITS, SILU_BITS, activate, divide, divide_signed, requantize, round_shift, rsqrt_q16,
    saturate_i8, saturate_i16, saturate_i32, scale_by_power,
};
use crate::format::{Center, LayerNorm};
use crate::ops::Context;

/// Fractional bits of a normalized value before the affine map.
const NORMALIZED_BITS: u32 = 16;
/// Fractional bits of factors.
const FACTOR_BITS: u32 = 20;
/// Fractional bits of a mean.
const MEAN_BITS: u32 = 12;

pub(crate) fn run(context: &Context<'_>, op: &LayerNorm, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { gamma, beta, source, residual, output } = Bound::<i32>::bind(context, op, slice, arena)?;
    let channels = gamma.len().max(1);
    let (element, bytes) = output;
    let width = element.bytes();
    for (index, output) in bytes.chunks_exact_mut((channels * width).max(1)).enumerate() {
        let mut sums = Sums::default();
        let values = pixel(source, index, channels, output).chunks_exact(source.0.bytes());
        values.for_each(|value| sums.add(integer(value).wrapping_sub(op.zero)));
        let statistics = sums.statistics(op, channels as u64)?;
        for (channel, (&gamma, &beta)) in gamma.iter().zip(beta).enumerate() {
            let read = |of: (_, _)| {
                let bytes = pixel(of, index, channels, output);
                Some(integer(bytes.chunks_exact(of.0.bytes()).nth(channel)?))
            };
            let kept = match residual {
                Some(residual) => Some(read(residual)?),
                None => None,
            };
            let result = normalized(op, statistics, read(source)?, [gamma, beta], kept);
            match output.chunks_exact_mut(width).nth(channel)? {
                [byte] => *byte = saturate_i8(result) as u8,
                [low, high] => [*low, *high] = saturate_i16(result).to_le_bytes(),
                _ => return None,
            }
        }
    }
    Some(())
}

/// An integer of one or two bytes.
fn integer(bytes: &[u8]) -> i32 {
    match *bytes {
        [byte] => (byte as i8).into(),
        [low, high] => i16::from_le_bytes([low, high]).into(),
        _ => 0,
    }
}

/// Sums over the channels of a pixel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    values: i64,
    squares: u64,
}

impl Sums {
    /// Adds a value, less the zero point.
    #[inline(always)]
    pub fn add(&mut self, value: i32) {
        self.values = self.values.wrapping_add(value.into());
        self.squares = self.squares.wrapping_add((i64::from(value) * i64::from(value)) as u64);
    }

    /// What they say of `count` channels; `None` if there are none.
    #[inline(always)]
    pub fn statistics(&self, op: &LayerNorm, count: u64) -> Option<Statistics> {
        let sum = match op.center() {
            Center::Zero => 0,
            Center::Mean => self.values,
        };
        // Mean square and mean with 16 fractional bits.
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        let mean_square = divide(self.squares << 16, count);
        let mean = divide_signed(sum << 16, count);
        let variance = mean_square.saturating_sub(((mean * mean) >> 16) as u64);
        let (mantissa, exponent) = rsqrt_q16(variance.saturating_add(op.epsilon_q16));
        Some(Statistics { mean: round_shift(mean, 16 - MEAN_BITS), mantissa, exponent })
    }
}

/// What the channels of a pixel are normalized by.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// With [`MEAN_BITS`].
    mean: i64,
    /// One over the deviation: `mantissa·2^(−exponent)`.
    mantissa: u32,
    exponent: i32,
}

/// One result, to be saturated to the output's width, from the input, the channel's factor and summand, and what the residual
/// holds there.
#[inline(always)]
pub fn normalized(
    op: &LayerNorm,
    statistics: Statistics,
    value: i32,
    [gamma, beta]: [i32; 2],
    kept: Option<i32>,
) -> i32 {
    let Statistics { mean, mantissa, exponent } = statistics;
    let deviation = (i64::from(value.wrapping_sub(op.zero)) << MEAN_BITS).wrapping_sub(mean);
    // A deviation has at most 30 bits, the mantissa 32; a normalized value is at most the root of the number of channels.
    let by = exponent + MEAN_BITS as i32 - NORMALIZED_BITS as i32;
    let normalized = saturate_i32(scale_by_power(deviation.wrapping_mul(mantissa.into()), by));
    let mapped = round_shift(i64::from(normalized) * i64::from(gamma), NORMALIZED_BITS + FACTOR_BITS - NORM_BITS);
    let mapped = saturate_i32(mapped.saturating_add(beta.into()));
    let value = match op.gather().activation() {
        Some(activation) => activate(activation, mapped),
        None => mapped.saturating_mul(1 << (SILU_BITS - NORM_BITS)),
    };
    let value = requantize(value, op.multiplier, op.shift);
    let value = match kept {
        None => value,
        Some(kept) => {
            let kept = requantize(kept.saturating_sub(op.residual_zero), op.residual_multiplier, op.residual_shift);
            saturate_i32(round_shift(i64::from(value) + i64::from(kept), RESIDUAL_BITS))
        }
    };
    value.saturating_add(op.output_zero)
}
