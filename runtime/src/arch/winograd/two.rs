//! Winograd's algorithm F(2×2, 3×3) for activations of 16 bits, exact in integers.
//!
//! A tile of 4×4 inputs gives 2×2 outputs of one channel by 16 products for each input channel, where the convolution itself
//! takes 36. The rows of `G` with a denominator are taken twice, and `Aᵀ` twice where they are not, so that all numbers are
//! integers and the result is four times the sum of products.
//!
//! - Transformed inputs are sums of four, for which a ring's [limit](crate::format::Tiling::ring_limit) leaves room in 16 bits;
//!   transformed weights are at most 9·128 from zero.
//! - Products and their sums wrap modulo 2³². What is shifted right by two is the sum of products itself, as the limit keeps
//!   that within 30 bits whatever the weights are.
//!
//! The two tiles of a pair are neighbours of one row, and share two columns of their inputs.

#[cfg(any(not(tile_kernels), test))]
use super::Pair;
#[cfg(any(not(dsp), test))]
use super::Products;
#[cfg(any(not(dsp), test))]
use crate::arch::PIXELS;
use crate::format::Tiling;

/// Rows and columns of outputs of a tile.
pub(crate) const TILE: usize = Tiling::Two.side();

/// Rows and columns of a transformed tile.
pub(crate) const SIDE: usize = TILE + 2;

/// Elements of a transformed tile.
pub(crate) const POINTS: usize = Tiling::Two.points();

/// Columns of inputs of a pair of tiles.
pub(crate) const COLUMNS: usize = SIDE + TILE;

/// `Bᵀ d` for numbers, or for pairs of them.
#[cfg(any(not(dsp), test))]
#[inline(always)]
pub(in crate::arch) fn transform_input<T: Copy>(
    d: [T; SIDE],
    add: impl Fn(T, T) -> T,
    sub: impl Fn(T, T) -> T,
) -> [T; SIDE] {
    [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])]
}

/// `G g`, twice where it has denominators.
#[cfg(any(scalar, test))]
#[inline(always)]
pub(in crate::arch) fn transform_weights<T: Copy>(
    g: [T; 3],
    add: impl Fn(T, T) -> T,
    sub: impl Fn(T, T) -> T,
) -> [T; SIDE] {
    let near = add(g[0], g[2]);
    [g[0], add(near, g[1]), sub(near, g[1]), g[2]]
}

/// The definitions of the kernels.
#[cfg(any(not(dsp), test))]
pub(in crate::arch) mod reference {
    #[cfg(any(not(tile_kernels), test))]
    use super::super::GROUP;
    #[cfg(any(not(tile_kernels), test))]
    use super::super::reference::put;
    use super::super::reference::{NEXT, span};
    use super::*;

    /// Transforms a pair of tiles: `rows` are four rows of six pixels with all channels, a multiple of four. The pair has its
    /// groups of channels at the first point, then those at the second, and so on.
    #[cfg(any(not(tile_kernels), test))]
    #[inline(never)]
    pub(crate) fn winograd2_input(pair: &mut [Pair], rows: [&[i16]; SIDE]) {
        let groups = pair.len() / POINTS;
        let pixel = groups * GROUP;
        for channel in 0..pixel {
            let column = |x: usize| {
                let at = rows.map(|row| row.get(x * pixel + channel).copied().unwrap_or_default());
                transform_input(at, i16::wrapping_add, i16::wrapping_sub)
            };
            let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
            for (tile, [a, b, c, d]) in [[a, b, c, d], [c, d, e, f]].into_iter().enumerate() {
                for (row, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let points = transform_input([a, b, c, d], i16::wrapping_add, i16::wrapping_sub);
                    for (point, value) in (row * SIDE..).zip(points) {
                        put(pair, point * groups, tile, channel, value);
                    }
                }
            }
        }
    }

    /// The sums of products of both tiles of a pair, those of output channel `channel`, 0 or 1: two rows of sums, `stride` apart.
    #[inline(never)]
    pub(crate) fn winograd2_output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], channel: usize) {
        let ([a, b], [c, d]) = (tile(products, channel), tile(products, 2 + channel));
        let rows = [[a[0], a[1], c[0], c[1]], [b[0], b[1], d[0], d[1]]];
        sums.iter_mut().step_by(stride.max(1)).zip(rows).for_each(|(sums, row)| *sums = row);
    }

    /// The rows of one tile: number `which` of the [`Products`].
    // Out of line, and by constant offsets: both tiles at once do not fit the registers.
    #[inline(never)]
    fn tile(products: &[Products], which: usize) -> [[i32; TILE]; TILE] {
        const SPAN: usize = span(POINTS);
        let from = products.as_flattened().get(which..).unwrap_or_default();
        let Some(sums) = from.first_chunk::<SPAN>() else { return Default::default() };
        let at = |point: usize| sums[point * NEXT];
        let [a, e] = inverse([at(0), at(SIDE), at(2 * SIDE), at(3 * SIDE)]);
        let [b, f] = inverse([at(1), at(SIDE + 1), at(2 * SIDE + 1), at(3 * SIDE + 1)]);
        let [c, g] = inverse([at(2), at(SIDE + 2), at(2 * SIDE + 2), at(3 * SIDE + 2)]);
        let [d, h] = inverse([at(3), at(SIDE + 3), at(2 * SIDE + 3), at(3 * SIDE + 3)]);
        let ([i, j], [k, l]) = (inverse([a, b, c, d]), inverse([e, f, g, h]));
        [[i >> 2, j >> 2], [k >> 2, l >> 2]]
    }

    /// `Aᵀ`, twice where `G` is taken once.
    #[inline(always)]
    fn inverse(m: [i32; SIDE]) -> [i32; TILE] {
        let (near, far) = (m[1].wrapping_add(m[2]), m[1].wrapping_sub(m[2]));
        [near.wrapping_add(m[0] << 1), far.wrapping_sub(m[3] << 1)]
    }

    /// Transforms the weights of output channel `channel`, 0 or 1, of a pair: nine taps with all input channels.
    #[cfg(test)]
    pub(crate) fn winograd2_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
        let groups = pair.len() / POINTS;
        for input in 0..groups * GROUP {
            let at = |x: usize, y: usize| i16::from(weights[(y * 3 + x) * groups * GROUP + input]);
            let columns: [[i16; SIDE]; 3] =
                core::array::from_fn(|x| transform_weights([at(x, 0), at(x, 1), at(x, 2)], |a, b| a + b, |a, b| a - b));
            for row in 0..SIDE {
                let points = transform_weights(columns.map(|column| column[row]), |a, b| a + b, |a, b| a - b);
                for (column, point) in points.into_iter().enumerate() {
                    put(pair, (row * SIDE + column) * groups, channel, input, point);
                }
            }
        }
    }
}
