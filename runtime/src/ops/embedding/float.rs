//! Conditioning in the float precisions: `f32` vectors, weights in the model's storage type.

use crate::arch::dot_float;
use crate::float::{Float, silu};
use crate::format::{Embed, LINEAR_BLOCK, Linear};
use crate::ops::{Context, view, view_mut};

pub(crate) fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
    let output = context.tensor(op.output)?;
    let len = output.len();
    let row = |table: u32, row: u32| -> Option<&[f32]> {
        context.data(table.checked_add(row.checked_mul(4 * len as u32)?)?, len)
    };
    let time = row(context.schedule.embeddings, context.step)?;
    let class: &[f32] = if context.model.classes() == 0 { &[] } else { row(op.table, context.class.into())? };
    let output: &mut [f32] = view_mut(arena.get_mut(output.range())?)?;
    for (i, (output, &time)) in output.iter_mut().zip(time).enumerate() {
        *output = silu(time + class.get(i).copied().unwrap_or(0.0));
    }
    Some(())
}

pub(crate) fn linear<E: Float>(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
    let source = context.tensor(op.source)?;
    let output = context.tensor(op.output)?;
    let inputs = source.len();
    let weights: &[E] = context.data(op.weights, output.len() * inputs)?;
    let bias: &[f32] = context.data(op.bias, output.len())?;
    let [source, target] = arena.get_disjoint_mut([source.range(), output.range()]).ok()?;
    let source: &[f32] = view(source)?;
    let target: &mut [f32] = view_mut(target)?;
    let rows = weights.chunks_exact(inputs.max(1)).zip(bias).zip(target.iter_mut());
    for ((weights, &bias), target) in rows.skip(slice as usize * LINEAR_BLOCK).take(LINEAR_BLOCK) {
        *target = bias + dot_float(weights, source);
    }
    Some(())
}
