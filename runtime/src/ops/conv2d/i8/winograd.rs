//! Convolution by tiles, see [`winograd`](crate::arch::winograd).
//!
//! A band of tiles is transformed once for all channels. The weights of two channels are transformed before they meet the
//! tiles, for each band again: no memory would hold them all.

use super::Operands;
use super::output::{Block, Place, Scales};
use super::weights::{Activation, Weights};
use crate::arch::patches::{GROUP, Group};
use crate::arch::winograd::{self, Pair, Products, two};
use crate::arch::{PIXELS, winograd_input, winograd_multiply, winograd_weights, winograd2_input, winograd2_weights};
use crate::format::{CHANNEL_BLOCK, Tiling};
use crate::ops::conv2d::{Geometry, Layer, Tile};
use crate::ops::tail;

/// Output channels whose weights are transformed at a time.
const CHANNELS: usize = 2;

/// Tiles of a pair.
const TILES: usize = 2;

/// Rows of outputs of a pair of tiles, at most.
const MOST_ROWS: usize = Tiling::Four.side();

/// The sums of products of one output channel at neighbouring pixels of a pair's rows.
type Sums = [[i32; PIXELS]; MOST_ROWS];

/// What tiles the elements of a ring are computed by.
pub(super) trait Tiles: Sized {
    const TILING: Tiling;

    /// Transforms the pair of tiles whose first output is pixel `x` of row `y`.
    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[Self], at: [usize; 2]);

    /// Transforms the weights of output channel `channel`, 0 or 1, of a pair.
    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]);

    /// The sums of output channel `channel`, 0 or 1, at the `part`th [`PIXELS`] of each row.
    fn output(sums: &mut Sums, products: &[Products], part: usize, channel: usize);
}

impl Tiles for i8 {
    const TILING: Tiling = Tiling::Four;

    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[i8], [y, x]: [usize; 2]) {
        for tile in 0..TILES {
            let x = x + tile * Self::TILING.side();
            winograd_input(pair, tile, under(geometry, ring, [y, x], winograd::SIDE));
        }
    }

    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
        winograd_weights(pair, channel, weights);
    }

    fn output(sums: &mut Sums, products: &[Products], part: usize, channel: usize) {
        if let Some(products) = products.first_chunk() {
            winograd::output(sums, products, part * CHANNELS + channel);
        }
    }
}

impl Tiles for i16 {
    const TILING: Tiling = Tiling::Two;

    fn transform(pair: &mut [Pair], geometry: &Geometry, ring: &[i16], at: [usize; 2]) {
        winograd2_input(pair, under(geometry, ring, at, two::COLUMNS));
    }

    fn transform_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
        winograd2_weights(pair, channel, weights);
    }

    fn output(sums: &mut Sums, products: &[Products], _part: usize, channel: usize) {
        if let (Some(products), Some(sums)) = (products.first_chunk(), sums.first_chunk_mut()) {
            two::output(sums, products, channel);
        }
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
    let Operands { ring, patches, weights, bias, sums, requant, residual, mut output } = operands;
    // Validation has seen that all of this is there.
    let Some(scratch) = Scratch::new::<R>(patches, geometry) else { return };
    let Scratch { tiles, channels, products, sums: block_sums } = scratch;
    let (rows, wide) = (R::TILING.side(), TILES * R::TILING.side());
    let pairs = || {
        let columns = (0..geometry.output_columns).step_by(wide);
        (0..band.rows).step_by(rows).flat_map(move |y| columns.clone().map(move |x| [y, x]))
    };
    let whole = channels.len().max(1);
    if band.gathers() {
        for ([y, x], pair) in pairs().zip(tiles.chunks_exact_mut(whole)) {
            R::transform(pair, geometry, ring, [band.y + y, x]);
        }
    }
    let taps = geometry.taps();
    for first in (0..band.count).step_by(CHANNEL_BLOCK) {
        let count = CHANNEL_BLOCK.min(band.count - first);
        for of_block in (0..count).step_by(CHANNELS) {
            for channel in 0..CHANNELS {
                #[cfg_attr(
                    not(feature = "i4"),
                    expect(irrefutable_let_patterns, reason = "the only layout without the feature")
                )]
                if let Weights::I8(weights) = weights {
                    R::transform_weights(channels, channel, tail(weights, (first + of_block + channel) * taps));
                }
            }
            for ([y, x], pair) in pairs().zip(tiles.chunks_exact(whole)) {
                winograd_multiply(products, pair, channels);
                for (part, channel) in (0..wide / PIXELS).flat_map(|part| (0..CHANNELS).map(move |c| (part, c))) {
                    let mut found = [[0; PIXELS]; MOST_ROWS];
                    R::output(&mut found, products, part, channel);
                    let quad = (y * geometry.output_columns + x) / PIXELS + part;
                    let targets = block_sums.iter_mut().skip(quad).step_by((geometry.output_columns / PIXELS).max(1));
                    for (sums, &found) in targets.zip(&found).take(rows) {
                        sums.get_mut(of_block + channel).into_iter().for_each(|sums| *sums = found);
                    }
                }
            }
        }
        let block =
            Block { op, scales, bias: tail(bias, first), sums: tail(sums, first), requant: tail(requant, first) };
        for (sums, pixel) in block_sums.iter().zip((0..).step_by(PIXELS)) {
            let at = pixel * geometry.output_channels + band.channel + first;
            let place = Place { at, advance: geometry.output_channels, pixels: PIXELS };
            block.write(sums.get(..count).unwrap_or_default(), residual.as_ref(), &mut output, place);
        }
    }
}

/// The parts of the tensor of tiles.
struct Scratch<'a> {
    /// A band's, in pairs.
    tiles: &'a mut [Pair],
    /// The transformed weights of two output channels.
    channels: &'a mut [Pair],
    products: &'a mut [Products],
    /// The sums of a block of channels, for each [`PIXELS`] of the band.
    sums: &'a mut [[[i32; PIXELS]; CHANNEL_BLOCK]],
}

impl<'a> Scratch<'a> {
    fn new<R: Tiles>(room: &'a mut [Group], geometry: &Geometry) -> Option<Self> {
        let points = R::TILING.points();
        let quads = geometry.band * geometry.output_columns / PIXELS;
        // Four groups are the sums of a block at one pixel of each quad, a half the products of a point.
        let (room, sums) = room.split_at_mut_checked(room.len().checked_sub(quads * CHANNEL_BLOCK / 2)?)?;
        let (room, products) = room.split_at_mut_checked(room.len().checked_sub(points / 2)?)?;
        let room: &mut [Pair] = bytemuck::must_cast_slice_mut(room);
        let tiles = room.len().checked_sub(geometry.channels / GROUP * points)?;
        let (tiles, channels) = room.split_at_mut_checked(tiles)?;
        let products = bytemuck::try_cast_slice_mut(products).ok()?;
        Some(Self { tiles, channels, products, sums: bytemuck::try_cast_slice_mut(sums).ok()? })
    }
}
