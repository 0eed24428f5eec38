//! Convolution in the `i8` precision: `i8` or `i16` activations, `i8` or four-bit weights, `i32` accumulators that wrap.
//!
//! The exporter chooses the width of `i16` rings so that no accumulator of the layer can leave 32 bits.

use bytemuck::Pod;

use super::{Bound, Gathered, Layer, Tile};
use crate::arch::{self, QUAD};
use crate::fixed::{
    NORM_BITS, RESIDUAL_BITS, SILU_BITS, requantize, round_shift, saturate_i8, saturate_i16, saturate_i32, silu,
};
use crate::format::{CHANNEL_BLOCK, Conv2d, Element, Gather, NONE, StepScales, WeightLayout};
use crate::ops::{Context, Source, sources, tail, view, view_mut};

/// An element of the ring.
trait Activation: Pod + Into<i32> {
    /// The nearest.
    fn saturate(value: i32) -> Self;

    /// `sums[c] + Σ activations[k]·weights[c][k]`, modulo 2³².
    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD];

    /// The same for four-bit weights, those of the four channels side by side.
    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD];
}

impl Activation for i8 {
    fn saturate(value: i32) -> Self {
        saturate_i8(value)
    }

    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
        arch::dot4_i8(sums, activations, weights)
    }

    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD] {
        arch::dot4_packed_i8(sums, activations, weights)
    }
}

impl Activation for i16 {
    fn saturate(value: i32) -> Self {
        saturate_i16(value)
    }

    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
        arch::dot4_i16(sums, activations, weights)
    }

    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD] {
        arch::dot4_packed_i16(sums, activations, weights)
    }
}

/// What a ring's scales ask of accumulators. A type, so that a firmware without scales of steps is none the larger.
trait Scales: Copy {
    /// Whether accumulators start at their biases; else at zero.
    const BIAS_FIRST: bool;

    /// An accumulator in the units of its bias, which it contains.
    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32;
}

/// Those of the record.
#[derive(Clone, Copy)]
struct OfRecord;

impl Scales for OfRecord {
    const BIAS_FIRST: bool = true;

    fn complete(self, _op: &Conv2d, accumulator: i32, _sum: i32, _bias: i32) -> i32 {
        accumulator
    }
}

/// Those of the step: multiplier and shift of accumulators.
#[derive(Clone, Copy)]
struct OfStep([i32; 2]);

impl Scales for OfStep {
    const BIAS_FIRST: bool = false;

    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32 {
        rescaled(op.ring_zero, accumulator, sum, self.0, bias)
    }
}

pub(crate) fn run(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
    let layer = Layer::new(context, op)?;
    let tile = layer.geometry.tile(slice);
    if cfg!(feature = "step-scales") && op.weight_sums != 0 {
        let at = layer.biases_of_step() + op.step_scales;
        let scales = StepScales::read(context.model.bytes(), at as usize);
        let layer = Layer { op: &op.during(&scales), ..layer };
        return run_ring::<i8, _>(&layer, OfStep(scales.rescale), &tile, arena);
    }
    match layer.ring.element() {
        Element::I8 => run_ring::<i8, _>(&layer, OfRecord, &tile, arena),
        Element::I16 => run_ring::<i16, _>(&layer, OfRecord, &tile, arena),
        _ => None,
    }
}

fn run_ring<R: Activation, S: Scales>(layer: &Layer<'_>, scales: S, tile: &Tile, arena: &mut [u8]) -> Option<()> {
    if tile.gathers() {
        for ring_row in layer.geometry.new_rows(tile.y) {
            gather_row::<R>(layer, ring_row, arena)?;
        }
    }
    compute(layer, scales, tile, Operands::<R>::bind(layer, tile, arena)?);
    Some(())
}

/// Brings one row of the padded, transformed input into its slot of the ring.
fn gather_row<R: Activation>(layer: &Layer<'_>, ring_row: usize, arena: &mut [u8]) -> Option<()> {
    let slot: &mut [R] = view_mut(arena.get_mut(layer.slot(ring_row))?)?;
    slot.fill(R::saturate(layer.op.ring_zero));
    let Some(row) = layer.geometry.source_row(ring_row) else { return Some(()) };
    for source in &sources(layer.context, layer.op.sources)? {
        let Gathered { input, norm, slot } = Gathered::bind(layer, source, row, ring_row, arena)?;
        let input = Values::new(source.tensor.element(), input)?;
        gather_pixels::<R>(layer, source, &input, view(norm)?, view_mut(slot)?);
    }
    Some(())
}

/// Zero point, multiplier and shift of a raw input, by its place among the sources.
#[inline]
pub fn raw_map(op: &Conv2d, source: usize) -> [i32; 3] {
    let of = |[first, second]: [i32; 2]| if source == 0 { first } else { second };
    [of(op.source_zero), of(op.multiplier), of(op.shift)]
}

/// One value on its way into the ring, to be saturated to the ring's width: by the raw map of its source, or by the map of
/// its channel.
#[inline(always)]
pub fn gathered(op: &Conv2d, [zero, multiplier, shift]: [i32; 3], value: i32, [a, b]: [i32; 2]) -> i32 {
    match op.gather() {
        Gather::Raw if multiplier == 0 => value,
        Gather::Raw => requantize(value.saturating_sub(zero), multiplier, shift).saturating_add(op.ring_zero),
        Gather::Affine | Gather::AffineSilu => {
            let product = i64::from(value) * i64::from(a);
            let normalized = saturate_i32(round_shift(product, op.affine_shift) + i64::from(b));
            let value = if op.gather() == Gather::AffineSilu {
                silu(normalized)
            } else {
                normalized.clamp(-(1 << 27), 1 << 27) << (SILU_BITS - NORM_BITS)
            };
            requantize(value, op.multiplier[0], op.shift[0]).saturating_add(op.ring_zero)
        }
    }
}

/// An accumulator that started at zero over a ring with the step's own scales, in the units of its bias; `sum` is that of
/// the channel's weights. Products and differences wrap.
#[inline(always)]
pub fn rescaled(ring_zero: i32, accumulator: i32, sum: i32, [multiplier, shift]: [i32; 2], bias: i32) -> i32 {
    let centered = accumulator.wrapping_sub(ring_zero.wrapping_mul(sum));
    requantize(centered, multiplier, shift).saturating_add(bias)
}

/// One result, to be saturated to the output's width, from its accumulator and what the residual holds there.
#[inline(always)]
pub fn finished(op: &Conv2d, accumulator: i32, [multiplier, shift]: [i32; 2], kept: Option<i32>) -> i32 {
    let value = match kept {
        None => requantize(accumulator, multiplier, shift),
        Some(kept) => {
            let kept = requantize(kept.saturating_sub(op.residual_zero), op.residual_multiplier, op.residual_shift);
            let value = requantize(accumulator, multiplier, shift.saturating_add(RESIDUAL_BITS as i32));
            round_shift(i64::from(value) + i64::from(kept), RESIDUAL_BITS) as i32
        }
    };
    value.saturating_add(op.output_zero)
}

/// Transforms the pixels of one source row into the ring, each twice if columns are doubled.
fn gather_pixels<R: Activation>(
    layer: &Layer<'_>,
    source: &Source,
    input: &Values<'_>,
    norm: &[[i32; 2]],
    slot: &mut [R],
) {
    let Layer { op, geometry, .. } = layer;
    let channels = usize::from(source.tensor.channels);
    let raw = raw_map(op, source.index());
    let mut from = 0;
    for target in
        slot.chunks_exact_mut((geometry.channels << geometry.doubling).max(1)).take(source.tensor.columns.into())
    {
        let mut maps = norm.iter();
        for (at, target) in (from..from + channels).zip(target.iter_mut().skip(source.channel)) {
            let map = maps.next().copied().unwrap_or_default();
            *target = R::saturate(gathered(op, raw, input.get(at), map));
        }
        from += channels;
        if let Some((pixel, double)) = target.split_at_mut_checked(geometry.channels) {
            for (copy, &value) in double.iter_mut().zip(&*pixel) {
                *copy = value;
            }
        }
    }
}

/// Values that a convolution reads, writes or adds.
enum Values<'a> {
    I8(&'a mut [i8]),
    I16(&'a mut [i16]),
    I32(&'a mut [i32]),
}

impl<'a> Values<'a> {
    fn new(element: Element, bytes: &'a mut [u8]) -> Option<Self> {
        Some(match element {
            Element::I8 => Values::I8(view_mut(bytes)?),
            Element::I16 => Values::I16(view_mut(bytes)?),
            Element::I32 => Values::I32(view_mut(bytes)?),
            Element::F16 | Element::F32 => return None,
        })
    }

    /// Element `at`, which exists: whoever binds values knows how many they are.
    fn get(&self, at: usize) -> i32 {
        let value = match self {
            Values::I8(values) => values.get(at).map(|&v| v.into()),
            Values::I16(values) => values.get(at).map(|&v| v.into()),
            Values::I32(values) => values.get(at).copied(),
        };
        value.unwrap_or_default()
    }

    /// Replaces element `at`, which exists, by the nearest value of its type.
    fn set(&mut self, at: usize, value: i32) {
        match self {
            Values::I8(values) => values.get_mut(at).into_iter().for_each(|v| *v = saturate_i8(value)),
            Values::I16(values) => values.get_mut(at).into_iter().for_each(|v| *v = saturate_i16(value)),
            Values::I32(values) => values.get_mut(at).into_iter().for_each(|v| *v = value),
        }
    }
}

/// What the computation of one tile reads and writes.
struct Operands<'a, R> {
    ring: &'a [R],
    weights: Weights<'a>,
    bias: &'a [i32],
    /// Sums of each channel's weights; empty if the record's scales hold.
    sums: &'a [i32],
    requant: &'a [[i32; 2]],
    /// The row of the residual, if there is one at a place of its own.
    residual: Option<Values<'a>>,
    /// The row of the output.
    output: Values<'a>,
}

impl<'a, R: Activation> Operands<'a, R> {
    fn bind(layer: &'a Layer<'_>, tile: &Tile, arena: &'a mut [u8]) -> Option<Self> {
        let Layer { context, op, output, geometry, .. } = layer;
        let bound = Bound::bind(layer, tile.y, arena)?;
        let taps = geometry.taps();
        let (first, end) = (tile.first(), tile.first() + tile.count);
        let weights = match op.layout() {
            #[cfg(feature = "i4")]
            WeightLayout::Groups4 => {
                let weights: &[u16] = layer.weights(tile, bound.window)?;
                Weights::I4(weights.get(first / QUAD * taps..end.div_ceil(QUAD) * taps)?)
            }
            WeightLayout::Rows8 => Weights::I8(layer.weights(tile, bound.window)?.get(first * taps..end * taps)?),
            // Those of other precisions, or without the feature.
            _ => return None,
        };
        let sums: &[i32] = if op.weight_sums == 0 {
            &[]
        } else {
            context.data(op.weight_sums, geometry.output_channels)?.get(tile.channels())?
        };
        let residual = match context.tensor(op.residual) {
            Some(residual) if !bound.residual.is_empty() => Some(Values::new(residual.element(), bound.residual)?),
            _ => None,
        };
        Some(Self {
            ring: view(bound.ring)?,
            weights,
            bias: layer.bias(tile, bound.bias)?,
            sums,
            requant: context.data(op.requant, geometry.output_channels)?.get(tile.channels())?,
            residual,
            output: Values::new(output.element(), bound.output)?,
        })
    }
}

/// One row of up to eight output channels.
fn compute<R: Activation, S: Scales>(layer: &Layer<'_>, scales: S, tile: &Tile, operands: Operands<'_, R>) {
    let Layer { op, geometry, .. } = layer;
    let Operands { ring, weights, bias, sums, requant, residual, mut output } = operands;
    let mut at = tile.channel;
    for x in 0..geometry.output_columns {
        let mut accumulators = [0i32; CHANNEL_BLOCK];
        if S::BIAS_FIRST {
            for (accumulator, &bias) in accumulators.iter_mut().zip(bias) {
                *accumulator = bias;
            }
        }
        for ky in 0..geometry.kernel[0] {
            let activations = geometry.patch(ring, [tile.y, x], ky);
            multiply(&mut accumulators, activations, weights.from(ky * geometry.run()), geometry.taps(), tile.count);
        }
        for ((accumulator, &sum), &bias) in accumulators.iter_mut().zip(sums).zip(bias) {
            *accumulator = scales.complete(op, *accumulator, sum, bias);
        }
        for ((&accumulator, &requant), at) in accumulators.iter().zip(requant).zip(at..) {
            let kept = (op.residual != NONE).then(|| residual.as_ref().unwrap_or(&output).get(at));
            output.set(at, finished(op, accumulator, requant, kept));
        }
        at += geometry.output_channels;
    }
}

/// The weights of up to eight output channels.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// One row for each channel.
    I8(&'a [i8]),
    /// One row for each four.
    #[cfg(feature = "i4")]
    I4(&'a [u16]),
}

impl Weights<'_> {
    /// All rows, shortened to start at the given element of the first.
    fn from(self, at: usize) -> Self {
        match self {
            Weights::I8(weights) => Weights::I8(tail(weights, at)),
            #[cfg(feature = "i4")]
            Weights::I4(weights) => Weights::I4(tail(weights, at)),
        }
    }
}

/// `accumulators[c] += Σ activations[k]·weights[c][k]`, wrapping, for `count` channels whose rows are `taps` apart.
#[inline]
fn multiply<R: Activation>(
    accumulators: &mut [i32; CHANNEL_BLOCK],
    activations: &[R],
    weights: Weights<'_>,
    taps: usize,
    count: usize,
) {
    let quads = accumulators.as_chunks_mut().0.iter_mut().take(count.div_ceil(QUAD));
    match weights {
        Weights::I8(weights) => {
            let mut rows = weights.chunks(taps.max(1));
            for quad in quads {
                // Past the last channel the last row is computed again; its sums are not stored.
                let mut last = &[] as &[i8];
                let rows = [(); QUAD].map(|()| {
                    last = rows.next().unwrap_or(last);
                    last
                });
                *quad = R::dot4(*quad, activations, rows);
            }
        }
        #[cfg(feature = "i4")]
        Weights::I4(weights) => {
            for (quad, row) in quads.zip(weights.chunks(taps.max(1))) {
                *quad = R::dot4_packed(*quad, activations, row);
            }
        }
    }
}
