//! Convolution in the float precisions, see [`ops::conv2d`](crate::ops::conv2d::float).

use bytemuck::Pod;

use super::super::activation::silu_float;
use super::super::{Scratch, room};
use super::{Activation, Layer, block_of, gather, multiply, store};
use crate::arch::wide::{self, Instructions, Lanes, Sums, Wide, Window};
use crate::float::{Float, activate};
use crate::format::{self, Element, Gather, NONE};
use crate::ops::{Source, view, view_mut};

impl Activation for f32 {
    type Weight = f32;
    type Sum = f32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        wide.dot_floats::<N>(sums, window, weights);
    }
}

/// Chooses the type of stored activations.
pub(super) fn run(
    instructions: Instructions,
    layer: Layer<'_>,
    weights: &[f32],
    scratch: &mut Scratch,
    arena: &mut [u8],
) -> Option<()> {
    match layer.op.layout() {
        #[cfg(feature = "f16")]
        format::WeightLayout::Groups16 => {
            instructions.dispatch(Work { layer, weights, scratch, arena, stored: core::marker::PhantomData::<half::f16> })
        }
        _ => instructions.dispatch(Work { layer, weights, scratch, arena, stored: core::marker::PhantomData::<f32> }),
    }
}

/// A convolution, with all that it reads and writes.
struct Work<'a, 's, E> {
    layer: Layer<'a>,
    weights: &'a [f32],
    scratch: &'s mut Scratch,
    arena: &'s mut [u8],
    stored: core::marker::PhantomData<E>,
}

impl<E: Float> wide::Work for Work<'_, '_, E> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { layer, weights, scratch, arena, .. } = self;
        let Scratch { values, starts, row, maps, .. } = scratch;
        let input: &mut [f32] = room(values, layer.geometry.len());
        input.fill(0.0);
        for source in &layer.sources {
            let row = room(row, usize::from(source.tensor.columns) * usize::from(source.tensor.channels));
            let norm = layer.maps(source, arena)?;
            let maps = room(maps, 2 * row.len());
            let tensor = arena.get(source.tensor.range())?;
            if source.tensor.element() == Element::F32 {
                gather_source::<f32>(&layer, (source, norm), view(tensor)?, [input, row, maps])?;
            } else {
                gather_source::<E>(&layer, (source, norm), view(tensor)?, [input, row, maps])?;
            }
        }
        layer.geometry.starts(starts);
        let place = |tensor: Option<format::Tensor>| tensor.map_or(0..0, |tensor| tensor.range());
        let bias_tensor = layer.context.tensor(layer.op.bias_tensor);
        let residual = layer.residual();
        let [bias, kept, output] =
            arena.get_disjoint_mut([place(bias_tensor), place(residual), layer.output.range()]).ok()?;
        let bias: &[f32] = layer.bias(bias)?;
        let kept: Option<&[E]> = if residual.is_some() { Some(view(kept)?) } else { None };
        let operands = (starts.as_slice(), &*input, weights);
        // The sample is single precision in f16 and f32.
        if layer.output.element() == Element::F32 {
            compute::<f32, E, W>(wide, &layer, operands, (bias, kept), view_mut(output)?)
        } else {
            compute::<E, E, W>(wide, &layer, operands, (bias, kept), view_mut(output)?)
        }
    }
}

#[inline(always)]
fn gather_source<S: Float>(
    layer: &Layer<'_>,
    (source, norm): (&Source, &[[f32; 2]]),
    values: &[S],
    [input, row, maps]: [&mut [f32]; 3],
) -> Option<()> {
    let op = layer.op;
    let len = row.len();
    // The maps of a row's values, so that a row is one loop.
    let (factors, summands) = maps.split_at_mut_checked(len)?;
    for (factors, summands) in factors.chunks_mut(norm.len().max(1)).zip(summands.chunks_mut(norm.len().max(1))) {
        for ((factor, summand), &[a, b]) in factors.iter_mut().zip(summands).zip(norm) {
            (*factor, *summand) = (a, b);
        }
    }
    let values_of = |y: usize| values.get(y * len..(y + 1) * len).unwrap_or_default();
    let geometry = &layer.geometry;
    let (gain, offset) = (op.input_gain, op.input_offset);
    match op.gather() {
        Gather::Raw => gather(geometry, source, input, row, |y, target| {
            target.iter_mut().zip(values_of(y)).for_each(|(target, value)| *target = gain * value.to_f32() + offset);
        }),
        Gather::AffineSilu => gather(geometry, source, input, row, |y, target| {
            let maps = factors.iter().zip(&*summands);
            for ((target, value), (&a, &b)) in target.iter_mut().zip(values_of(y)).zip(maps) {
                *target = silu_float(value.to_f32() * a + b);
            }
        }),
        other => gather(geometry, source, input, row, |y, target| {
            let maps = factors.iter().zip(&*summands);
            for ((target, value), (&a, &b)) in target.iter_mut().zip(values_of(y)).zip(maps) {
                let value = value.to_f32() * a + b;
                *target = other.activation().map_or(value, |activation| activate(activation, value));
            }
        }),
    }
}

#[inline(always)]
fn compute<O: Float, E: Float, W: Wide>(
    wide: W,
    layer: &Layer<'_>,
    operands: (&[usize], &[f32], &[f32]),
    (bias, kept): (&[f32], Option<&[E]>),
    output: &mut [O],
) -> Option<()> {
    let Layer { op, geometry, .. } = layer;
    let outputs = geometry.outputs;
    multiply(wide, geometry, operands, |block| block_of(bias, block), |pixel, block, lanes| {
        let place = pixel * outputs..(pixel + 1) * outputs;
        let Some(output) = output.get_mut(place.clone()) else { return };
        if op.residual != NONE {
            let mut values = [0.0; crate::arch::wide::LANES];
            match kept {
                Some(kept) => read(&mut values, kept.get(place).unwrap_or_default(), block),
                None => read(&mut values, output, block),
            }
            lanes.iter_mut().zip(values).for_each(|(lane, kept)| *lane += op.residual_gain * kept);
        } else {
            // What the reference adds where nothing is kept.
            lanes.iter_mut().for_each(|lane| *lane += op.residual_gain * 0.0);
        }
        store(output, block, lanes, O::from_f32);
    })
}

/// A pixel's values of a block's channels.
#[inline(always)]
fn read<T: Pod + Float>(lanes: &mut Lanes<f32>, values: &[T], block: usize) {
    let values = values.get(block * lanes.len()..).unwrap_or_default();
    lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = value.to_f32());
}
