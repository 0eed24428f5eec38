//! What a classifier and its backward pass are made of besides convolutions: the SiLU, its derivative, and the gradient of the
//! class's log-probability. Slice `s` is row `s`.
//!
//! The chain rule's product is kept apart from the convolutions around it, because what it multiplies with is the input of the
//! forward pass' activation, which convolutions hold in their rings only.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use super::Context;
use crate::format::{Classifier, Element};
use crate::model::Model;

/// What a slice reads and writes.
struct Bound<'a> {
    source: &'a [u8],
    /// Empty if there is none.
    gradient: &'a [u8],
    output: (Element, &'a mut [u8]),
}

impl<'a> Bound<'a> {
    fn bind(context: &Context<'_>, op: &Classifier, slice: u32, arena: &'a mut [u8]) -> Option<Self> {
        let place = |id: u16| {
            let tensor = context.tensor(id)?;
            let row = tensor.row_bytes() as usize;
            let start = tensor.offset as usize + slice as usize * row;
            Some(start..start + row)
        };
        let places = [place(op.source)?, place(op.gradient).unwrap_or(0..0), place(op.output)?];
        let [source, gradient, output] = arena.get_disjoint_mut(places).ok()?;
        Some(Self { source, gradient, output: (context.tensor(op.output)?.element(), output) })
    }
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Classifier) -> Option<u32> {
    Some(model.tensor_ref(op.source)?.rows.into())
}
