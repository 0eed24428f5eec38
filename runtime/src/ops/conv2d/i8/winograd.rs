//! Convolution by tiles, see [`winograd`](crate::arch::winograd).
//!
//! A band of tiles is transformed once for all channels. The weights of two channels are transformed before they meet the
//! tiles, for each band again: no memory would hold them all.

use super::Operands;
use super::output::{Block, Place, Scales};
use super::weights::Weights;
use crate::arch::patches::Group;
use crate::arch::winograd::{POINTS, Pair, Products, SIDE, output};
use crate::arch::{winograd_input, winograd_multiply, winograd_weights};
use crate::format::TILE;
use crate::ops::conv2d::{Layer, Tile};
use crate::ops::tail;

/// Output channels whose weights are transformed at a time.
const CHANNELS: usize = 2;

/// Tiles of a pair.
const TILES: usize = 2;

/// The channels of a tile in a band of rows.
pub(super) fn compute<S: Scales>(layer: &Layer<'_>, scales: S, band: &Tile, operands: Operands<'_, i8>) {
    let Layer { op, geometry, .. } = layer;
    let Operands { ring, patches, weights, bias, sums, requant, residual, mut output } = operands;
    // Validation has seen that all of this is there.
    let Some(scratch) = Scratch::new(patches, geometry.channels) else { return };
    let Scratch { tiles, channels, products } = scratch;
    let columns = geometry.output_columns / (TILES * TILE);
    let pairs = || (0..band.rows).step_by(TILE).flat_map(|y| (0..columns).map(move |x| [y, x * TILES * TILE]));
    let whole = tiles.len() / (columns * (band.rows / TILE)).max(1);
    if band.gathers() {
        for ([y, x], pair) in pairs().zip(tiles.chunks_mut(whole.max(1))) {
            for tile in 0..TILES {
                let mut rows = [&[] as &[i8]; SIDE];
                for (row, input) in rows.iter_mut().zip(band.y + y..) {
                    let start = geometry.slot(input) + (x + tile * TILE) * geometry.channels;
                    *row = ring.get(start..start + SIDE * geometry.channels).unwrap_or_default();
                }
                winograd_input(pair, tile, rows);
            }
        }
    }
    let taps = geometry.taps();
    for first in (0..band.count).step_by(CHANNELS) {
        for channel in 0..CHANNELS {
            #[cfg_attr(
                not(feature = "i4"),
                expect(irrefutable_let_patterns, reason = "the only layout without the feature")
            )]
            if let Weights::I8(weights) = weights {
                winograd_weights(channels, channel, tail(weights, (first + channel) * taps));
            }
        }
        let block =
            Block { op, scales, bias: tail(bias, first), sums: tail(sums, first), requant: tail(requant, first) };
        for ([y, x], pair) in pairs().zip(tiles.chunks(whole.max(1))) {
            winograd_multiply(products, pair, channels);
            for tile in 0..TILES {
                let [mut a, mut b] = [[[0; TILE]; TILE]; CHANNELS];
                self::output(&mut a, products, tile * CHANNELS);
                self::output(&mut b, products, tile * CHANNELS + 1);
                for ((&a, &b), row) in a.iter().zip(&b).zip(y..) {
                    let pixel = row * geometry.output_columns + x + tile * TILE;
                    let at = pixel * geometry.output_channels + band.channel + first;
                    let place = Place { at, advance: geometry.output_channels, pixels: TILE };
                    block.write(&[a, b], residual.as_ref(), &mut output, place);
                }
            }
        }
    }
}

/// The parts of the tensor of tiles.
struct Scratch<'a> {
    /// A band's, in pairs.
    tiles: &'a mut [Pair],
    /// The transformed weights of two output channels.
    channels: &'a mut [Pair],
    products: &'a mut [Products; POINTS],
}

impl<'a> Scratch<'a> {
    fn new(room: &'a mut [Group], channels: usize) -> Option<Self> {
        let room: &mut [Pair] = bytemuck::must_cast_slice_mut(room);
        // Four channels in a pair at each point.
        let pair = channels / 4 * POINTS;
        let tiles = room.len().checked_sub(2 * pair)?;
        let (tiles, room) = room.split_at_mut_checked(tiles)?;
        let (channels, products) = room.split_at_mut_checked(pair)?;
        let products: &mut [Products] = bytemuck::try_cast_slice_mut(products).ok()?;
        Some(Self { tiles, channels, products: products.first_chunk_mut()? })
    }
}
