//! Convolution in the float precisions: an `f32` ring, `f32` accumulators, weights in the model's storage type.

use super::{Bound, Gathered, Layer, Tile};
use crate::arch::{PIXELS, dot_pixels};
use crate::float::{Float, activate};
use crate::format::{CHANNEL_BLOCK, Conv2d, Element, Gather, NONE};
use crate::ops::{Context, Source, sources, view, view_mut};

/// Products that are added one after another, of neighbouring taps in a row of the kernel; their sums are added to the bias one after
/// another (all of them to the bias, where [`SUMS_IN_CHAINS`](Float::SUMS_IN_CHAINS) is not set). What rounding makes of a sum grows
/// with the longest chain of additions, which is shortest where the chains are of about one length (Blanchard, Higham and Mary, "A
/// class of fast and accurate summation algorithms", SIAM Journal on Scientific Computing 42, 2020).
pub const CHAIN: usize = 64;

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
    let layer = Layer::new(context, op)?;
    let tile = layer.geometry.tile(slice);
    if tile.gathers() {
        for ring_row in layer.geometry.new_rows(tile.y) {
            gather_row::<E>(&layer, ring_row, arena)?;
        }
    }
    let operands = Operands::<E>::bind(&layer, &tile, arena)?;
    // The sample is single precision in f16 and f32.
    if layer.output.element() == Element::F32 {
        compute::<f32, E>(&layer, &tile, operands)
    } else {
        compute::<E, E>(&layer, &tile, operands)
    }
}

/// Brings one row of the padded, transformed input into its slot of the ring.
fn gather_row<E: Float>(layer: &Layer<'_>, ring_row: usize, arena: &mut [u8]) -> Option<()> {
    let slot: &mut [f32] = view_mut(arena.get_mut(layer.slot(ring_row))?)?;
    slot.fill(0.0);
    let Some(row) = layer.geometry.source_row(ring_row) else { return Some(()) };
    for source in sources(layer.context, layer.op.sources)?.iter().flatten() {
        let Gathered { input, norm, slot } = Gathered::bind(layer, source, row, ring_row, arena)?;
        if source.tensor.element() == Element::F32 {
            gather_pixels::<f32>(layer, source, view(input)?, view(norm)?, view_mut(slot)?);
        } else {
            gather_pixels::<E>(layer, source, view(input)?, view(norm)?, view_mut(slot)?);
        }
    }
    Some(())
}

/// One value on its way into the ring, by the map of its channel if there is one.
#[inline(always)]
pub fn gathered(op: &Conv2d, value: f32, [a, b]: [f32; 2]) -> f32 {
    match (op.gather(), op.gather().activation()) {
        (Gather::Raw, _) => op.input_gain * value + op.input_offset,
        (_, None) => value * a + b,
        (_, Some(activation)) => activate(activation, value * a + b),
    }
}

/// Transforms the pixels of one source row into the ring, each twice if columns are doubled.
fn gather_pixels<S: Float>(layer: &Layer<'_>, source: &Source<'_>, input: &[S], norm: &[[f32; 2]], slot: &mut [f32]) {
    let Layer { op, geometry, .. } = layer;
    let targets = slot.chunks_exact_mut((geometry.channels << geometry.doubling).max(1));
    for (target, values) in targets.zip(input.chunks_exact(usize::from(source.tensor.channels).max(1))) {
        let mut maps = norm.iter();
        for (target, value) in target.iter_mut().skip(source.channel).zip(values) {
            *target = gathered(op, value.to_f32(), maps.next().copied().unwrap_or_default());
        }
        if let Some((pixel, double)) = target.split_at_mut_checked(geometry.channels) {
            for (copy, &value) in double.iter_mut().zip(&*pixel) {
                *copy = value;
            }
        }
    }
}

/// What the computation of one tile reads and writes.
struct Operands<'a, E> {
    ring: &'a [f32],
    weights: &'a [[E; CHANNEL_BLOCK]],
    bias: &'a [f32],
    /// The row of the residual, if there is one at a place of its own.
    residual: Option<&'a [E]>,
    /// The row of the output.
    output: &'a mut [u8],
}

impl<'a, E: Float> Operands<'a, E> {
    fn bind(layer: &'a Layer<'_>, tile: &Tile, arena: &'a mut [u8]) -> Option<Self> {
        let bound = Bound::bind(layer, tile.y..tile.y + 1, arena)?;
        let taps = layer.geometry.taps();
        let block = tile.first() / CHANNEL_BLOCK;
        let weights: &[E] = layer.weights(tile, bound.window)?;
        Some(Self {
            ring: view(bound.ring)?,
            weights: weights.as_chunks().0.get(block * taps..(block + 1) * taps)?,
            bias: layer.bias(tile, bound.bias)?,
            residual: if bound.residual.is_empty() { None } else { Some(view(bound.residual)?) },
            output: bound.output,
        })
    }
}

/// One row of up to eight output channels.
fn compute<O: Float, E: Float>(layer: &Layer<'_>, tile: &Tile, operands: Operands<'_, E>) -> Option<()> {
    let Layer { op, geometry, .. } = layer;
    let Operands { ring, weights, bias, residual, output } = operands;
    let output: &mut [O] = view_mut(output)?;
    let last = geometry.output_columns.saturating_sub(1);
    let row = geometry.output_channels.max(1);
    let mut kept = residual.map(|residual| residual.chunks_exact(row));
    for (block, output) in output.chunks_mut((PIXELS * row).max(1)).enumerate() {
        let mut sums = [[0f32; CHANNEL_BLOCK]; PIXELS];
        for sum in &mut sums {
            for (sum, &bias) in sum.iter_mut().zip(bias) {
                *sum = bias;
            }
        }
        for (ky, weights) in weights.chunks_exact(geometry.run().max(1)).enumerate() {
            // Past the last pixel the last one is computed again; its sums are not stored.
            let patches: [&[f32]; PIXELS] =
                core::array::from_fn(|i| geometry.patch(ring, [tile.y, (PIXELS * block + i).min(last)], ky));
            if !E::SUMS_IN_CHAINS {
                dot_pixels(&mut sums, patches, weights);
                continue;
            }
            let mut patches = patches.map(|patch| patch.chunks(CHAIN));
            for weights in weights.chunks(CHAIN) {
                let mut parts = [[0f32; CHANNEL_BLOCK]; PIXELS];
                dot_pixels(&mut parts, patches.each_mut().map(|patch| patch.next().unwrap_or_default()), weights);
                for (sum, &part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
                    *sum += part;
                }
            }
        }
        for (sums, output) in sums.iter().zip(output.chunks_exact_mut(row)) {
            let mut kept = kept.as_mut().and_then(Iterator::next).into_iter().flatten().skip(tile.channel);
            for (&sum, output) in sums.iter().zip(output.iter_mut().skip(tile.channel)) {
                let kept = match kept.next() {
                    _ if op.residual == NONE => 0.0,
                    Some(kept) => kept.to_f32(),
                    None => output.to_f32(),
                };
                *output = O::from_f32(sum + op.residual_gain * kept);
            }
        }
    }
    Some(())
}
