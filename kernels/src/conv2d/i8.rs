//! Convolution in the `i8` precision: an implicit matrix product of bytes on the tensor cores. Activations of 16 bits are two
//! planes of bytes, the low one unsigned: `x = 256·high + low`, and so are the sums, modulo 2³² like the device's.

#[cfg(feature = "host")]
use alloc::vec::Vec;

use bytemuck::{Pod, Zeroable};
use waft::arithmetic::conv2d::{finished, gathered, limited, raw_map, rescaled};
use waft::fixed::{saturate_i8, saturate_i16};
use waft::format::{Conv2d, NONE, StepScales};

use super::Parameters;
use crate::memory::{Memory, Space};
use crate::warp::{LANES, TILE_CHANNELS, TILE_DEPTH, TILE_PIXELS, Tile, Warp, tile_place};
use crate::{Body, State, Threads};

/// Activations under one row of the kernel, in whole fragments.
#[inline(always)]
fn run_len(op: &Conv2d, padded_channels: u32) -> u32 {
    (u32::from(op.kernel[1]) * padded_channels).next_multiple_of(TILE_DEPTH as u32)
}

/// The weights of operation `index`, from `file`: the model's own bytes, or those of its weights' file. They come in the
/// order in which warps read them: by 16 output channels, kernel row, fragment of depth, and two fragments of channels;
/// zeros between. `None` if it is no convolution of the `i8` precision.
#[cfg(feature = "host")]
pub fn pack(model: &waft::Model<'_>, index: u16, file: &[u8]) -> Option<Vec<u8>> {
    use waft::format::{Op, Precision, WeightLayout};

    let Op::Conv2d(op) = model.op(index)? else { return None };
    if model.precision() != Precision::I8 {
        return None;
    }
    let inputs = usize::from(model.tensor(op.scratch)?.channels);
    let outputs = usize::from(op.computed(model.tensor(op.output)?).channels);
    let [kernel_rows, kernel_columns] = op.kernel.map(usize::from);
    let weights = super::Weights::new(model, &op, file)?;
    let weight = |channel: usize, tap: usize| {
        let bits = weights.bits(channel, tap)? as u8;
        Some(if op.layout() == WeightLayout::Groups4 { ((bits << 4) as i8 >> 4) as u8 } else { bits })
    };
    let padded = inputs.next_multiple_of(4);
    let fragments = run_len(&op, padded as u32) as usize / TILE_DEPTH;
    let mut packed = Vec::new();
    for tile in 0..outputs.div_ceil(TILE_CHANNELS) {
        for row in 0..kernel_rows {
            for place in 0..fragments * 2 * 4 * LANES {
                let (fragment, place) = (place / (8 * LANES), place % (8 * LANES));
                let (half, lane, byte) = (place / (4 * LANES), place / 4 % LANES, place % 4);
                let channel = tile * TILE_CHANNELS + 8 * half + lane / 4;
                let depth = fragment * TILE_DEPTH + lane % 4 * 4 + byte;
                let (column, input) = (depth / padded, depth % padded);
                let is_weight = channel < outputs && column < kernel_columns && input < inputs;
                let tap = (row * kernel_columns + column) * inputs + input;
                packed.push(if is_weight { weight(channel, tap)? } else { 0 });
            }
        }
    }
    Some(packed)
}

/// Gathers the padded, transformed input: a thread four channels of a pixel.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GatherKernel(pub Parameters);

impl Threads for GatherKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.padded_rows * self.0.padded_columns * (self.0.padded_channels / 4)
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let [row, column, quad] = p.gather_place(item, p.padded_channels / 4);
        let first = quad * 4;
        let mut op = p.op;
        if let Some(scales) = p.step_scales(&op, memory, &memory.load(Space::State, 0)) {
            op = op.during(&scales);
        }
        let arena = p.strides.arena(picture);
        let source_pixel = p.source_pixel(&op, row, column);
        let mut low = [0u8; 4];
        let mut high = [0u8; 4];
        for i in 0..4 {
            let channel = first + i as u32;
            if channel >= p.channels {
                break;
            }
            let value = match source_pixel {
                None => op.ring_zero,
                Some(pixel) => {
                    let (source, tensor, in_source) = p.source_channel(channel);
                    let value = tensor.integer(memory, arena, pixel * tensor.channels + in_source);
                    let map = p.map(&op, memory, arena, channel);
                    let raw = if source == 0 { raw_map(&op, 0) } else { raw_map(&op, 1) };
                    gathered(&op, raw, value, map)
                }
            };
            if p.wide == 0 {
                low[i] = saturate_i8(value) as u8;
            } else {
                [low[i], high[i]] = saturate_i16(limited(op.ring_limit, value)).to_le_bytes();
            }
        }
        let at = p.strides.scratch(picture) + ((row * p.padded_columns + column) * p.padded_channels + first) as usize;
        memory.store(Space::Scratch, at, u32::from_le_bytes(low));
        if p.wide != 0 {
            memory.store(Space::Scratch, at + p.plane_bytes as usize, u32::from_le_bytes(high));
        }
    }
}

/// Multiplies: a warp 32 pixels, of whatever pictures, and 16 output channels.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MultiplyKernel(pub Parameters);

impl Body for MultiplyKernel {
    fn warps(&self, batch: u32) -> u64 {
        let pixels = u64::from(self.0.output.rows * self.0.output.columns) * u64::from(batch);
        pixels.div_ceil(TILE_PIXELS as u64) * u64::from(self.0.output.channels.div_ceil(TILE_CHANNELS as u32))
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        let p = &self.0;
        let op = p.op;
        let channel_tiles = p.output.channels.div_ceil(TILE_CHANNELS as u32);
        let (first_pixel, channel_tile) = (index / channel_tiles * TILE_PIXELS as u32, index % channel_tiles);
        let pixels = p.output.rows * p.output.columns;
        let last_pixel = pixels * batch - 1;
        let fragments = run_len(&op, p.padded_channels) / TILE_DEPTH as u32;
        let row_bytes = p.padded_columns * p.padded_channels;

        // Where each lane's four activations of each fragment's pixel start. Past the last pixel it is computed again.
        let starts = warp.each(|lane| {
            [0, 8, 16, 24].map(|fragment| {
                let pixel = (first_pixel + fragment + lane / 4).min(last_pixel);
                let (picture, pixel) = (pixel / pixels, pixel % pixels);
                let (y, x) = (pixel / p.output.columns, pixel % p.output.columns);
                let stride = u32::from(op.stride);
                let element = y * stride * row_bytes + x * stride * p.padded_channels + lane % 4 * 4;
                p.strides.scratch(picture) + element as usize
            })
        });
        let mut low: W::Each<Tile> = warp.each(|_| Tile::default());
        let mut high: W::Each<Tile> = warp.each(|_| Tile::default());
        let mut weights_at =
            p.weights_at as usize + (channel_tile * u32::from(op.kernel[0]) * fragments) as usize * (2 * 4 * LANES);
        for row in 0..u32::from(op.kernel[0]) {
            for fragment in 0..fragments {
                let offset = (row * row_bytes + fragment * TILE_DEPTH as u32) as usize;
                let weights = warp.each(|lane| {
                    let at = weights_at + 4 * lane as usize;
                    [memory.load(Space::Constants, at), memory.load(Space::Constants, at + 4 * LANES)]
                });
                weights_at += 2 * 4 * LANES;
                let plane = |plane: usize| {
                    warp.map(starts, |starts: [usize; 4]| {
                        starts.map(|at| memory.load(Space::Scratch, at + offset + plane))
                    })
                };
                if p.wide == 0 {
                    warp.multiply(&mut low, plane(0), weights, false);
                } else {
                    warp.multiply(&mut low, plane(0), weights, true);
                    warp.multiply(&mut high, plane(p.plane_bytes as usize), weights, false);
                }
            }
        }

        let state: State = memory.load(Space::State, 0);
        let scales = p.step_scales(&op, memory, &state);
        let sums = warp.zip(low, high, |low, high| (low, high));
        let rest = Rest { op: &op, scales, state: &state, pixels, last_pixel };
        let channel = channel_tile * TILE_CHANNELS as u32;
        // Spelled out, so that sums stay in registers; in two halves, of which the compiler makes no functions.
        macro_rules! store {
            ($(($i:literal, $j:literal, $k:literal))*) => {
                warp.with(sums, |lane, (low, high)| {
                    let (pixel, channel_in_tile) = tile_place(lane);
                    let (pixel, channel) = (first_pixel + pixel, channel + channel_in_tile);
                    $(
                        let sum = low[$i][$j][$k].wrapping_add(high[$i][$j][$k] << 8);
                        self.store(memory, &rest, pixel + 8 * $i, channel + 8 * $j + $k, sum);
                    )*
                });
            };
        }
        store! { (0, 0, 0) (0, 0, 1) (0, 1, 0) (0, 1, 1) (1, 0, 0) (1, 0, 1) (1, 1, 0) (1, 1, 1) }
        store! { (2, 0, 0) (2, 0, 1) (2, 1, 0) (2, 1, 1) (3, 0, 0) (3, 0, 1) (3, 1, 0) (3, 1, 1) }
    }
}

/// What storing a result needs besides the parameters.
struct Rest<'a> {
    op: &'a Conv2d,
    scales: Option<StepScales>,
    state: &'a State,
    pixels: u32,
    last_pixel: u32,
}

impl MultiplyKernel {
    /// Turns a sum into the result of a pixel of the batch and a channel, if they exist.
    #[inline(always)]
    fn store<M: Memory>(&self, memory: M, rest: &Rest<'_>, pixel: u32, channel: u32, sum: i32) {
        let p = &self.0;
        if pixel > rest.last_pixel || channel >= p.output.channels {
            return;
        }
        let (arena, pixel) = (p.strides.arena(pixel / rest.pixels), pixel % rest.pixels);
        let bias: i32 = p.bias(rest.op, memory, arena, rest.state, channel);
        let requant: [i32; 2] = memory.load(Space::Constants, rest.op.requant as usize + 8 * channel as usize);
        let element = pixel * p.output.channels + channel;
        let kept = (rest.op.residual != NONE).then(|| p.residual.integer(memory, arena, element));
        let accumulator = match rest.scales {
            None => sum.wrapping_add(bias),
            Some(scales) => {
                let at = rest.op.weight_sums as usize + 4 * channel as usize;
                let weight_sum: i32 = memory.load(Space::Constants, at);
                rescaled(scales.ring_zero, sum, weight_sum, scales.rescale, bias)
            }
        };
        let value = finished(rest.op, accumulator, requant, kept);
        p.output.set_integer(memory, arena, element, value);
    }
}
