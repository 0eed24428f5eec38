//! Activations that are written out: of a normalized tensor, modulated by factors and summands of each channel, and added to a
//! residual. Slice `s` is pixels `8·s..`.
//!
//! Where an activation feeds one convolution and nothing lies between, the convolution's gather applies it instead. Robot
//! policies' residual blocks add *behind* the activation, and modulate there: so it becomes a tensor, as a rule in the place
//! of its input.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use core::ops::Range;

use bytemuck::Pod;

use super::{Context, tail, view};
use crate::format::{Activate, Element, Film, Tensor};
use crate::model::Model;

/// Pixels that a slice computes.
const PIXELS: usize = 8;

/// What a slice reads and writes; maps, factors and summands are of type `T`.
struct Bound<'a, T> {
    /// The affine map of each channel.
    maps: &'a [[T; 2]],
    /// Factors and summands of the step.
    step: [&'a [T]; 2],
    /// What the observation adds to them; empty if there is none.
    observed: [&'a [T]; 2],
    /// The input's pixels and their type; empty if they are at the output's place.
    source: (Element, &'a [u8]),
    /// The residual's pixels; empty if they are at the output's place. `None` without a residual.
    residual: Option<(Element, &'a [u8])>,
    output: (Element, &'a mut [u8]),
}

impl<'a, T: Pod> Bound<'a, T> {
    fn bind(context: &Context<'a>, op: &Activate, slice: u32, arena: &'a mut [u8]) -> Option<Self> {
        let (source, output) = (context.tensor(op.source)?, context.tensor(op.output)?);
        let residual = context.tensor(op.residual);
        let channels = usize::from(source.channels);
        let place = |tensor: &Tensor| {
            if tensor.offset == output.offset { 0..0 } else { pixels(tensor, slice) }
        };
        let kept = residual.map_or(0..0, place);
        let places = [context.range(op.norm), context.range(op.observed), place(source), kept, pixels(output, slice)];
        let [norm, observed, source_bytes, residual_bytes, output_bytes] = arena.get_disjoint_mut(places).ok()?;
        let (factors, len) = match op.film() {
            Film::None => (0, 0),
            Film::Shift => (0, channels),
            Film::ScaleShift => (channels, 2 * channels),
        };
        // Where there is nothing to read its offset is not looked at, and was not.
        let step = if len == 0 { &[] } else { context.data(context.biases_of_step() + op.film_at, len)? };
        let observed: &[T] = view(observed)?;
        Some(Self {
            maps: view::<T>(norm)?.as_chunks().0,
            step: step.split_at_checked(factors)?.into(),
            observed: [observed, tail(observed, factors)],
            source: (source.element(), source_bytes),
            residual: residual.map(|residual| (residual.element(), &*residual_bytes)),
            output: (output.element(), output_bytes),
        })
    }
}

/// The bytes in the arena of a slice's pixels.
fn pixels(tensor: &Tensor, slice: u32) -> Range<usize> {
    let pixel = usize::from(tensor.channels) * tensor.element().bytes();
    let count = usize::from(tensor.rows) * usize::from(tensor.columns);
    let first = (slice as usize * PIXELS).min(count);
    let end = (first + PIXELS).min(count);
    let start = tensor.offset as usize;
    start + first * pixel..start + end * pixel
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Activate) -> Option<u32> {
    let source = model.tensor_ref(op.source)?;
    Some((usize::from(source.rows) * usize::from(source.columns)).div_ceil(PIXELS) as u32)
}
