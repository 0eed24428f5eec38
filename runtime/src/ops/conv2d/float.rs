//! Convolution in the float precisions: an `f32` ring, `f32` accumulators, weights in the model's storage type.

use super::{Geometry, Tile, weights};
use crate::arch::{PIXELS, dot_pixels};
use crate::float::{Float, silu};
use crate::format::{Bias, CHANNEL_BLOCK, Conv2d, Element, Gather, NONE};
use crate::ops::{Context, Source, sources, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
    let geometry = Geometry::new(context, op)?;
    let tile = geometry.tile(slice);
    if tile.gathers() {
        for ring_row in geometry.new_rows(tile.y) {
            gather_row::<E>(context, op, &geometry, ring_row, arena)?;
        }
    }
    compute::<E>(context, op, &geometry, &tile, arena)
}

/// Brings one row of the padded, transformed input into its slot of the ring.
fn gather_row<E: Float>(
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
        let slots = view_mut::<f32>(arena.get_mut(ring.clone())?)?;
        slots.get_mut(start..start + geometry.ring_row_len())?.fill(0.0);
    }
    let Some(row) = row else { return Some(()) };
    for source in &sources(context, op.sources)? {
        let tensor = &source.tensor;
        let bytes = usize::from(tensor.columns) * usize::from(tensor.channels) * tensor.element.bytes();
        let from = tensor.offset as usize + row * bytes;
        let [input, norm, ring] = arena.get_disjoint_mut([from..from + bytes, norm.clone(), ring.clone()]).ok()?;
        let slot = view_mut::<f32>(ring)?.get_mut(start..start + geometry.ring_row_len())?;
        let norm: &[[f32; 2]] = view(norm)?;
        let norm = norm.get(source.channel..).unwrap_or(&[]);
        // The sample is single precision in f16 and f32.
        if tensor.element == Element::F32 {
            gather_pixels::<f32>(op, geometry, source, view(input)?, norm, slot)?;
        } else {
            gather_pixels::<E>(op, geometry, source, view(input)?, norm, slot)?;
        }
    }
    Some(())
}

/// One value on its way into the ring, by the map of its channel if there is one.
#[inline(always)]
pub fn gathered(op: &Conv2d, value: f32, [a, b]: [f32; 2]) -> f32 {
    match op.gather {
        Gather::Raw => op.input_gain * value + op.input_offset,
        Gather::Affine => value * a + b,
        Gather::AffineSilu => silu(value * a + b),
    }
}

/// Transforms the pixels of one source row into the ring, each twice if columns are doubled.
fn gather_pixels<S: bytemuck::Pod + Float>(
    op: &Conv2d,
    geometry: &Geometry,
    source: &Source,
    input: &[S],
    norm: &[[f32; 2]],
    slot: &mut [f32],
) -> Option<()> {
    let channels = usize::from(source.tensor.channels);
    let pixel = geometry.channels;
    let mut at = geometry.padding[1] * pixel + source.channel;
    for values in input.chunks_exact(channels.max(1)) {
        let target = slot.get_mut(at..at + channels)?;
        if op.gather == Gather::Raw {
            for (target, &value) in target.iter_mut().zip(values) {
                *target = gathered(op, value.to_f32(), [0.0; 2]);
            }
        } else {
            for ((target, &value), &map) in target.iter_mut().zip(values).zip(norm) {
                *target = gathered(op, value.to_f32(), map);
            }
        }
        if geometry.doubling == 1 {
            let (left, right) = slot.split_at_mut_checked(at + pixel)?;
            for (copy, &value) in right.iter_mut().zip(left.get(at..at + channels)?) {
                *copy = value;
            }
            at += pixel;
        }
        at += pixel;
    }
    Some(())
}

/// One row of up to eight output channels.
fn compute<E: Float>(
    context: &Context<'_>,
    op: &Conv2d,
    geometry: &Geometry,
    tile: &Tile,
    arena: &mut [u8],
) -> Option<()> {
    let &Tile { y, channel, count, chunk_channel, .. } = tile;
    let output = context.tensor(op.output)?;
    let [kh, kw] = geometry.kernel;
    let run = kw * geometry.channels;
    let taps = kh * run;

    let residual = context.tensor(op.residual);
    let in_place = residual.is_some_and(|t| t.offset == output.offset);
    let residual_range = residual.filter(|_| !in_place).map_or(0..0, |t| t.range());
    let bias_range = context.tensor(op.bias_tensor).map_or(0..0, |t| t.range());
    let ring_range = context.tensor(op.scratch)?.range();
    let window_range = context.tensor(op.window).map_or(0..0, |t| t.range());
    let [ring, bias, window, residual_bytes, output_bytes] =
        arena.get_disjoint_mut([ring_range, bias_range, window_range, residual_range, output.range()]).ok()?;
    let weights: &[E] = weights(context, op, geometry, tile, window)?;
    let block = (channel - chunk_channel) / CHANNEL_BLOCK;
    let weights = weights.as_chunks().0.get(block * taps..(block + 1) * taps)?;
    let ring: &[f32] = view(ring)?;
    let bias: &[f32] = match op.bias {
        Bias::Constant => context.data(op.bias_at, geometry.output_channels)?,
        Bias::Step => {
            let at = context.schedule.biases + context.step * context.schedule.bias_bytes + op.bias_at;
            context.data(at, geometry.output_channels)?
        }
        Bias::Tensor => view(bias)?,
    };
    let bias = bias.get(channel..channel + count)?;
    let kept: &[E] = view(residual_bytes)?;

    let advance = geometry.stride * geometry.channels;
    let mut x = 0;
    while x < geometry.output_columns {
        let pixels = PIXELS.min(geometry.output_columns - x);
        let mut sums = [[0f32; CHANNEL_BLOCK]; PIXELS];
        for sum in &mut sums {
            for (sum, &bias) in sum.iter_mut().zip(bias) {
                *sum = bias;
            }
        }
        for ky in 0..kh {
            let start = geometry.slot(y * geometry.stride + ky) + x * advance;
            let weights = weights.get(ky * run..(ky + 1) * run)?;
            let mut patches = [&[] as &[f32]; PIXELS];
            for (i, patch) in patches.iter_mut().enumerate() {
                // Past the last pixel the last one is computed again; its sums are not stored.
                let start = start + i.min(pixels - 1) * advance;
                *patch = ring.get(start..start + run)?;
            }
            dot_pixels(&mut sums, patches, weights);
        }
        for (i, sum) in sums.iter().take(pixels).enumerate() {
            let at = (y * geometry.output_columns + x + i) * geometry.output_channels + channel;
            if output.element == Element::F32 {
                store::<f32, E>(op, view_mut(output_bytes)?, at, count, sum, kept)?;
            } else {
                store::<E, E>(op, view_mut(output_bytes)?, at, count, sum, kept)?;
            }
        }
        x += pixels;
    }
    Some(())
}

/// Adds the residual, in place or from `kept`, and writes the channels of one pixel.
fn store<O: Float, E: Float>(
    op: &Conv2d,
    output: &mut [O],
    at: usize,
    count: usize,
    sums: &[f32; CHANNEL_BLOCK],
    kept: &[E],
) -> Option<()> {
    let output = output.get_mut(at..at + count)?;
    let kept = kept.get(at..at + count);
    for (i, (output, &sum)) in output.iter_mut().zip(sums).enumerate() {
        let residual = match kept {
            _ if op.residual == NONE => 0.0,
            Some(kept) => kept.get(i)?.to_f32(),
            None => output.to_f32(),
        };
        *output = O::from_f32(sum + op.residual_gain * residual);
    }
    Some(())
}
