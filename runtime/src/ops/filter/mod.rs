//! Cubic resampling of each channel along the rows, with reflected ends (diffusers' `Downsample1d` and `Upsample1d`). A slice is
//! some pixels of the result.
//!
//! It is no convolution: these see zeros behind the ends of a row. The taps are multiples of 1/256, so that sums are exact.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use core::ops::Range;

use super::Context;
use crate::format::{Element, Filter, Resampling, Tensor};
use crate::model::Model;

/// Elements of a slice of more than one pixel, at most.
const SLICE_ELEMENTS: usize = 1 << 9;

/// What a slice reads and writes.
struct Bound<'a> {
    channels: usize,
    /// Columns of a row of the input and of the result.
    columns: [usize; 2],
    /// Number of the first pixel.
    first: usize,
    source: (Element, &'a [u8]),
    output: (Element, &'a mut [u8]),
}

impl<'a> Bound<'a> {
    fn bind(context: &Context<'_>, op: &Filter, slice: u32, arena: &'a mut [u8]) -> Option<Self> {
        let (source, output) = (context.tensor(op.source)?, context.tensor(op.output)?);
        let pixels = pixels(output, slice);
        let width = usize::from(output.channels) * output.element().bytes();
        let start = output.offset as usize;
        let place = start + pixels.start * width..start + pixels.end * width;
        let [source_bytes, output_bytes] = arena.get_disjoint_mut([source.range(), place]).ok()?;
        Some(Self {
            channels: source.channels.into(),
            columns: [source.columns.into(), output.columns.into()],
            first: pixels.start,
            source: (source.element(), source_bytes),
            output: (output.element(), output_bytes),
        })
    }

    /// Where the taps of element `index` of the slice lie: a tap's weight, times 256 or 128, and the number of the element.
    fn taps(&self, op: &Filter, index: usize) -> Option<impl Iterator<Item = (i32, usize)>> {
        let [columns, results] = self.columns;
        let (pixel, channel) = (self.first + index.checked_div(self.channels)?, index.checked_rem(self.channels)?);
        let (row, column) = (pixel.checked_div(results)?, pixel.checked_rem(results)?);
        let (first, channels) = (row * columns, self.channels);
        let taps = taps(op.resampling(), column as i32);
        Some(taps.map(move |(weight, column)| {
            (weight, (first + reflected(column, columns as i32) as usize) * channels + channel)
        }))
    }
}

/// The taps of a column of the result: weights, times 256 where maps are halved and times 128 where they are doubled, and columns
/// of the input, before they are reflected.
#[inline(always)]
pub fn taps(resampling: Resampling, column: i32) -> impl Iterator<Item = (i32, i32)> {
    let (count, first, step, from) = match resampling {
        Resampling::Halve => (8, 0, 1, 2 * column - 3),
        Resampling::Double => (4, 7 - (column & 1), -2, (column >> 1) - 2 + (column & 1)),
    };
    (0..count).map(move |number| {
        let tap = first + step * number;
        let weight = match if tap > 3 { 7 - tap } else { tap } {
            0 => -3,
            1 => -9,
            2 => 29,
            _ => 111,
        };
        (weight, from + number)
    })
}

/// A column, reflected where it lies beyond an end of a row of so many.
#[inline(always)]
pub fn reflected(column: i32, columns: i32) -> i32 {
    let column = column.abs();
    if column < columns { column } else { 2 * (columns - 1) - column }
}

/// The pixels of a slice.
fn pixels(output: &Tensor, slice: u32) -> Range<usize> {
    let [per_slice, count] = counts(output);
    let first = (slice as usize * per_slice).min(count);
    first..(first + per_slice).min(count)
}

/// Pixels of a slice, and all there are.
fn counts(output: &Tensor) -> [usize; 2] {
    let per_slice = SLICE_ELEMENTS.checked_div(output.channels.into()).unwrap_or_default();
    [per_slice.max(1), usize::from(output.rows) * usize::from(output.columns)]
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Filter) -> Option<u32> {
    let [per_slice, count] = counts(model.tensor_ref(op.output)?);
    Some(count.div_ceil(per_slice) as u32)
}
