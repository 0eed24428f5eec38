//! Convolution in the float precisions, see [`ops::conv2d`](crate::ops::conv2d::float).

use core::marker::PhantomData;
use std::vec::Vec;

use bytemuck::Pod;

use super::super::activation::silu_float;
use super::super::threads::Team;
use super::super::{Scratch, room};
use super::{
    Activation, Finish, Geometry, InputBand, Layer, OutputBand, Transform, block_of, gather, multiply, spread,
};
use crate::arch::wide::{self, Instructions, LANES, Lanes, PANEL, PIXELS, Sums, Wide, Window};
use crate::float::{Float, activate};
use crate::format::{self, Element, Gather, NONE};
use crate::ops::conv2d::float::CHAIN;
use crate::ops::{Source, view, view_mut};

impl Activation for f32 {
    type Weight = f32;
    type Sum = f32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        wide.dot_floats::<N>(sums, window, weights);
    }

    #[inline(always)]
    fn dot_chains<W: Wide, const N: usize>(wide: W, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        let mut rest = weights;
        for piece in window.pieces(CHAIN) {
            let Some((weights, behind)) = rest.split_at_checked(N * LANES * piece.taps()) else { return };
            rest = behind;
            let mut parts = [[[0.0; LANES]; PIXELS]; PANEL];
            wide.dot_floats::<N>(&mut parts, &piece, weights);
            for (sums, parts) in sums.iter_mut().zip(&parts).take(N) {
                for (sum, part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
                    *sum += part;
                }
            }
        }
    }
}

/// Chooses the type of stored activations.
pub(super) fn run(
    instructions: Instructions,
    layer: &Layer<'_>,
    weights: &[f32],
    machine: (Team<'_>, &mut Vec<u64>),
    arena: &mut [u8],
) -> Option<()> {
    match layer.op.layout() {
        format::WeightLayout::Groups16 => run_stored::<half::f16>(instructions, layer, weights, machine, arena),
        _ => run_stored::<f32>(instructions, layer, weights, machine, arena),
    }
}

/// Gathers the padded input, then multiplies it.
fn run_stored<E: Float>(
    instructions: Instructions,
    layer: &Layer<'_>,
    weights: &[f32],
    (mut team, input): (Team<'_>, &mut Vec<u64>),
    arena: &mut [u8],
) -> Option<()> {
    let input: &mut [f32] = room(input, layer.geometry.len());
    let bands = layer.input_bands(&team, input);
    let (from, stored) = (&*arena, PhantomData::<E>);
    team.each(bands, |band, scratch| instructions.dispatch(Gathering { layer, band, scratch, arena: from, stored }))?;
    let input = &*input;
    let place = |tensor: Option<&format::Tensor>| tensor.map_or(0..0, format::Tensor::range);
    let bias_tensor = layer.context.tensor(layer.op.bias_tensor);
    let residual = layer.residual();
    let [bias, kept, output] =
        arena.get_disjoint_mut([place(bias_tensor), place(residual), layer.output.range()]).ok()?;
    let bias: &[f32] = layer.bias(bias)?;
    let kept: Option<&[E]> = if residual.is_some() { Some(view(kept)?) } else { None };
    let product = ([input, weights, bias], kept);
    // The sample is single precision in f16 and f32.
    if layer.output.element() == Element::F32 {
        multiply_bands::<f32, E>((instructions, &mut team), layer, product, view_mut(output)?)
    } else {
        multiply_bands::<E, E>((instructions, &mut team), layer, product, view_mut(output)?)
    }
}

fn multiply_bands<O: Float, E: Float>(
    (instructions, team): (Instructions, &mut Team<'_>),
    layer: &Layer<'_>,
    ([input, weights, bias], kept): ([&[f32]; 3], Option<&[E]>),
    output: &mut [O],
) -> Option<()> {
    let bands = layer.output_bands(team, input, output)?;
    team.each(bands, |OutputBand { geometry, input, results, output }, scratch| {
        let results = Results { layer, bias, kept: kept.map(|kept| kept.get(results).unwrap_or_default()), output };
        instructions.dispatch(Multiplication { geometry: &geometry, input, weights, results, scratch })
    })
}

/// A band of the padded input, and all that comes there.
struct Gathering<'a, E> {
    layer: &'a Layer<'a>,
    band: InputBand<'a, f32>,
    scratch: &'a mut Scratch,
    arena: &'a [u8],
    stored: PhantomData<E>,
}

impl<E: Float> wide::Work for Gathering<'_, E> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, _wide: W) -> Option<()> {
        let Self { layer, mut band, scratch, arena, .. } = self;
        let Scratch { row, maps, .. } = scratch;
        band.input.fill(0.0);
        for source in layer.sources.iter().flatten() {
            let row = room(row, usize::from(source.tensor.columns) * usize::from(source.tensor.channels));
            let maps = spread(layer.maps(source, arena)?, room(maps, 2 * row.len()))?;
            let tensor = arena.get(source.tensor.range())?;
            if source.tensor.element() == Element::F32 {
                gather_source::<f32>(layer, source, view(tensor)?, (&mut band, row), maps)?;
            } else {
                gather_source::<E>(layer, source, view(tensor)?, (&mut band, row), maps)?;
            }
        }
        Some(())
    }
}

/// A band of results, and all that they are computed from.
struct Multiplication<'a, O, E> {
    geometry: &'a Geometry,
    /// From the first row on that is read.
    input: &'a [f32],
    weights: &'a [f32],
    results: Results<'a, O, E>,
    scratch: &'a mut Scratch,
}

impl<O: Float, E: Float> wide::Work for Multiplication<'_, O, E> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { geometry, input, weights, mut results, scratch } = self;
        geometry.starts(&mut scratch.starts);
        multiply(wide, geometry, (&scratch.starts, input, weights), &mut results)
    }
}

/// How a row of a source's `values` becomes one of the input.
struct Rows<'a, S, K> {
    values: &'a [S],
    /// Factors and summands of a row's values.
    maps: [&'a [f32]; 2],
    kind: K,
}

impl<S: Float, K> Rows<'_, S, K> {
    /// A row's values.
    #[inline(always)]
    fn row(&self, y: usize, len: usize) -> &[S] {
        self.values.get(y * len..(y + 1) * len).unwrap_or_default()
    }
}

/// Gain and offset.
struct Raw([f32; 2]);
struct Silu;
struct Other(Option<format::Activation>);

impl<S: Float> Transform<f32> for Rows<'_, S, Raw> {
    #[inline(always)]
    fn row(&self, y: usize, target: &mut [f32]) {
        let len = target.len();
        let Raw([gain, offset]) = self.kind;
        for (target, value) in target.iter_mut().zip(self.row(y, len)) {
            *target = gain * value.to_f32() + offset;
        }
    }
}

impl<S: Float> Transform<f32> for Rows<'_, S, Silu> {
    #[inline(always)]
    fn row(&self, y: usize, target: &mut [f32]) {
        let len = target.len();
        let [factors, summands] = self.maps;
        for (((target, value), &a), &b) in target.iter_mut().zip(self.row(y, len)).zip(factors).zip(summands) {
            *target = silu_float(value.to_f32() * a + b);
        }
    }
}

impl<S: Float> Transform<f32> for Rows<'_, S, Other> {
    #[inline(always)]
    fn row(&self, y: usize, target: &mut [f32]) {
        let len = target.len();
        let [factors, summands] = self.maps;
        for (((target, value), &a), &b) in target.iter_mut().zip(self.row(y, len)).zip(factors).zip(summands) {
            let value = value.to_f32() * a + b;
            *target = match self.kind.0 {
                Some(activation) => activate(activation, value),
                None => value,
            };
        }
    }
}

#[inline(always)]
fn gather_source<S: Float>(
    layer: &Layer<'_>,
    source: &Source,
    values: &[S],
    target: (&mut InputBand<'_, f32>, &mut [f32]),
    maps: [&[f32]; 2],
) -> Option<()> {
    let Layer { op, geometry, .. } = layer;
    match op.gather() {
        Gather::Raw => {
            let kind = Raw([op.input_gain, op.input_offset]);
            gather(geometry, source, target, &Rows { values, maps, kind })
        }
        Gather::AffineSilu => gather(geometry, source, target, &Rows { values, maps, kind: Silu }),
        other => gather(geometry, source, target, &Rows { values, maps, kind: Other(other.activation()) }),
    }
}

/// What turns sums into results.
struct Results<'a, O, E> {
    layer: &'a Layer<'a>,
    bias: &'a [f32],
    /// The residual, if there is one at a place of its own.
    kept: Option<&'a [E]>,
    output: &'a mut [O],
}

impl<O: Float, E: Float> Finish<f32> for Results<'_, O, E> {
    const OF_CHAINS: bool = E::SUMS_IN_CHAINS;

    #[inline(always)]
    fn begin(&self, block: usize) -> Lanes<f32> {
        block_of(self.bias, block)
    }

    #[inline(always)]
    fn finish<W: Wide>(&mut self, _wide: W, pixel: usize, block: usize, lanes: &mut Lanes<f32>) {
        let Layer { op, geometry, .. } = self.layer;
        let place = pixel * geometry.outputs..(pixel + 1) * geometry.outputs;
        let Some(output) = self.output.get_mut(place.clone()) else { return };
        // Zeros are added where nothing is kept, as the reference does.
        let mut kept = [0.0; LANES];
        match self.kept {
            _ if op.residual == NONE => {}
            Some(values) => read(&mut kept, values.get(place).unwrap_or_default(), block),
            None => read(&mut kept, output, block),
        }
        for (lane, kept) in lanes.iter_mut().zip(kept) {
            *lane += op.residual_gain * kept;
        }
        let output = output.get_mut(block * LANES..).unwrap_or_default();
        if let Some(output) = output.first_chunk_mut::<LANES>() {
            for (output, &lane) in output.iter_mut().zip(&*lanes) {
                *output = O::from_f32(lane);
            }
        } else {
            for (output, &lane) in output.iter_mut().zip(&*lanes) {
                *output = O::from_f32(lane);
            }
        }
    }
}

/// A pixel's values of a block's channels.
#[inline(always)]
fn read<T: Pod + Float>(lanes: &mut Lanes<f32>, values: &[T], block: usize) {
    let values = values.get(block * LANES..).unwrap_or_default();
    if let Some(values) = values.first_chunk::<LANES>() {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = value.to_f32();
        }
    } else {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = value.to_f32();
        }
    }
}
