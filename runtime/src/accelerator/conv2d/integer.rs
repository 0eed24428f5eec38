//! Convolution in the `i8` precision, see [`ops::conv2d`](crate::ops::conv2d::i8).

use bytemuck::Pod;

use super::super::activation::{affine, requantize, silu};
use super::super::packed::OFFSET;
use super::super::{Scratch, room};
use super::{Activation, Layer, block_of, gather, multiply, store};
use crate::arch::wide::{self, LANES, Lanes, Sums, Wide, Window};
use crate::fixed::{NORM_BITS, SILU_BITS, activate, saturate_i8, saturate_i16};
use crate::format::{self, Conv2d, Element, Gather, NONE};
use crate::ops::conv2d::i8::{raw_map, sum};
use crate::ops::{Source, view, view_mut};

/// An element of the padded input.
pub(super) trait Ring: Activation<Sum = i32> {
    /// The nearest, as it is stored.
    fn saturate(value: i32) -> Self;
}

impl Ring for u8 {
    #[inline(always)]
    fn saturate(value: i32) -> Self {
        (i32::from(saturate_i8(value)) + OFFSET) as u8
    }
}

impl Activation for u8 {
    type Weight = i8;
    type Sum = i32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        wide.dot_bytes::<N>(sums, window, weights);
    }
}

impl Ring for i16 {
    #[inline(always)]
    fn saturate(value: i32) -> Self {
        saturate_i16(value)
    }
}

impl Activation for i16 {
    type Weight = i16;
    type Sum = i32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        wide.dot_words::<N>(sums, window, weights);
    }
}

/// A convolution, with all that it reads and writes.
pub(super) struct Work<'a, 's, T: Activation> {
    pub(super) layer: Layer<'a>,
    pub(super) weights: &'a [T::Weight],
    pub(super) scratch: &'s mut Scratch,
    pub(super) arena: &'s mut [u8],
}

impl<T: Ring> wide::Work for Work<'_, '_, T> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { layer, weights, scratch, arena } = self;
        let Scratch { values, starts, row, maps, .. } = scratch;
        let input: &mut [T] = room(values, layer.geometry.len());
        // Rings of eight bits that are words here saturate all the same.
        let narrow = layer.context.tensor(layer.op.scratch)?.element() == Element::I8;
        let saturate = |value: i32| T::saturate(if narrow { i32::from(saturate_i8(value)) } else { value });
        input.fill(saturate(layer.op.ring_zero));
        for source in &layer.sources {
            let row = room(row, usize::from(source.tensor.columns) * usize::from(source.tensor.channels));
            let norm = layer.maps(source, arena)?;
            let maps = room(maps, 2 * row.len());
            let tensor = arena.get(source.tensor.range())?;
            let rows = Rows { op: layer.op, source, norm, saturate };
            match source.tensor.element() {
                Element::I8 => gather_source::<i8, T>(&layer, &rows, view(tensor)?, [input, row], maps)?,
                Element::I16 => gather_source::<i16, T>(&layer, &rows, view(tensor)?, [input, row], maps)?,
                Element::I32 => gather_source::<i32, T>(&layer, &rows, view(tensor)?, [input, row], maps)?,
                Element::F16 | Element::F32 => return None,
            }
        }
        layer.geometry.starts(starts);
        let place = |tensor: Option<format::Tensor>| tensor.map_or(0..0, |tensor| tensor.range());
        let bias_tensor = layer.context.tensor(layer.op.bias_tensor);
        let residual = layer.residual();
        let [bias, kept, output] =
            arena.get_disjoint_mut([place(bias_tensor), place(residual), layer.output.range()]).ok()?;
        let kept = residual.map(|tensor| Kept::new(tensor.element(), kept)).unwrap_or(Some(Kept::Output))?;
        let results = Results { layer: &layer, bias: layer.bias(bias)?, kept };
        let operands = (starts.as_slice(), &*input, weights);
        match layer.output.element() {
            Element::I8 => results.compute::<T, i8, W>(wide, operands, view_mut(output)?),
            Element::I16 => results.compute::<T, i16, W>(wide, operands, view_mut(output)?),
            Element::I32 => results.compute::<T, i32, W>(wide, operands, view_mut(output)?),
            Element::F16 | Element::F32 => None,
        }
    }
}

/// What the rows of a source meet on their way into the padded input.
struct Rows<'a, F> {
    op: &'a Conv2d,
    source: &'a Source,
    norm: &'a [[i32; 2]],
    saturate: F,
}

#[inline(always)]
fn gather_source<S: Pod + Into<i32>, T: Ring>(
    layer: &Layer<'_>,
    rows: &Rows<'_, impl Fn(i32) -> T>,
    values: &[S],
    [input, row]: [&mut [T]; 2],
    maps: &mut [i32],
) -> Option<()> {
    let Rows { op, source, norm, saturate } = rows;
    let len = row.len();
    // The maps of a row's values, so that a row is one loop.
    let (factors, summands) = maps.split_at_mut_checked(len)?;
    for (pixel, summands) in factors.chunks_mut(norm.len().max(1)).zip(summands.chunks_mut(norm.len().max(1))) {
        for ((factor, summand), &[a, b]) in pixel.iter_mut().zip(summands).zip(*norm) {
            (*factor, *summand) = (a, b);
        }
    }
    let [zero, multiplier, shift] = raw_map(op, source.index());
    let (gain, gain_shift, ring_zero, right) = (op.multiplier[0], op.shift[0], op.ring_zero, op.affine_shift);
    let values_of = |y: usize| values.get(y * len..(y + 1) * len).unwrap_or_default();
    let finish = |value: i32| saturate(requantize(value, gain, gain_shift).saturating_add(ring_zero));
    let geometry = &layer.geometry;
    match op.gather() {
        Gather::Raw if multiplier == 0 => gather(geometry, source, input, row, |y, target| {
            target.iter_mut().zip(values_of(y)).for_each(|(target, &value)| *target = saturate(value.into()));
        }),
        Gather::Raw => gather(geometry, source, input, row, |y, target| {
            for (target, &value) in target.iter_mut().zip(values_of(y)) {
                let value = requantize(value.into().saturating_sub(zero), multiplier, shift);
                *target = saturate(value.saturating_add(ring_zero));
            }
        }),
        Gather::AffineSilu => gather(geometry, source, input, row, |y, target| {
            let maps = factors.iter().zip(&*summands);
            for ((target, &value), (&a, &b)) in target.iter_mut().zip(values_of(y)).zip(maps) {
                *target = finish(silu(affine(value.into(), a, right, b)));
            }
        }),
        other => gather(geometry, source, input, row, |y, target| {
            let maps = factors.iter().zip(&*summands);
            for ((target, &value), (&a, &b)) in target.iter_mut().zip(values_of(y)).zip(maps) {
                let value = affine(value.into(), a, right, b);
                *target = finish(match other.activation() {
                    Some(activation) => activate(activation, value),
                    None => value.clamp(-(1 << 27), 1 << 27) << (SILU_BITS - NORM_BITS),
                });
            }
        }),
    }
}

/// What is added to the results.
enum Kept<'a> {
    /// What stands at the output's place, if there is a residual at all.
    Output,
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
}

impl<'a> Kept<'a> {
    fn new(element: Element, bytes: &'a [u8]) -> Option<Self> {
        match element {
            Element::I8 => view(bytes).map(Kept::I8),
            Element::I16 => view(bytes).map(Kept::I16),
            Element::I32 => view(bytes).map(Kept::I32),
            Element::F16 | Element::F32 => None,
        }
    }
}

/// An element of an output.
trait Stored: Pod + Into<i32> {
    fn nearest(value: i32) -> Self;
}

impl Stored for i8 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        saturate_i8(value)
    }
}

impl Stored for i16 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        saturate_i16(value)
    }
}

impl Stored for i32 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        value
    }
}

/// What turns accumulators into results.
struct Results<'a> {
    layer: &'a Layer<'a>,
    bias: &'a [i32],
    kept: Kept<'a>,
}

impl Results<'_> {
    #[inline(always)]
    fn compute<T: Ring, O: Stored, W: Wide>(
        &self,
        wide: W,
        operands: (&[usize], &[T], &[T::Weight]),
        output: &mut [O],
    ) -> Option<()> {
        let Layer { op, packed, geometry, .. } = self.layer;
        let outputs = geometry.outputs;
        let begin = |block: usize| {
            let (bias, excess) = (block_of(self.bias, block), block_of(&packed.excess, block));
            core::array::from_fn(|lane| bias[lane].wrapping_sub(excess[lane]))
        };
        multiply(wide, geometry, operands, begin, |pixel, block, lanes| {
            let Some(scale) = packed.scales.get(block) else { return };
            let place = pixel * outputs..(pixel + 1) * outputs;
            let Some(output) = output.get_mut(place.clone()) else { return };
            wide.requantize(lanes, scale);
            if op.residual != NONE {
                let mut kept: Lanes<i32> = match &self.kept {
                    Kept::Output => read(output, block),
                    Kept::I8(values) => read(values.get(place).unwrap_or_default(), block),
                    Kept::I16(values) => read(values.get(place).unwrap_or_default(), block),
                    Kept::I32(values) => read(values.get(place).unwrap_or_default(), block),
                };
                for (lane, kept) in lanes.iter_mut().zip(&mut kept) {
                    let kept = kept.saturating_sub(op.residual_zero);
                    *lane = sum(*lane, requantize(kept, op.residual_multiplier, op.residual_shift));
                }
            }
            store(output, block, lanes, |value| O::nearest(value.saturating_add(op.output_zero)));
        })
    }
}

/// A pixel's values of a block's channels.
#[inline(always)]
fn read<T: Copy + Into<i32>>(values: &[T], block: usize) -> Lanes<i32> {
    let values = values.get(block * LANES..).unwrap_or_default();
    if let Some(&values) = values.first_chunk::<LANES>() {
        return values.map(Into::into);
    }
    let mut lanes = [0; LANES];
    lanes.iter_mut().zip(values).for_each(|(lane, &value)| *lane = value.into());
    lanes
}
