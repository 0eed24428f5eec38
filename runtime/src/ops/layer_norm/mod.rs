//! Normalization over the channels of each pixel: layer normalization (Ba et al., 2016, arXiv:1607.06450) and RMSNorm (Zhang and
//! Sennrich, 2019, arXiv:1910.07467), with what follows: an affine map, an activation, a sum. A slice is some pixels.
//!
//! A factor for each pixel cannot be applied by a convolution's gather, which knows one for each channel: so the result is a
//! tensor, as a rule in the place of the input.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use core::ops::Range;

use bytemuck::Pod;

use super::Context;
use crate::format::{Affine, Element, LayerNorm, Tensor};
use crate::model::Model;

/// Elements of a slice of more than one pixel, at most.
const SLICE_ELEMENTS: usize = 1 << 10;

/// What a slice reads and writes; factors and summands are of type `T`.
struct Bound<'a, T> {
    /// Factors of the channels.
    gamma: &'a [T],
    /// Summands of the channels.
    beta: &'a [T],
    /// The input's pixels and their type; empty if they are at the output's place.
    source: (Element, &'a [u8]),
    /// The residual's pixels; empty if they are at the output's place. `None` without a residual.
    residual: Option<(Element, &'a [u8])>,
    output: (Element, &'a mut [u8]),
}

impl<'a, T: Pod> Bound<'a, T> {
    fn bind(context: &Context<'a>, op: &LayerNorm, slice: u32, arena: &'a mut [u8]) -> Option<Self> {
        let (source, output) = (context.tensor(op.source)?, context.tensor(op.output)?);
        let residual = context.tensor(op.residual);
        let place = |tensor: &Tensor| {
            if tensor.offset == output.offset { 0..0 } else { pixels(tensor, slice) }
        };
        let places = [place(source), residual.map_or(0..0, place), pixels(output, slice)];
        let [source_bytes, residual_bytes, output_bytes] = arena.get_disjoint_mut(places).ok()?;
        let at = if matches!(op.affine(), Affine::Step) { context.biases_of_step() } else { 0 };
        let vector = |offset: u32| context.data(at + offset, source.channels.into());
        Some(Self {
            gamma: vector(op.gamma)?,
            beta: vector(op.beta)?,
            source: (source.element(), source_bytes),
            residual: residual.map(|residual| (residual.element(), &*residual_bytes)),
            output: (output.element(), output_bytes),
        })
    }
}

/// The bytes of one of some pixels, `channels` wide; those of `output` if there are none.
fn pixel<'a>((element, bytes): (Element, &'a [u8]), index: usize, channels: usize, output: &'a [u8]) -> &'a [u8] {
    if bytes.is_empty() {
        return output;
    }
    // On 32 bits the compiler does not see that the product is above 0.
    bytes.chunks_exact((channels * element.bytes()).max(1)).nth(index).unwrap_or_default()
}

/// The bytes in the arena of a slice's pixels.
fn pixels(tensor: &Tensor, slice: u32) -> Range<usize> {
    let bytes = usize::from(tensor.channels) * tensor.element().bytes();
    let [per_slice, count] = counts(tensor);
    let first = (slice as usize * per_slice).min(count);
    let end = (first + per_slice).min(count);
    let start = tensor.offset as usize;
    start + first * bytes..start + end * bytes
}

/// Pixels of a slice, and all there are.
fn counts(tensor: &Tensor) -> [usize; 2] {
    let per_slice = SLICE_ELEMENTS.checked_div(tensor.channels.into()).unwrap_or_default();
    [per_slice.max(1), usize::from(tensor.rows) * usize::from(tensor.columns)]
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &LayerNorm) -> Option<u32> {
    let [per_slice, count] = counts(model.tensor_ref(op.source)?);
    Some(count.div_ceil(per_slice) as u32)
}
