//! 16-bit tables, vectors and weights: conditioning is where eight bits would show.

use crate::arch::dot_i16;
use crate::fixed::{requantize, round_shift, saturate_i16, saturate_i32, silu};
use crate::format::{Embed, LINEAR_BLOCK, Linear};
use crate::ops::{Context, view, view_mut};

/// Bits that a 64-bit sum of 16-bit products gives up on its way to 32 bits.
pub(crate) const LINEAR_SHIFT: u32 = 12;

pub(crate) fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
    let output = context.tensor(op.output)?;
    let len = output.len();
    let row = |table: u32, row: u32| -> Option<&[i16]> {
        context.data(table.checked_add(row.checked_mul(2 * len as u32)?)?, len)
    };
    let time = row(context.schedule.embeddings, context.step)?;
    let class: &[i16] = if context.model.classes() == 0 { &[] } else { row(op.table, context.class.into())? };
    let output: &mut [i16] = view_mut(arena.get_mut(output.range())?)?;
    for (i, (output, &time)) in output.iter_mut().zip(time).enumerate() {
        *output = activated(op, time, class.get(i).copied().unwrap_or(0));
    }
    Some(())
}

/// One element of the conditioning vector.
#[inline]
pub fn activated(op: &Embed, time: i16, class: i16) -> i16 {
    let value = silu((i32::from(time) + i32::from(class)).wrapping_shl(op.input_shift));
    saturate_i16(saturate_i32(round_shift(value.into(), op.output_shift)))
}

pub(crate) fn linear(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
    let source = context.tensor(op.source)?;
    let output = context.tensor(op.output)?;
    let inputs = source.len();
    let weights: &[i16] = context.data(op.weights, output.len() * inputs)?;
    let bias: &[i32] = context.data(op.bias, output.len())?;
    let requant: &[[i32; 2]] = context.data(op.requant, output.len())?;
    let [source, target] = arena.get_disjoint_mut([source.range(), output.range()]).ok()?;
    let source: &[i16] = view(source)?;
    let target: &mut [i32] = view_mut(target)?;
    let rows = weights.chunks_exact(inputs.max(1)).zip(bias).zip(requant).zip(target.iter_mut());
    for (((weights, &bias), &requant), target) in rows.skip(slice as usize * LINEAR_BLOCK).take(LINEAR_BLOCK) {
        *target = projected(dot_i16(weights, source), requant, bias);
    }
    Some(())
}

/// One result of a linear map from its sum.
#[inline]
pub fn projected(sum: i64, [multiplier, shift]: [i32; 2], bias: i32) -> i32 {
    requantize(saturate_i32(round_shift(sum, LINEAR_SHIFT)), multiplier, shift).saturating_add(bias)
}
