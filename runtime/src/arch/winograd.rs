//! Winograd's algorithm F(4×4, 3×3) for 3×3 convolutions of 8-bit activations and weights, exact in integers (Lavin and Gray,
//! 2015, arXiv:1509.09308).
//!
//! A tile of 6×6 inputs gives 4×4 outputs of one channel by 36 products for each input channel, where the convolution itself
//! takes 144: `Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`. The rows of `G` are taken without their denominators, which are a power of two
//! times three; `Aᵀ` makes up for them, so that all numbers are integers and the result is 576 times the sum of products.
//!
//! - Transformed inputs are at most 100·128 from zero and transformed weights at most 49·128: both fit 16 bits.
//! - Products and their sums wrap modulo 2³². The inverse of 9 modulo 2³² leaves 64 times the sum of products, which is the
//!   number itself where that fits 32 bits: 9·128·128 for each of at most [`MOST_TILED_INPUTS`](crate::format::MOST_TILED_INPUTS)
//!   channels is below 2²⁵.
//!
//! Two tiles and two output channels are multiplied at a time. Channels stand in groups of four, in the order of a
//! [patch](super::patches).
//!
//! Rings of 16 bits have [tiles of their own](two).

#[cfg(any(not(tile_kernels), test))]
use super::patches::GROUP;
use crate::format::Tiling;

#[cfg(any(tile_kernels, test))]
#[allow(unsafe_code, reason = "addresses that the compiler would test one by one")]
pub(super) mod transforms;
pub(crate) mod two;

/// Rows and columns of outputs of a tile.
pub(crate) const TILE: usize = Tiling::Four.side();

/// Rows and columns of a transformed tile.
pub(crate) const SIDE: usize = 6;

/// Elements of a transformed tile.
pub(crate) const POINTS: usize = Tiling::Four.points();

/// At one point, four channels of two tiles, or four weights of two output channels.
pub(crate) type Pair = [[i16; 4]; 2];

/// Output channels that are multiplied at a time.
pub(crate) const CHANNELS: usize = 2;

/// Sums of products at one point: of the first tile for both channels, then of the second.
pub(crate) type Products = [i32; 4];

/// `Bᵀ d` for numbers, or for pairs of them.
#[cfg(any(not(dsp), test))]
#[inline(always)]
pub(super) fn transform_input<T: Copy>(d: [T; SIDE], add: impl Fn(T, T) -> T, sub: impl Fn(T, T) -> T) -> [T; SIDE] {
    let double = |x| add(x, x);
    let (a, b) = (sub(d[4], d[2]), sub(d[3], d[1]));
    let e = sub(d[4], double(double(d[2])));
    let f = sub(d[3], double(double(d[1])));
    let twice = double(b);
    [
        add(a, double(double(sub(d[0], d[2])))),
        add(e, f),
        sub(e, f),
        add(a, twice),
        sub(a, twice),
        sub(sub(d[5], d[3]), double(twice)),
    ]
}

/// `G g` without denominators.
#[cfg(any(tile_kernels, test))]
#[inline(always)]
pub(super) fn transform_weights<T: Copy>(g: [T; 3], add: impl Fn(T, T) -> T, sub: impl Fn(T, T) -> T) -> [T; SIDE] {
    let double = |x| add(x, x);
    let near = add(g[0], g[2]);
    let far = add(g[0], double(double(g[2])));
    let twice = double(g[1]);
    [g[0], add(near, g[1]), sub(near, g[1]), add(far, twice), sub(far, twice), g[2]]
}

/// The definitions of the kernels.
#[cfg(any(not(dsp), test))]
pub(super) mod reference {
    use super::*;

    /// Transforms tile `tile`, 0 or 1, of a pair: `rows` are its six rows of six pixels with all channels, a multiple of four.
    /// The pair has its groups of channels at the first point, then those at the second, and so on.
    #[cfg(any(not(tile_kernels), test))]
    #[inline(never)]
    pub(crate) fn winograd_input(pair: &mut [Pair], tile: usize, rows: [&[i8]; SIDE]) {
        let groups = pair.len() / POINTS;
        let pixel = groups * GROUP;
        for channel in 0..pixel {
            let column = |x: usize| {
                let at = rows.map(|row| row.get(x * pixel + channel).map_or(0, |&value| value.into()));
                transform_input(at, i16::wrapping_add, i16::wrapping_sub)
            };
            let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
            let rows = a.into_iter().zip(b).zip(c).zip(d).zip(e).zip(f);
            for (row, (((((a, b), c), d), e), f)) in rows.enumerate() {
                let points = transform_input([a, b, c, d, e, f], i16::wrapping_add, i16::wrapping_sub);
                for (point, value) in (row * SIDE..).zip(points) {
                    put(pair, point * groups, tile, channel, value);
                }
            }
        }
    }

    /// Transforms the weights of output channel `channel`, 0 or 1, of a pair: nine taps with all input channels.
    #[cfg(test)]
    pub(crate) fn winograd_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
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

    /// The sums of products at each point over all channels, modulo 2³².
    #[cfg(any(not(tile_kernels), test))]
    #[inline(never)]
    pub(crate) fn winograd_multiply(products: &mut [Products], tiles: &[Pair], channels: &[Pair]) {
        let groups = tiles.len().checked_div(products.len()).unwrap_or(0).max(1);
        let points = tiles.chunks(groups).zip(channels.chunks(groups));
        for (products, (tiles, channels)) in products.iter_mut().zip(points) {
            let [mut a, mut b, mut c, mut d] = [0i32; 4];
            let halves = tiles
                .iter()
                .zip(channels)
                .flat_map(|([first, second], [one, other])| first.iter().zip(second).zip(one.iter().zip(other)));
            for ((&first, &second), (&one, &other)) in halves {
                let [first, second, one, other]: [i32; 4] = [first.into(), second.into(), one.into(), other.into()];
                a = a.wrapping_add(first.wrapping_mul(one));
                b = b.wrapping_add(first.wrapping_mul(other));
                c = c.wrapping_add(second.wrapping_mul(one));
                d = d.wrapping_add(second.wrapping_mul(other));
            }
            *products = [a, b, c, d];
        }
    }

    /// Sums from one point of a tile and channel to the next.
    pub(in super::super) const NEXT: usize = size_of::<Products>() / size_of::<i32>();

    /// Sums from the first of so many points to the last: with as many, places of points are constants.
    pub(in super::super) const fn span(points: usize) -> usize {
        (points - 1) * NEXT + 1
    }

    /// The inverse of 9 modulo 2³².
    const NINTH: i32 = 0x38E3_8E39;

    /// The 4×4 sums of products of one tile and channel, number `which` of the [`Products`]: rows of sums, `stride` apart.
    // Without loops, in which the compiler would keep everything in memory where code is to be small.
    #[inline(never)]
    pub(crate) fn winograd_output(sums: &mut [[i32; TILE]], stride: usize, products: &[Products], which: usize) {
        const SPAN: usize = span(POINTS);
        let Some(from) = products.as_flattened().get(which..).and_then(|from| from.first_chunk::<SPAN>()) else {
            return;
        };
        let at = |point: usize| from[point * NEXT];
        let column =
            |x| inverse([at(x), at(SIDE + x), at(2 * SIDE + x), at(3 * SIDE + x), at(4 * SIDE + x), at(5 * SIDE + x)]);
        let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
        // What rows and columns lack of 576, as powers of two, and the inverse of 9; then 64 is left.
        let row = |y: usize, missing: u32| {
            let [first, second, third, fourth] = inverse([a[y], b[y], c[y], d[y], e[y], f[y]]);
            let whole = |value: i32, missing: u32| value.wrapping_mul(NINTH << missing) >> 6;
            [whole(first, missing), whole(second, missing + 1), whole(third, missing + 2), whole(fourth, missing + 2)]
        };
        let rows = [row(0, 0), row(1, 1), row(2, 2), row(3, 2)];
        sums.iter_mut().step_by(stride.max(1)).zip(rows).for_each(|(sums, row)| *sums = row);
    }

    /// `Aᵀ` times 24, 12, 6 and 6 by rows, with the denominators of `G`.
    #[inline(always)]
    fn inverse(m: [i32; SIDE]) -> [i32; TILE] {
        let (p, k) = (m[1].wrapping_add(m[2]), m[1].wrapping_sub(m[2]));
        let (r, s) = (m[3].wrapping_add(m[4]), m[3].wrapping_sub(m[4]));
        [
            r.wrapping_sub(p << 2).wrapping_add(m[0].wrapping_mul(6)),
            s.wrapping_sub(k << 1),
            r.wrapping_sub(p),
            (s << 1).wrapping_sub(k).wrapping_add(m[5].wrapping_mul(6)),
        ]
    }

    /// Writes what a channel of a tile or of weights has at a point, whose groups begin at `point`.
    #[cfg(any(not(tile_kernels), test))]
    #[inline(always)]
    pub(in super::super) fn put(pair: &mut [Pair], point: usize, side: usize, channel: usize, value: i16) {
        let group = pair.get_mut(point + channel / GROUP).and_then(|pair| pair.get_mut(side));
        // Where a group holds a channel.
        let fourth = channel % GROUP;
        if let Some(place) = group.and_then(|group| group.get_mut(fourth / 2 + fourth % 2 * 2)) {
            *place = value;
        }
    }
}
