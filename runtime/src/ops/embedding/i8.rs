//! 16-bit tables, vectors and weights: conditioning is where eight bits would show.

use super::{Outputs, Rows};
use crate::arch::dot_i16;
use crate::fixed::{activate, requantize, round_shift, saturate_i16, saturate_i32};
use crate::format::{Embed, Linear};
use crate::ops::Context;

/// Bits that a 64-bit sum of 16-bit products gives up on its way to 32 bits.
pub(crate) const LINEAR_SHIFT: u32 = 12;

pub(crate) fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
    for (output, time, class) in Rows::bind(context, op, arena)?.elements() {
        *output = activated(op, time, class);
    }
    Some(())
}

/// One element of the conditioning vector.
#[inline]
pub fn activated(op: &Embed, time: i16, class: i16) -> i16 {
    let value = activate(op.activation(), (i32::from(time) + i32::from(class)).wrapping_shl(op.input_shift));
    saturate_i16(saturate_i32(round_shift(value.into(), op.output_shift)))
}

pub(crate) fn linear(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
    let all = context.tensor(op.output)?.len();
    let outputs = Outputs::<i16, i16, i32>::bind(context, op, slice, arena)?;
    let requant: &[[i32; 2]] = context.data(op.requant, all)?.get(super::outputs_of(slice, all))?;
    let rows = outputs.rows().zip(outputs.bias).zip(requant);
    for (output, ((weights, &bias), &requant)) in outputs.output.iter_mut().zip(rows) {
        *output = projected(dot_i16(weights, outputs.source), requant, bias);
    }
    Some(())
}

/// One result of a linear map from its sum.
#[inline]
pub fn projected(sum: i64, [multiplier, shift]: [i32; 2], bias: i32) -> i32 {
    requantize(saturate_i32(round_shift(sum, LINEAR_SHIFT)), multiplier, shift).saturating_add(bias)
}
