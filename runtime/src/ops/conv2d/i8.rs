//! Convolution in the `i8` precision: `i8` or `i16` activations, `i8` or four-bit weights, `i32` accumulators that wrap.
//!
//! The exporter chooses the width of `i16` rings so that no accumulator of the layer can leave 32 bits.

use bytemuck::Pod;

use super::{Geometry, Tile};
use crate::arch;
use crate::fixed::{
    NORM_BITS, RESIDUAL_BITS, SILU_BITS, requantize, round_shift, saturate_i8, saturate_i16, saturate_i32, silu,
};
use crate::format::{Bias, CHANNEL_BLOCK, Conv2d, Element, Gather, NONE, QUAD, STEP_SCALES_BYTES, StepScales};
use crate::ops::{Context, Source, sources, view, view_mut};

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
    let geometry = Geometry::new(context, op)?;
    if cfg!(feature = "step-scales") && op.weight_sums != 0 {
        let at = biases_of_step(context) + op.step_scales;
        let scales = StepScales::decode(context.data::<u8>(at, STEP_SCALES_BYTES)?);
        return run_ring::<i8, _>(context, &op.during(&scales), OfStep(scales.rescale), &geometry, slice, arena);
    }
    match context.tensor(op.scratch)?.element {
        Element::I8 => run_ring::<i8, _>(context, op, OfRecord, &geometry, slice, arena),
        Element::I16 => run_ring::<i16, _>(context, op, OfRecord, &geometry, slice, arena),
        _ => None,
    }
}

/// Offset of the biases of the context's step.
fn biases_of_step(context: &Context<'_>) -> u32 {
    context.schedule.biases + context.step * context.schedule.bias_bytes
}

fn run_ring<R: Activation, S: Scales>(
    context: &Context<'_>,
    op: &Conv2d,
    scales: S,
    geometry: &Geometry,
    slice: u32,
    arena: &mut [u8],
) -> Option<()> {
    let tile = geometry.tile(slice);
    if tile.gathers() {
        for ring_row in geometry.new_rows(tile.y) {
            gather_row::<R>(context, op, geometry, ring_row, arena)?;
        }
    }
    compute::<R, S>(context, op, scales, geometry, &tile, arena)
}

/// Brings one row of the padded, transformed input into its slot of the ring.
fn gather_row<R: Activation>(
    context: &Context<'_>,
    op: &Conv2d,
    geometry: &Geometry,
    ring_row: usize,
    arena: &mut [u8],
) -> Option<()> {
    let ring = context.tensor(op.scratch)?.range();
    let norm = context.tensor(op.norm).map_or(0..0, |t| t.range());
    let start = geometry.slot(ring_row);
    let row = geometry.source_row(ring_row);
    {
        let slots = view_mut::<R>(arena.get_mut(ring.clone())?)?;
        slots.get_mut(start..start + geometry.ring_row_len())?.fill(R::saturate(op.ring_zero));
    }
    let Some(row) = row else { return Some(()) };
    for source in &sources(context, op.sources)? {
        let tensor = &source.tensor;
        let bytes = usize::from(tensor.columns) * usize::from(tensor.channels) * tensor.element.bytes();
        let from = tensor.offset as usize + row * bytes;
        let [input, norm, ring] = arena.get_disjoint_mut([from..from + bytes, norm.clone(), ring.clone()]).ok()?;
        let slot = view_mut::<R>(ring)?.get_mut(start..start + geometry.ring_row_len())?;
        let norm: &[[i32; 2]] = view(norm)?;
        let norm = norm.get(source.channel..).unwrap_or(&[]);
        gather_pixels(op, geometry, source, &Values::new(tensor.element, input)?, norm, slot)?;
    }
    Some(())
}

/// Zero point, multiplier and shift of a raw input, by its place among the sources.
#[inline]
pub fn raw_map(op: &Conv2d, source: usize) -> Option<[i32; 3]> {
    Some([*op.source_zero.get(source)?, *op.multiplier.get(source)?, *op.shift.get(source)?])
}

/// One value on its way into the ring, to be saturated to the ring's width: by the raw map of its source, or by the map of
/// its channel.
#[inline(always)]
pub fn gathered(op: &Conv2d, [zero, multiplier, shift]: [i32; 3], value: i32, [a, b]: [i32; 2]) -> i32 {
    match op.gather {
        Gather::Raw if multiplier == 0 => value,
        Gather::Raw => requantize(value.saturating_sub(zero), multiplier, shift).saturating_add(op.ring_zero),
        Gather::Affine | Gather::AffineSilu => {
            let product = i64::from(value) * i64::from(a);
            let normalized = saturate_i32(round_shift(product, op.affine_shift) + i64::from(b));
            let value = if op.gather == Gather::AffineSilu {
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
    op: &Conv2d,
    geometry: &Geometry,
    source: &Source,
    input: &Values<'_>,
    norm: &[[i32; 2]],
    slot: &mut [R],
) -> Option<()> {
    let channels = usize::from(source.tensor.channels);
    let raw = raw_map(op, source.index())?;
    let pixel = geometry.channels;
    let mut at = geometry.padding[1] * pixel + source.channel;
    let mut from = 0;
    for _ in 0..source.tensor.columns {
        for (channel, target) in slot.get_mut(at..at + channels)?.iter_mut().enumerate() {
            let value = input.get(from + channel)?;
            let map = if op.gather == Gather::Raw { [0; 2] } else { *norm.get(channel)? };
            *target = R::saturate(gathered(op, raw, value, map));
        }
        if geometry.doubling == 1 {
            let (left, right) = slot.split_at_mut_checked(at + pixel)?;
            for (copy, &value) in right.iter_mut().zip(left.get(at..at + channels)?) {
                *copy = value;
            }
            at += pixel;
        }
        at += pixel;
        from += channels;
    }
    Some(())
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

    fn get(&self, at: usize) -> Option<i32> {
        match self {
            Values::I8(values) => values.get(at).map(|&v| v.into()),
            Values::I16(values) => values.get(at).map(|&v| v.into()),
            Values::I32(values) => values.get(at).copied(),
        }
    }

    fn set(&mut self, at: usize, value: i32) -> Option<()> {
        match self {
            Values::I8(values) => *values.get_mut(at)? = saturate_i8(value),
            Values::I16(values) => *values.get_mut(at)? = saturate_i16(value),
            Values::I32(values) => *values.get_mut(at)? = value,
        }
        Some(())
    }
}

/// One row of up to eight output channels.
fn compute<R: Activation, S: Scales>(
    context: &Context<'_>,
    op: &Conv2d,
    scales: S,
    geometry: &Geometry,
    tile: &Tile,
    arena: &mut [u8],
) -> Option<()> {
    let &Tile { y, channel, count, chunk_channel, .. } = tile;
    let output = context.tensor(op.output)?;
    let [kh, kw] = geometry.kernel;
    let run = kw * geometry.channels;
    let taps = kh * run;
    let requant: &[[i32; 2]] = context.data(op.requant, geometry.output_channels)?;
    let requant = requant.get(channel..channel + count)?;

    let residual = context.tensor(op.residual);
    // A residual at the output's place is read through the output.
    let in_place = residual.is_some_and(|t| t.offset == output.offset);
    let residual_range = residual.filter(|_| !in_place).map_or(0..0, |t| t.range());
    let bias_range = context.tensor(op.bias_tensor).map_or(0..0, |t| t.range());
    let ring_range = context.tensor(op.scratch)?.range();
    let window_range = context.tensor(op.window).map_or(0..0, |t| t.range());
    let [ring, bias, window, residual_bytes, output_bytes] =
        arena.get_disjoint_mut([ring_range, bias_range, window_range, residual_range, output.range()]).ok()?;
    let first = channel - chunk_channel;
    let weights = match op.four_bits {
        #[cfg(feature = "i4")]
        true => {
            let weights: &[u16] = super::weights(context, op, geometry, tile, window)?;
            Weights::I4(weights.get(first / QUAD * taps..(first + count).div_ceil(QUAD) * taps)?)
        }
        #[cfg(not(feature = "i4"))]
        true => return None,
        false => {
            let weights: &[i8] = super::weights(context, op, geometry, tile, window)?;
            Weights::I8(weights.get(first * taps..(first + count) * taps)?)
        }
    };
    let ring: &[R] = view(ring)?;
    let bias: &[i32] = match op.bias {
        Bias::Constant => context.data(op.bias_at, geometry.output_channels)?,
        Bias::Step => context.data(biases_of_step(context) + op.bias_at, geometry.output_channels)?,
        Bias::Tensor => view(bias)?,
    };
    let bias = bias.get(channel..channel + count)?;
    let sums: &[i32] = if S::BIAS_FIRST {
        &[]
    } else {
        context.data(op.weight_sums, geometry.output_channels)?.get(channel..channel + count)?
    };
    let mut output_values = Values::new(output.element, output_bytes)?;
    let residual_values = match residual {
        Some(t) if !in_place => Some(Values::new(t.element, residual_bytes)?),
        _ => None,
    };

    let mut at = y * geometry.output_columns * geometry.output_channels + channel;
    for x in 0..geometry.output_columns {
        let mut accumulators = [0i32; CHANNEL_BLOCK];
        if S::BIAS_FIRST {
            for (accumulator, &bias) in accumulators.iter_mut().zip(bias) {
                *accumulator = bias;
            }
        }
        for ky in 0..kh {
            let start = geometry.slot(y * geometry.stride + ky) + x * geometry.stride * geometry.channels;
            let activations = ring.get(start..start + run)?;
            multiply(&mut accumulators, activations, weights.from(ky * run)?, taps, count);
        }
        for ((accumulator, &sum), &bias) in accumulators.iter_mut().zip(sums).zip(bias) {
            *accumulator = scales.complete(op, *accumulator, sum, bias);
        }
        for (i, (&accumulator, &requant)) in accumulators.iter().zip(requant).enumerate() {
            let kept = match &residual_values {
                _ if op.residual == NONE => None,
                Some(values) => Some(values.get(at + i)?),
                None => Some(output_values.get(at + i)?),
            };
            output_values.set(at + i, finished(op, accumulator, requant, kept))?;
        }
        at += geometry.output_channels;
    }
    Some(())
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
    fn from(self, at: usize) -> Option<Self> {
        Some(match self {
            Weights::I8(weights) => Weights::I8(weights.get(at..)?),
            #[cfg(feature = "i4")]
            Weights::I4(weights) => Weights::I4(weights.get(at..)?),
        })
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
