//! In integers: activations with 15 fractional bits, factors with 20.

use super::Bound;
use crate::fixed::{
    RESIDUAL_BITS, SILU_BITS, activate, affine, requantize, round_shift, saturate_i8, saturate_i16, saturate_i32,
};
use crate::format::{Activate, Element, Film};
use crate::ops::Context;

/// Fractional bits of factors.
pub const FACTOR_BITS: u32 = 20;

/// Fractional bits of summands: those of activations.
pub const SUMMAND_BITS: u32 = SILU_BITS;

pub(crate) fn run(context: &Context<'_>, op: &Activate, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { maps, step, observed, source, residual, output } = Bound::<i32>::bind(context, op, slice, arena)?;
    let (element, bytes) = output;
    let width = element.bytes();
    let channels = maps.len().max(1);
    for (index, output) in bytes.chunks_exact_mut(width).enumerate() {
        let channel = index % channels;
        let read = |(element, bytes): (Element, &[u8])| {
            if bytes.is_empty() { value(output) } else { value(bytes.chunks_exact(element.bytes()).nth(index)?) }
        };
        let kept = match residual {
            Some(residual) => Some(read(residual)?),
            None => None,
        };
        let film = [0, 1].map(|part| {
            let of = |values: [&[i32]; 2]| values.get(part).and_then(|values| values.get(channel)).copied();
            of(step).unwrap_or_default().saturating_add(of(observed).unwrap_or_default())
        });
        let result = activated(op, read(source)?, *maps.get(channel)?, film, kept);
        match output {
            [byte] => *byte = saturate_i8(result) as u8,
            [low, high] => [*low, *high] = saturate_i16(result).to_le_bytes(),
            _ => return None,
        }
    }
    Some(())
}

/// An integer of one or two bytes.
fn value(bytes: &[u8]) -> Option<i32> {
    match *bytes {
        [byte] => Some((byte as i8).into()),
        [low, high] => Some(i16::from_le_bytes([low, high]).into()),
        _ => None,
    }
}

/// One result, to be saturated to the output's width, from the input, the channel's map, factor and summand, and what the
/// residual holds there.
#[inline(always)]
pub fn activated(op: &Activate, value: i32, [a, b]: [i32; 2], [scale, shift]: [i32; 2], kept: Option<i32>) -> i32 {
    let value = activate(op.activation(), affine(value, a, op.affine_shift, b));
    let value = match op.film() {
        Film::None => value,
        Film::Shift => value.saturating_add(shift),
        Film::ScaleShift => affine(value, scale, FACTOR_BITS, shift),
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
