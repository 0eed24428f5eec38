//! Conditioning in the float precisions: `f32` vectors, weights in the model's storage type.

use super::{Outputs, Rows};
use crate::arch::dot_float;
use crate::float::{Float, activate};
use crate::format::{Embed, Linear};
use crate::ops::Context;

pub(crate) fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
    for (output, time, class) in Rows::bind(context, op, arena)?.elements() {
        *output = activate(op.activation(), time + class);
    }
    Some(())
}

pub(crate) fn linear<E: Float>(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
    let outputs = Outputs::<E, f32, f32>::bind(context, op, slice, arena)?;
    let rows = outputs.rows().zip(outputs.bias);
    for (output, (weights, &bias)) in outputs.output.iter_mut().zip(rows) {
        *output = bias + dot_float(weights, outputs.source);
    }
    Some(())
}
