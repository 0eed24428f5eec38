//! Convolution by tiles, see [`winograd`](crate::arch::winograd).
//!
//! A band of tiles is transformed once for all channels. The weights of two channels come transformed from the file, or are
//! transformed before they meet the tiles, for each band again: no memory would hold them all.

use super::Operands;
use super::output::{Block, Place, Scales};
use super::weights::{Activation, Weights};
#[cfg(any(all(dsp, not(mve)), test))]
use crate::arch::patches::{self, Channels};
use crate::arch::patches::{BlockSums, GROUP, Group};
use crate::arch::winograd::{self, CHANNELS, Pair, Products, two};
use crate::arch::{PIXELS, winograd_input, winograd_multiply, winograd_output, winograd2_input, winograd2_output};
#[cfg(any(tile_kernels, test))]
use crate::arch::{winograd_weights, winograd2_weights};
use crate::format::{CHANNEL_BLOCK, Tiling};
use crate::ops::conv2d::{Geometry, Layer, Tile};
use crate::ops::tail;

/// Tiles of a pair.
const TILES: usize = 2;

/// What tiles the elements of a ring are computed by.
pub(super) trait Tiles: Sized {
    const TILING: Tiling;

    /// Transforms the pair of tiles whose first output is pixel `x` of row `y`.
    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[Self], at: [usize; 2]);

    /// Transforms the weights of output channel `channel`, 0 or 1, of a pair.
    #[cfg(any(tile_kernels, test))]
    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]);

    /// The sums of output channel `channel`, 0 or 1, at the `part`th [`PIXELS`] of each row, which are `stride` apart.
    fn output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], part: usize, channel: usize);
}

impl Tiles for i8 {
    const TILING: Tiling = Tiling::Four;

    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[i8], [y, x]: [usize; 2]) {
        for tile in 0..TILES {
            let x = x + tile * Self::TILING.side();
            winograd_input(pair, tile, under(geometry, ring, [y, x], winograd::SIDE));
        }
    }

    #[cfg(any(tile_kernels, test))]
    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
        winograd_weights(pair, channel, weights);
    }

    #[inline(always)]
    fn output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], part: usize, channel: usize) {
        winograd_output(sums, stride, products, part * CHANNELS + channel);
    }
}

impl Tiles for i16 {
    const TILING: Tiling = Tiling::Two;

    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[i16], at: [usize; 2]) {
        winograd2_input(pair, under(geometry, ring, at, two::COLUMNS));
    }

    #[cfg(any(tile_kernels, test))]
    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
        winograd2_weights(pair, channel, weights);
    }

    #[inline(always)]
    fn output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], _part: usize, channel: usize) {
        winograd2_output(sums, stride, products, channel);
    }
}

/// The `N` rows of `columns` pixels of the ring from that of output pixel `at` on.
fn under<'a, T, const N: usize>(geometry: &Geometry, ring: &'a [T], at: [usize; 2], columns: usize) -> [&'a [T]; N] {
    let mut rows = [&[] as &[T]; N];
    let [y, x] = at;
    for (row, input) in rows.iter_mut().zip(y..) {
        let start = geometry.slot(input) + x * geometry.channels;
        *row = ring.get(start..start + columns * geometry.channels).unwrap_or_default();
    }
    rows
}

/// The channels of a tile in a band of rows.
pub(super) fn compute<R: Activation, S: Scales>(layer: &Layer<'_>, scales: S, band: &Tile, operands: Operands<'_, R>) {
    let Layer { op, geometry, .. } = layer;
    let Operands { ring, patches, weights, bias, sums: of_weights, requant, residual, mut output } = operands;
    // Validation has seen that all of this is there.
    let Some(scratch) = Scratch::new::<R>(patches, geometry, !op.layout().is_transformed()) else { return };
    #[cfg_attr(not(any(tile_kernels, test)), expect(unused_variables, reason = "transformed weights are in the file"))]
    let Scratch { tiles, channels, products, sums: block_sums } = scratch;
    let (rows, wide) = (R::TILING.side(), TILES * R::TILING.side());
    let pairs = || {
        let columns = (0..geometry.output_columns).step_by(wide);
        (0..band.rows).step_by(rows).flat_map(move |y| columns.clone().map(move |x| [y, x]))
    };
    // Sums from one row of outputs to the next.
    let stride = geometry.output_columns / PIXELS * CHANNEL_BLOCK;
    let whole = (geometry.channels / GROUP * R::TILING.points()).max(1);
    if band.gathers() {
        for ([y, x], pair) in pairs().zip(tiles.chunks_exact_mut(whole)) {
            R::transform(pair, geometry, ring, [band.y + y, x]);
        }
    }
    for first in (0..band.count).step_by(CHANNEL_BLOCK) {
        let count = CHANNEL_BLOCK.min(band.count - first);
        for of_block in (0..count).step_by(CHANNELS) {
            let channels = match weights {
                #[cfg(feature = "stored-tiles")]
                Weights::Tiled(pairs) => {
                    tail(pairs, (first + of_block) / CHANNELS * whole).get(..whole).unwrap_or_default()
                }
                #[cfg(any(tile_kernels, test))]
                Weights::I8(weights) => {
                    for channel in 0..CHANNELS {
                        let row = (first + of_block + channel) * geometry.taps();
                        R::transform_weights(channels, channel, tail(weights, row));
                    }
                    &*channels
                }
                // Validation has seen that there are none.
                #[cfg(any(not(tile_kernels), feature = "i4"))]
                _ => return,
            };
            let mut pairs = tiles.chunks_exact(whole);
            for sums in block_sums.as_flattened_mut().chunks_mut((rows * stride).max(1)) {
                for (x, pair) in (0..geometry.output_columns).step_by(wide).zip(&mut pairs) {
                    winograd_multiply(products, pair, channels);
                    for channel in 0..CHANNELS {
                        for part in 0..wide / PIXELS {
                            let at = (x / PIXELS + part) * CHANNEL_BLOCK + of_block + channel;
                            R::output(sums.get_mut(at..).unwrap_or_default(), stride, products, part, channel);
                        }
                    }
                }
            }
        }
        let advance = geometry.output_channels;
        #[cfg(not(any(all(dsp, not(mve)), test)))]
        let done = 0;
        #[cfg(any(all(dsp, not(mve)), test))]
        let done = if of_weights.is_empty() {
            let channels = Channels {
                weights: &[],
                taps: 0,
                stride: 0,
                narrow: false,
                bias: tail(bias, first).get(..count).unwrap_or_default(),
                requant: tail(requant, first),
                zero: op.output_zero,
            };
            let offsets = core::array::from_fn(|pixel| pixel * advance);
            let place = patches::Place { at: band.channel + first, offsets };
            output.finish(op, &channels, block_sums, place, residual.as_ref())
        } else {
            0
        };
        if done >= count {
            continue;
        }
        let behind = first + done;
        let (bias, requant) = (tail(bias, behind), tail(requant, behind));
        let block = Block { op, scales, bias, sums: tail(of_weights, behind), requant };
        for (sums, pixel) in block_sums.iter().zip((0..).step_by(PIXELS)) {
            let place = Place { at: pixel * advance + band.channel + behind, advance, pixels: PIXELS };
            block.write(sums.get(done..count).unwrap_or_default(), residual.as_ref(), &mut output, place);
        }
    }
}

/// The parts of the tensor of tiles.
struct Scratch<'a> {
    /// A band's, in pairs.
    tiles: &'a mut [Pair],
    /// The transformed weights of two output channels; empty if they are in the file.
    channels: &'a mut [Pair],
    products: &'a mut [Products],
    /// The sums of a block of channels, for each [`PIXELS`] of the band.
    sums: &'a mut [BlockSums],
}

impl<'a> Scratch<'a> {
    fn new<R: Tiles>(room: &'a mut [Group], geometry: &Geometry, transforms: bool) -> Option<Self> {
        let points = R::TILING.points();
        let quads = geometry.band * geometry.output_columns / PIXELS;
        // Four groups are the sums of a block at one pixel of each quad, a half the products of a point.
        let (room, sums) = room.split_at_mut_checked(room.len().checked_sub(quads * CHANNEL_BLOCK / 2)?)?;
        let (room, products) = room.split_at_mut_checked(room.len().checked_sub(points / 2)?)?;
        let room: &mut [Pair] = bytemuck::must_cast_slice_mut(room);
        let of_channels = if transforms { geometry.channels / GROUP * points } else { 0 };
        let tiles = room.len().checked_sub(of_channels)?;
        let (tiles, channels) = room.split_at_mut_checked(tiles)?;
        let products = bytemuck::try_cast_slice_mut(products).ok()?;
        Some(Self { tiles, channels, products, sums: bytemuck::try_cast_slice_mut(sums).ok()? })
    }
}
