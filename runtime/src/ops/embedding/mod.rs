//! Conditioning: the vector of a step and a class, and its projections into the biases of convolutions.
//!
//! The time perceptron runs at export, for the steps of each schedule. What is left for the device is the sum with the
//! class row, the SiLU over it, which a class makes inseparable from the time, and one small linear map a residual
//! block. Slice `s` of a linear map computes outputs `32·s..`.

use bytemuck::Pod;

use super::{Context, view, view_mut};
use crate::format::{Embed, LINEAR_BLOCK, Linear};
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// The time row, the class row (none without classes) and the vector that they become.
struct Rows<'a, T> {
    time: &'a [T],
    class: &'a [T],
    output: &'a mut [T],
}

impl<'a, T: Pod + Default> Rows<'a, T> {
    fn bind(context: &Context<'a>, op: &Embed, arena: &'a mut [u8]) -> Option<Self> {
        let output = context.tensor(op.output)?;
        let len = output.len();
        let row = |table: u32, row: u32| -> Option<&'a [T]> {
            context.data(table.checked_add(row.checked_mul((size_of::<T>() * len) as u32)?)?, len)
        };
        Some(Self {
            time: row(context.schedule.embeddings, context.step)?,
            class: if context.model.classes() == 0 { &[] } else { row(op.table, context.class.into())? },
            output: view_mut(arena.get_mut(output.range())?)?,
        })
    }

    /// Each output with its time and class values; 0 without classes.
    fn elements(self) -> impl Iterator<Item = (&'a mut T, T, T)> {
        let mut class = self.class.iter();
        let elements = self.output.iter_mut().zip(self.time);
        elements.map(move |(output, &time)| (output, time, class.next().copied().unwrap_or_default()))
    }
}

/// What one slice of a linear map reads and writes: rows of weights `W`, the vector `X`, results `Y`.
struct Outputs<'a, W, X, Y> {
    source: &'a [X],
    /// One row for each output.
    weights: &'a [W],
    bias: &'a [Y],
    output: &'a mut [Y],
}

impl<'a, W: Pod, X: Pod, Y: Pod> Outputs<'a, W, X, Y> {
    fn bind(context: &Context<'a>, op: &Linear, slice: u32, arena: &'a mut [u8]) -> Option<Self> {
        let (source, output) = (context.tensor(op.source)?, context.tensor(op.output)?);
        let (inputs, outputs) = (source.len(), output.len());
        let range = outputs_of(slice, outputs);
        let [source, output] = arena.get_disjoint_mut([source.range(), output.range()]).ok()?;
        Some(Self {
            source: view(source)?,
            weights: context.data(op.weights, outputs * inputs)?.get(range.start * inputs..range.end * inputs)?,
            bias: context.data(op.bias, outputs)?.get(range.clone())?,
            output: view_mut(output)?.get_mut(range)?,
        })
    }

    /// The rows of weights.
    fn rows(&self) -> impl Iterator<Item = &'a [W]> + use<'a, W, X, Y> {
        self.weights.chunks_exact(self.source.len().max(1))
    }
}

/// The outputs that a slice computes, of `outputs` in all.
fn outputs_of(slice: u32, outputs: usize) -> core::ops::Range<usize> {
    let start = slice as usize * LINEAR_BLOCK;
    start..outputs.min(start + LINEAR_BLOCK)
}

/// Number of slices of a linear map.
pub(super) fn linear_slices(model: &Model<'_>, op: &Linear) -> Option<u32> {
    Some(model.tensor_ref(op.output)?.len().div_ceil(LINEAR_BLOCK) as u32)
}
