//! A 3×3 convolution over a ring of 16 bits by tiles of 2×2 outputs: Winograd's F(2×2, 3×3), which takes 16 products where the
//! convolution as it is defined takes 36. It is exact where the record limits the ring, whatever the weights are, see
//! [`arch::winograd`](crate::arch::winograd::two).

use std::vec::Vec;

use super::super::packed::panels;
use super::super::room;
use super::{Finish, Geometry};
use crate::arch::wide::{LANES, PANEL, PIXELS, Sums, Wide, Window};
use crate::format::Tiling;

/// Rows and columns of outputs of a tile.
pub(in crate::accelerator) const TILE: usize = Tiling::Two.side();

/// Rows and columns of a transformed tile.
pub(in crate::accelerator) const SIDE: usize = TILE + 2;

pub(in crate::accelerator) const POINTS: usize = Tiling::Two.points();

/// Bytes of transformed tiles and their products that are held before the next tiles are: a part of what is near a core.
const NEAR: usize = 3 << 17;

/// What the weights of three neighbours are transformed to.
#[inline(always)]
pub(in crate::accelerator) fn transform_weights([a, b, c]: [i16; 3]) -> [i16; SIDE] {
    [a, a + b + c, a - b + c, c]
}

/// `into = a + b`.
#[inline(always)]
fn add(into: &mut [i16], [a, b]: [&[i16]; 2]) {
    for ((into, a), b) in into.iter_mut().zip(a).zip(b) {
        *into = a.wrapping_add(*b);
    }
}

/// `into = a − b`.
#[inline(always)]
fn subtract(into: &mut [i16], [a, b]: [&[i16]; 2]) {
    for ((into, a), b) in into.iter_mut().zip(a).zip(b) {
        *into = a.wrapping_sub(*b);
    }
}

/// One of the rows of `Bᵀ d`, of runs of `len` values that start at `places`.
#[inline(always)]
fn transform(into: &mut [i16], values: &[i16], row: usize, places: [usize; SIDE]) -> Option<()> {
    let len = into.len();
    let at = |which: usize| values.get(*places.get(which)?..)?.get(..len);
    match row {
        0 => subtract(into, [at(0)?, at(2)?]),
        1 => add(into, [at(1)?, at(2)?]),
        2 => subtract(into, [at(2)?, at(1)?]),
        _ => subtract(into, [at(1)?, at(3)?]),
    }
    Some(())
}

/// A number for each tile and channel of what is multiplied together.
type Block = [i32; PIXELS * LANES];

/// The four outputs of tiles, of products at their points.
#[inline(always)]
fn outputs(outputs: &mut [Block; TILE * TILE], points: [&Block; POINTS]) {
    let [first, second, third, fourth] = outputs;
    // A loop that is too long to be unrolled becomes one of vectors.
    for lane in 0..PIXELS * LANES {
        let mut columns = [[0; TILE]; SIDE];
        for (column, into) in columns.iter_mut().enumerate() {
            let [a, b, c, d] =
                [points[column], points[SIDE + column], points[2 * SIDE + column], points[3 * SIDE + column]];
            *into = inverse([a[lane], b[lane], c[lane], d[lane]]);
        }
        let [[a, e], [b, f], [c, g], [d, h]] = columns;
        let ([i, j], [k, l]) = (inverse([a, b, c, d]), inverse([e, f, g, h]));
        (first[lane], second[lane], third[lane], fourth[lane]) = (i >> 2, j >> 2, k >> 2, l >> 2);
    }
}

/// `Aᵀ`, twice where `G` is taken once.
#[inline(always)]
fn inverse(m: [i32; SIDE]) -> [i32; TILE] {
    let (near, far) = (m[1].wrapping_add(m[2]), m[1].wrapping_sub(m[2]));
    [near.wrapping_add(m[0] << 1), far.wrapping_sub(m[3] << 1)]
}

/// Multiplies the padded input with all weights, which stand in the order of [`Wide`] for each panel and, within it, each point.
#[inline(always)]
pub(super) fn multiply<W: Wide>(
    wide: W,
    geometry: &Geometry,
    (input, weights): (&[i16], &[i16]),
    [lines, transformed, products]: [&mut Vec<u64>; 3],
    results: &mut impl Finish<i32>,
) -> Option<()> {
    let Geometry { channels, output: [rows, columns], outputs: all, .. } = *geometry;
    let (pitch, across) = (geometry.pitch(), columns / TILE);
    let of_tile = POINTS * (channels * size_of::<i16>() + PANEL * LANES * size_of::<i32>());
    let band = (NEAR / (across * of_tile).max(1)).max(1);
    let lines: &mut [i16] = room(lines, pitch);
    for first in (0..rows / TILE).step_by(band) {
        let down = band.min(rows / TILE - first);
        let tiles = down * across;
        let transformed: &mut [i16] = room(transformed, tiles * POINTS * channels);
        let parts = tiles.div_ceil(PIXELS);
        let products: &mut [Sums<i32>] = room(products, POINTS * parts);
        for y in 0..down {
            let above = (first + y) * TILE * pitch;
            for row in 0..SIDE {
                transform(lines, input, row, [above, above + pitch, above + 2 * pitch, above + 3 * pitch])?;
                for column in 0..SIDE {
                    let start = ((row * SIDE + column) * tiles + y * across) * channels;
                    let points = transformed.get_mut(start..start + across * channels)?;
                    for (x, point) in points.chunks_exact_mut(channels).enumerate() {
                        let left = x * TILE * channels;
                        let places = [left, left + channels, left + 2 * channels, left + 3 * channels];
                        transform(point, lines, column, places)?;
                    }
                }
            }
        }
        let mut weights = weights;
        let mut block = 0;
        for blocks in panels(all) {
            let (panel, rest) = weights.split_at_checked(blocks * LANES * POINTS * channels)?;
            weights = rest;
            let weights = panel.chunks_exact(blocks * LANES * channels);
            let points = transformed.chunks_exact(tiles * channels);
            for ((sums, weights), values) in products.chunks_exact_mut(parts).zip(weights).zip(points) {
                for (sums, tile) in sums.iter_mut().zip((0..tiles).step_by(PIXELS)) {
                    let mut places = [0; PIXELS];
                    for (at, place) in places.iter_mut().enumerate() {
                        // Past the last tile the last one is computed again; its sums are not used.
                        *place = (tile + at).min(tiles - 1) * channels;
                    }
                    let window = Window::new(values, places, [1, channels], 0)?;
                    match blocks {
                        1 => wide.multiply_words::<1>(sums, &window, weights),
                        2 => wide.multiply_words::<2>(sums, &window, weights),
                        _ => wide.multiply_words::<PANEL>(sums, &window, weights),
                    }
                }
            }
            let mut sums = [[0; PIXELS * LANES]; TILE * TILE];
            for of in 0..blocks {
                let bias = results.begin(block + of);
                for (part, tiles) in (0..tiles).step_by(PIXELS).map(|tile| tile..tiles.min(tile + PIXELS)).enumerate() {
                    let mut points = [&[0; PIXELS * LANES]; POINTS];
                    for (point, sums) in points.iter_mut().zip(products.chunks_exact(parts)) {
                        *point = bytemuck::cast_ref(sums.get(part)?.get(of)?);
                    }
                    outputs(&mut sums, points);
                    for (which, sums) in sums.iter_mut().enumerate() {
                        for (tile, lanes) in tiles.clone().zip(sums.as_chunks_mut::<LANES>().0) {
                            for (lane, bias) in lanes.iter_mut().zip(bias) {
                                *lane = lane.wrapping_add(bias);
                            }
                            let (y, x) = (first + tile / across, tile % across);
                            let pixel = (TILE * y + which / TILE) * columns + TILE * x + which % TILE;
                            results.finish(wide, pixel, block + of, lanes);
                        }
                    }
                }
            }
            block += blocks;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
