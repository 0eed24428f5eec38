//! Convolution in the `i8` precision: `i8` or `i16` activations, `i8` or four-bit weights, `i32` accumulators that wrap.
//!
//! The exporter chooses the width of `i16` rings so that no accumulator of the layer can leave 32 bits.

mod gather;
mod output;
mod values;
mod weights;
#[cfg(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles")))]
mod winograd;

pub use self::gather::{gathered, limited, raw_map};
#[cfg(feature = "std")]
pub(crate) use self::output::sum;
pub use self::output::{finished, rescaled};

use self::gather::gather_row;
use self::output::{Block, OfRecord, OfStep, Place, Scales};
use self::values::Values;
use self::weights::{Activation, Taps, Weights};
use super::{BY_ROWS, Bound, Layer, Tile};
use crate::arch::PIXELS;
#[cfg(feature = "i4")]
use crate::arch::QUAD;
#[cfg(feature = "stored-tiles")]
use crate::arch::patches::GROUP;
#[cfg(any(scalar, test))]
use crate::arch::patches::Idle;
#[cfg(any(dsp, test))]
use crate::arch::patches::{self, Channels};
use crate::arch::patches::{Group, Window};
#[cfg(feature = "stored-tiles")]
use crate::arch::winograd::{CHANNELS, Pair};
use crate::format::{CHANNEL_BLOCK, Conv2d, Element, StepScales, WeightLayout};
use crate::ops::{Context, sources, tail, view, view_mut};

pub(crate) fn run(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
    let layer = Layer::new(context, op)?;
    let tile = layer.geometry.tile(slice);
    if cfg!(feature = "step-scales") && op.weight_sums != 0 {
        let at = context.biases_of_step() + op.step_scales;
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
    let sources = sources(layer.context, layer.op.sources)?;
    let mut room = Room { starts: [0; KERNEL_ROWS], accumulators: [[0; PIXELS]; CHANNEL_BLOCK] };
    for band in tile.parts(layer.geometry.band) {
        // What a band needs is there from its first row on.
        if band.gathers() && (!BY_ROWS || band.y.is_multiple_of(layer.geometry.band)) {
            for ring_row in layer.geometry.new_rows(band.y) {
                gather_row::<R>(layer, &sources, ring_row, arena)?;
            }
        }
        // Without kernels for tiles the convolution as it is defined is faster, where its weights are there.
        #[cfg(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles")))]
        if layer.op.tile_rows > 0 && (cfg!(any(tile_kernels, test)) || layer.op.layout().is_transformed()) {
            winograd::compute(layer, scales, &band, Operands::<R>::bind(layer, &band, arena)?);
            continue;
        }
        for row in band.parts(1) {
            compute(layer, scales, &row, Operands::<R>::bind(layer, &row, arena)?, &mut room);
        }
    }
    Some(())
}

/// What the computation of one tile reads and writes.
struct Operands<'a, R> {
    ring: &'a [R],
    /// Room for the patches of four pixels or for transformed tiles, which are more; empty if there is none.
    patches: &'a mut [Group],
    weights: Weights<'a>,
    bias: &'a [i32],
    /// Sums of each channel's weights; empty if the record's scales hold.
    sums: &'a [i32],
    requant: &'a [[i32; 2]],
    /// The rows of the residual, if there is one at a place of its own.
    residual: Option<Values<'a>>,
    /// The rows of the output.
    output: Values<'a>,
}

impl<'a, R: Activation> Operands<'a, R> {
    fn bind(layer: &'a Layer<'_>, tile: &Tile, arena: &'a mut [u8]) -> Option<Self> {
        let Layer { context, op, output, geometry, .. } = layer;
        let bound = Bound::bind(layer, tile.y..tile.y + tile.rows, arena)?;
        let taps = geometry.taps();
        let first = tile.first();
        let weights = match op.layout() {
            #[cfg(feature = "i4")]
            WeightLayout::Groups4 => {
                let weights: &[u16] = layer.weights(tile, bound.window)?;
                Weights::I4(weights.get(first / QUAD * taps..(first + tile.count).div_ceil(QUAD) * taps)?)
            }
            #[cfg(feature = "stored-tiles")]
            WeightLayout::Tiles4 | WeightLayout::Tiles2 => {
                // By words, which kernels load.
                let words: &[[u32; 4]] = layer.weights(tile, bound.window)?;
                let pairs: &[Pair] = bytemuck::must_cast_slice(words);
                let of_two = op.tiling().points() * geometry.channels / GROUP;
                Weights::Tiled(pairs.get(first / CHANNELS * of_two..)?)
            }
            // Behind the last row kernels read what multiplies zeros.
            WeightLayout::Rows8 => Weights::I8(layer.weights(tile, bound.window)?.get(first * taps..)?),
            // Those of other precisions, or without the feature.
            _ => return None,
        };
        let sums: &[i32] = if op.weight_sums == 0 {
            &[]
        } else {
            context.data(op.weight_sums, geometry.output_channels)?.get(tile.channels())?
        };
        let residual = match layer.residual {
            Some(residual) => Some(Values::new(residual.element(), bound.residual)?),
            None => None,
        };
        Some(Self {
            ring: view(bound.ring)?,
            patches: view_mut(bound.patches)?,
            weights,
            bias: layer.bias(tile, bound.bias)?,
            sums,
            requant: context.data(op.requant, geometry.output_channels)?.get(tile.channels())?,
            residual,
            output: Values::new(output.element(), bound.output)?,
        })
    }
}

/// Rows of a kernel, at most.
const KERNEL_ROWS: usize = 15;

/// What rows use one after the other.
struct Room {
    /// Where the rows of the kernel begin in the ring.
    starts: [usize; KERNEL_ROWS],
    accumulators: [[i32; PIXELS]; CHANNEL_BLOCK],
}

/// The channels of a tile in one row.
fn compute<R: Activation, S: Scales>(
    layer: &Layer<'_>,
    scales: S,
    tile: &Tile,
    operands: Operands<'_, R>,
    room: &mut Room,
) {
    let Layer { op, geometry, .. } = layer;
    let Operands { ring, patches, weights, bias, sums, requant, residual, mut output } = operands;
    let last = geometry.output_columns.saturating_sub(1);
    let (taps, run) = (geometry.taps(), geometry.run());
    // Rows of the kernel over padding add nothing where padding is zero.
    let rows = if op.ring_zero == 0 { geometry.covered_rows(tile.y) } else { 0..geometry.kernel[0] };
    let used = rows.start * run..rows.end * run;
    #[cfg(mve)]
    let vectors = crate::arch::mve::decide(requant, op.residual != crate::format::NONE);
    #[cfg(all(not(mve), any(dsp, test)))]
    let vectors = true;
    let Room { starts, accumulators } = room;
    let starts = starts.get_mut(..rows.len()).unwrap_or_default();
    for (start, ky) in starts.iter_mut().zip(rows.clone()) {
        *start = geometry.slot(tile.y * geometry.stride + ky);
    }
    // A kernel of whole convolutions may share an only pixel's activations between channels; other products would be of four.
    #[cfg(not(any(dsp, test)))]
    let patches = if geometry.output_columns == 1 { &mut [] } else { patches };
    for x in (0..geometry.output_columns).step_by(PIXELS) {
        // Past the last pixel the last one is computed again. By a loop, as small code has one for each array otherwise.
        let [mut pixels, mut inputs, mut offsets] = [[0; PIXELS]; 3];
        for (((pixel, input), offset), x_of) in pixels.iter_mut().zip(&mut inputs).zip(&mut offsets).zip(x..) {
            *pixel = x_of.min(last);
            *input = *pixel * geometry.advance();
            *offset = (*pixel - x) * geometry.output_channels;
        }
        let at = x * geometry.output_channels + tile.channel;
        if !patches.is_empty() {
            (R::patches().unfold)(patches, &Window { ring, rows: starts, pixels: inputs, run });
        }
        #[cfg(not(any(dsp, test)))]
        let done = 0;
        #[cfg(any(dsp, test))]
        let done = {
            match weights {
                Weights::I8(weights) if !patches.is_empty() && sums.is_empty() && vectors => {
                    let weights = tail(weights, used.start);
                    let zero = op.output_zero;
                    let narrow = size_of::<R>() == 1;
                    let channels = Channels { weights, taps: used.len(), stride: taps, narrow, bias, requant, zero };
                    output.convolve(op, &channels, patches, patches::Place { at, offsets }, residual.as_ref())
                }
                _ => 0,
            }
        };
        for first in (done..tile.count).step_by(CHANNEL_BLOCK) {
            let count = (tile.count - first).min(CHANNEL_BLOCK);
            let block = weights.of_channels(first, count, taps);
            if patches.is_empty() {
                for (pixel, x) in pixels.into_iter().take(geometry.output_columns - x).enumerate() {
                    let runs = starts.iter().map(|start| tail(ring, start + x * geometry.advance()).get(..run));
                    block.multiply(runs.flatten(), [taps, used.start], pixel, accumulators);
                }
            } else {
                #[cfg(any(scalar, test))]
                let block = weights.with_behind(first, count, taps);
                let taps = Taps {
                    all: taps,
                    used: used.clone(),
                    #[cfg(any(scalar, test))]
                    idle: if op.ring_zero == 0 { geometry.idle(pixels) } else { Idle::default() },
                };
                block.multiply_patches::<R>(patches, taps, accumulators);
            }
            let block =
                Block { op, scales, bias: tail(bias, first), sums: tail(sums, first), requant: tail(requant, first) };
            let place =
                Place { at: at + first, advance: geometry.output_channels, pixels: geometry.output_columns - x };
            block.write(accumulators.get(..count).unwrap_or_default(), residual.as_ref(), &mut output, place);
        }
    }
}
