//! Each implementation of a kernel against the kernel's definition, on the same cases.

extern crate std;

use std::vec::Vec;

use super::QUAD;
use super::*;
use crate::format::{CHANNEL_BLOCK, Tiling};
use crate::noise::philox;

/// A test for each implementation that this machine can run: the reference and each family in the list.
macro_rules! tests {
    ($($kernel:ident ($enabled:meta): $($family:ident),*;)*) => {
        $(
            #[cfg($enabled)]
            mod $kernel {
                #[test]
                fn reference() {
                    super::cases::$kernel(super::super::reference::$kernel);
                }
                $(
                    #[test]
                    fn $family() {
                        super::cases::$kernel(super::super::$family::$kernel);
                    }
                )*
            }
        )*
    };
}
kernels!(tests);

/// Lengths from nothing over every remainder of a vector to several of them.
const LENGTHS: core::ops::Range<usize> = 0..if cfg!(miri) { 12 } else { 68 };

/// How operands are filled: the extremes of the type in all combinations of sign, or at random.
const FILLS: usize = if cfg!(miri) { 1 } else { 6 };

/// `len` numbers between the bounds, by case and operand; deterministic.
fn numbers(len: usize, fill: usize, operand: u32, [low, high]: [i64; 2]) -> Vec<i64> {
    (0..len)
        .map(|i| match (fill, operand) {
            (0, _) | (1, 0) | (2, 1..) => low,
            (1, _) | (2, _) | (3, _) => high,
            _ => {
                let word = philox([fill as u32, operand], [i as u32, len as u32, 0, 0])[0];
                low + ((i64::from(word) * (high - low + 1)) >> 32)
            }
        })
        .collect()
}

fn i8s(len: usize, fill: usize, operand: u32) -> Vec<i8> {
    numbers(len, fill, operand, [-128, 127]).into_iter().map(|v| v as i8).collect()
}

fn i16s(len: usize, fill: usize, operand: u32) -> Vec<i16> {
    numbers(len, fill, operand, [-32_768, 32_767]).into_iter().map(|v| v as i16).collect()
}

/// Multiples of 1/16 up to 8, whose products and sums single precision holds exactly, so that order does not show.
fn floats(len: usize, fill: usize, operand: u32) -> Vec<f32> {
    numbers(len, fill, operand, [-128, 128]).into_iter().map(|v| v as f32 / 16.0).collect()
}

/// `sum + Σ a·b` modulo 2³².
fn wrapped<A: Copy + Into<i64>, B: Copy + Into<i64>>(sum: i32, a: &[A], b: &[B]) -> i32 {
    let sum = i128::from(sum) + a.iter().zip(b).map(|(&a, &b)| i128::from(a.into() * b.into())).sum::<i128>();
    sum as i32
}

/// Sums to start from; two of them wrap at the first product.
const SUMS: [i32; QUAD] = [0, i32::MAX, i32::MIN, -12_345];

/// What a kernel is, and on which operands that is checked.
mod cases {
    use super::*;

    /// Every length, every fill, every distance of a row from a word's boundary. Channels of one to seven come in as rows of
    /// that many times the kernel's columns, which these lengths contain.
    fn dot4<T: Copy + Into<i64>>(
        activations: impl Fn(usize, usize, u32) -> Vec<T>,
        kernel: impl Fn([i32; QUAD], &[T], [&[i8]; QUAD]) -> [i32; QUAD],
    ) {
        for len in LENGTHS {
            for fill in 0..FILLS {
                let offset = (len + fill) % 4;
                let x = activations(offset + len, fill, 0);
                let x = &x[offset..];
                let longer = i8s(len + 5, fill, 9);
                let rows: [Vec<i8>; QUAD] = core::array::from_fn(|c| i8s(c + len, fill, 1 + c as u32));
                // Rows of odd lengths lie at odd addresses.
                let mut rows: [&[i8]; QUAD] = core::array::from_fn(|c| &rows[c][c..]);
                // A row goes on behind what the activations meet.
                if fill == FILLS - 1 {
                    rows[1] = &longer;
                }
                let expected = core::array::from_fn(|c| wrapped(SUMS[c], x, rows[c]));
                assert_eq!(kernel(SUMS, x, rows), expected, "length {len}, fill {fill}");
            }
        }
    }

    #[cfg(feature = "i8")]
    pub(super) fn dot4_i8(kernel: impl Fn([i32; QUAD], &[i8], [&[i8]; QUAD]) -> [i32; QUAD]) {
        dot4(i8s, kernel);
    }

    #[cfg(feature = "i8")]
    pub(super) fn dot4_i16(kernel: impl Fn([i32; QUAD], &[i16], [&[i8]; QUAD]) -> [i32; QUAD]) {
        dot4(i16s, kernel);
    }

    /// Runs of every length come in one, two or three rows, as those of a kernel do.
    fn patches<T: Copy + Into<i64>>(
        activations: impl Fn(usize, usize, u32) -> Vec<T>,
        unfold: impl Fn(&mut [patches::Group], usize, [&[T]; PIXELS]),
    ) {
        for (run, rows) in (1..40).flat_map(|run| [1, 2, 3].map(|rows| (run, rows))) {
            for fill in 0..FILLS {
                let taps = run * rows;
                let pixels: [Vec<T>; PIXELS] = core::array::from_fn(|p| activations(taps, fill, p as u32));
                let mut unfolded = std::vec![[[99; patches::GROUP]; PIXELS]; taps.div_ceil(patches::GROUP)];
                for row in 0..rows {
                    unfold(&mut unfolded, row * run, core::array::from_fn(|p| &pixels[p][row * run..][..run]));
                }
                patches::fill(&mut unfolded, taps);
                for (p, pixel) in pixels.iter().enumerate() {
                    for tap in 0..unfolded.len() * patches::GROUP {
                        let expected = pixel.get(tap).map_or(0, |&value| value.into());
                        let place = [0, 2, 1, 3][tap % 4];
                        let found = unfolded[tap / 4][p][place];
                        assert_eq!(
                            i64::from(found),
                            expected,
                            "{rows} rows of {run}, fill {fill}, pixel {p}, tap {tap}"
                        );
                    }
                }
            }
        }
    }

    pub(super) fn unfold_i8(kernel: impl Fn(&mut [patches::Group], usize, [&[i8]; PIXELS])) {
        patches(i8s, kernel);
    }

    pub(super) fn unfold_i16(kernel: impl Fn(&mut [patches::Group], usize, [&[i16]; PIXELS])) {
        patches(i16s, kernel);
    }

    pub(super) fn dot_patches(kernel: impl Fn(&mut [[i32; PIXELS]], &[patches::Group], &[i8], usize, usize)) {
        // Weights between those of two channels, as where a row of the kernel lies in the padding.
        let all = [0, 1, patches::GROUP, 3 * patches::GROUP];
        let behind = if cfg!(miri) { &all[..2] } else { &all };
        for (taps, &behind) in LENGTHS.flat_map(|taps| behind.iter().map(move |behind| (taps, behind))) {
            let stride = taps + behind;
            for fill in 0..FILLS {
                let pixels: [Vec<i16>; PIXELS] = core::array::from_fn(|p| i16s(taps, fill, p as u32));
                let mut unfolded = std::vec![[[0; patches::GROUP]; PIXELS]; taps.div_ceil(patches::GROUP)];
                super::super::reference::unfold_i16(&mut unfolded, 0, core::array::from_fn(|p| pixels[p].as_slice()));
                // Rows of odd lengths lie at odd addresses.
                for channels in (1..9).step_by(if cfg!(miri) { 3 } else { 1 }) {
                    // Behind the last channel's there need not be any.
                    let weights = i8s(channels * stride - behind, fill, 9);
                    let row = |c: usize| &weights[c * stride..][..taps];
                    let expected: Vec<[i32; PIXELS]> =
                        (0..channels).map(|c| core::array::from_fn(|p| wrapped(0, &pixels[p], row(c)))).collect();
                    // There may be sums of channels that do not exist.
                    for room in [channels, 9] {
                        let mut sums = std::vec![[77; PIXELS]; room];
                        kernel(&mut sums, &unfolded, &weights, taps, stride);
                        let what = std::format!("{channels} channels of {taps} taps, {behind} behind, fill {fill}");
                        assert!(taps == 0 || sums[..channels] == expected, "{what}: {room} sums are {sums:?}");
                    }
                }
            }
        }
    }

    /// `Bᵀ` of Lavin and Gray, and `G` of theirs by the denominators of its rows.
    const INPUT: [[i32; 6]; 6] = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ];
    const WEIGHTS: [[i32; 3]; 6] = [[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]];

    /// `m·values·mᵀ` at each point.
    fn transformed<const N: usize, const SIDE: usize>(
        m: [[i32; N]; SIDE],
        values: impl Fn(usize, usize) -> i32,
    ) -> Vec<i32> {
        let points = (0..SIDE * SIDE).map(|point| {
            let (row, column) = (m[point / SIDE], m[point % SIDE]);
            let terms = (0..N * N).map(|k| row[k / N] * column[k % N] * values(k / N, k % N));
            terms.sum()
        });
        points.collect()
    }

    /// Where a group of four has a channel.
    const PLACE: [usize; 4] = [0, 2, 1, 3];

    pub(super) fn winograd_input(kernel: impl Fn(&mut [winograd::Pair], usize, [&[i8]; 6])) {
        for (groups, fill) in
            (1..if cfg!(miri) { 3 } else { 6 }).flat_map(|groups| (0..FILLS).map(move |fill| (groups, fill)))
        {
            let mut pair = std::vec![[[77; 4]; 2]; 36 * groups];
            for tile in 0..2 {
                let rows: [Vec<i8>; 6] = core::array::from_fn(|y| i8s(24 * groups, fill, (6 * tile + y) as u32));
                kernel(&mut pair, tile, core::array::from_fn(|y| rows[y].as_slice()));
                for channel in 0..4 * groups {
                    let expected = transformed(INPUT, |y, x| rows[y][x * 4 * groups + channel].into());
                    for (point, expected) in expected.into_iter().enumerate() {
                        let found = pair[point * groups + channel / 4][tile][PLACE[channel % 4]];
                        assert_eq!(i32::from(found), expected, "{groups} groups, fill {fill}, point {point}");
                    }
                }
            }
        }
    }

    pub(super) fn winograd_weights(kernel: impl Fn(&mut [winograd::Pair], usize, &[i8])) {
        transformed_weights(WEIGHTS, kernel);
    }

    fn transformed_weights<const N: usize>(m: [[i32; 3]; N], kernel: impl Fn(&mut [winograd::Pair], usize, &[i8])) {
        for (groups, fill) in
            (1..if cfg!(miri) { 3 } else { 6 }).flat_map(|groups| (0..FILLS).map(move |fill| (groups, fill)))
        {
            let mut pair = std::vec![[[77; 4]; 2]; N * N * groups];
            for channel in 0..2 {
                let weights = i8s(36 * groups, fill, channel as u32);
                kernel(&mut pair, channel, &weights);
                for input in 0..4 * groups {
                    let expected = transformed(m, |y, x| weights[(3 * y + x) * 4 * groups + input].into());
                    for (point, expected) in expected.into_iter().enumerate() {
                        let found = pair[point * groups + input / 4][channel][PLACE[input % 4]];
                        assert_eq!(i32::from(found), expected, "{groups} groups, fill {fill}, point {point}");
                    }
                }
            }
        }
    }

    pub(super) fn winograd_multiply(kernel: impl Fn(&mut [winograd::Products], &[winograd::Pair], &[winograd::Pair])) {
        let groups = 1..if cfg!(miri) { 6 } else { 20 };
        for ((groups, fill), points) in
            groups.flat_map(|groups| (0..FILLS).map(move |fill| (groups, fill))).zip([36, 16, 1].into_iter().cycle())
        {
            let pairs = |operand: u32| -> Vec<winograd::Pair> {
                let halves = i16s(points * groups * 8, fill, operand);
                halves.chunks(8).map(|h| [[h[0], h[1], h[2], h[3]], [h[4], h[5], h[6], h[7]]]).collect()
            };
            let (tiles, channels) = (pairs(0), pairs(1));
            let mut products = std::vec![[77; 4]; points];
            kernel(&mut products, &tiles, &channels);
            for (point, products) in products.into_iter().enumerate() {
                for (which, sum) in products.into_iter().enumerate() {
                    let row = |pairs: &[winograd::Pair], side: usize| -> Vec<i16> {
                        pairs[point * groups..][..groups].iter().flat_map(|pair| pair[side]).collect()
                    };
                    let expected = wrapped(0, &row(&tiles, which / 2), &row(&channels, which % 2));
                    assert_eq!(sum, expected, "{groups} groups, fill {fill}, point {point}, sum {which}");
                }
            }
        }
    }

    /// `Bᵀ` of Lavin and Gray for tiles of two, and `G` of theirs by the denominators of its rows.
    const INPUT_OF_TWO: [[i32; 4]; 4] = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]];
    const WEIGHTS_OF_TWO: [[i32; 3]; 4] = [[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]];

    /// Values up to the limit of the ring.
    pub(super) fn limited(len: usize, fill: usize, operand: u32, inputs: usize) -> Vec<i16> {
        let limit = i64::from(Tiling::Two.ring_limit(inputs as u64));
        numbers(len, fill, operand, [-limit, limit]).into_iter().map(|v| v as i16).collect()
    }

    pub(super) fn winograd2_input(kernel: impl Fn(&mut [winograd::Pair], [&[i16]; 4])) {
        for (groups, fill) in
            (1..if cfg!(miri) { 3 } else { 6 }).flat_map(|groups| (0..FILLS).map(move |fill| (groups, fill)))
        {
            let pixel = 4 * groups;
            let mut pair = std::vec![[[77; 4]; 2]; 16 * groups];
            let rows: [Vec<i16>; 4] = core::array::from_fn(|y| limited(6 * pixel, fill, y as u32, 4));
            kernel(&mut pair, core::array::from_fn(|y| rows[y].as_slice()));
            for (tile, channel) in (0..2).flat_map(|tile| (0..pixel).map(move |channel| (tile, channel))) {
                let value = |y: usize, x: usize| rows[y][(2 * tile + x) * pixel + channel].into();
                let expected = transformed(INPUT_OF_TWO, value);
                for (point, expected) in expected.into_iter().enumerate() {
                    let found = pair[point * groups + channel / 4][tile][PLACE[channel % 4]];
                    assert_eq!(i32::from(found), expected, "{groups} groups, fill {fill}, point {point}");
                }
            }
        }
    }

    pub(super) fn winograd2_weights(kernel: impl Fn(&mut [winograd::Pair], usize, &[i8])) {
        transformed_weights(WEIGHTS_OF_TWO, kernel);
    }

    fn dot4_packed<T: Copy + Into<i64>>(
        activations: impl Fn(usize, usize, u32) -> Vec<T>,
        kernel: impl Fn([i32; QUAD], &[T], &[u16]) -> [i32; QUAD],
    ) {
        for len in LENGTHS {
            for fill in 0..FILLS {
                let x = activations(len, fill, 0);
                let rows: [Vec<i64>; QUAD] = core::array::from_fn(|c| numbers(len, fill, 1 + c as u32, [-8, 7]));
                let pack = |k: usize| (0..QUAD).fold(0, |word, c| word | (rows[c][k] as u16 & 15) << (4 * c));
                let packed: Vec<u16> = (0..len).map(pack).collect();
                let expected = core::array::from_fn(|c| wrapped(SUMS[c], &x, &rows[c]));
                assert_eq!(kernel(SUMS, &x, &packed), expected, "length {len}, fill {fill}");
            }
        }
    }

    #[cfg(feature = "i4")]
    pub(super) fn dot4_packed_i8(kernel: impl Fn([i32; QUAD], &[i8], &[u16]) -> [i32; QUAD]) {
        dot4_packed(i8s, kernel);
    }

    #[cfg(feature = "i4")]
    pub(super) fn dot4_packed_i16(kernel: impl Fn([i32; QUAD], &[i16], &[u16]) -> [i32; QUAD]) {
        dot4_packed(i16s, kernel);
    }

    pub(super) fn weighted4_i8(kernel: impl Fn(&[i32], &[i8], usize) -> [i32; QUAD]) {
        for len in LENGTHS {
            // A stride below four leaves fewer neighbours.
            for (fill, stride) in (0..FILLS).flat_map(|fill| [1, 3, 4, 5, 8].map(|stride| (fill, stride))) {
                let weights = numbers(len, fill, 0, [0, i32::MAX.into()]);
                let narrow: Vec<i32> = weights.iter().map(|&w| w as i32).collect();
                let values = i8s(len * stride, fill, 1);
                let expected: [i32; QUAD] = core::array::from_fn(|c| {
                    let rows = values.chunks(stride.max(1));
                    let column: Vec<i8> = rows.map(|row| row.get(c).copied().unwrap_or_default()).collect();
                    wrapped(0, &weights, &column)
                });
                assert_eq!(kernel(&narrow, &values, stride), expected, "length {len}, fill {fill}, stride {stride}");
            }
        }
    }

    pub(super) fn dot_i16(kernel: impl Fn(&[i16], &[i16]) -> i64) {
        for len in LENGTHS {
            for fill in 0..FILLS {
                let (a, b) = (i16s(len, fill, 0), i16s(len, fill, 1));
                let expected: i128 = a.iter().zip(&b).map(|(&a, &b)| i128::from(a) * i128::from(b)).sum();
                assert_eq!(i128::from(kernel(&a, &b)), expected, "length {len}, fill {fill}");
            }
        }
    }

    /// `Σ a·b` in double precision, where these are exact.
    fn exact(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    pub(super) fn dot_pixels(
        kernel: impl Fn(&mut [[f32; CHANNEL_BLOCK]; PIXELS], [&[f32]; PIXELS], &[[f32; CHANNEL_BLOCK]]),
    ) {
        for len in LENGTHS {
            for fill in 0..FILLS {
                let pixels: [Vec<f32>; PIXELS] = core::array::from_fn(|p| floats(len, fill, p as u32));
                let rows: [Vec<f32>; CHANNEL_BLOCK] = core::array::from_fn(|c| floats(len, fill, 16 + c as u32));
                let weights: Vec<[f32; CHANNEL_BLOCK]> =
                    (0..len).map(|k| core::array::from_fn(|c| rows[c][k])).collect();
                let mut sums = [[0.25; CHANNEL_BLOCK]; PIXELS];
                kernel(&mut sums, core::array::from_fn(|p| pixels[p].as_slice()), &weights);
                for (p, sums) in sums.iter().enumerate() {
                    for (c, &sum) in sums.iter().enumerate() {
                        let expected = 0.25 + exact(&pixels[p], &rows[c]);
                        assert_eq!(f64::from(sum), expected, "length {len}, fill {fill}, pixel {p}, channel {c}");
                    }
                }
            }
        }
    }

    pub(super) fn dot_float(kernel: impl Fn(&[f32], &[f32]) -> f32) {
        for len in LENGTHS {
            for fill in 0..FILLS {
                let (a, b) = (floats(len, fill, 0), floats(len, fill, 1));
                assert_eq!(f64::from(kernel(&a, &b)), exact(&a, &b), "length {len}, fill {fill}");
            }
        }
    }

    pub(super) fn weighted_float(kernel: impl Fn(&[f32], &[f32], usize) -> f32) {
        for len in LENGTHS {
            for (fill, stride) in (0..FILLS).flat_map(|fill| [1, 3, 5, 7].map(|stride| (fill, stride))) {
                let (weights, values) = (floats(len, fill, 0), floats(len * stride, fill, 1));
                let strided: Vec<f32> = values.iter().copied().step_by(stride).collect();
                let expected = exact(&weights, &strided);
                assert_eq!(f64::from(kernel(&weights, &values, stride)), expected, "length {len}, stride {stride}");
            }
        }
    }
}

/// Transforms, products and the way back together are the convolution, up to the most input channels and at the extremes.
#[cfg(feature = "tiles")]
#[test]
fn tiles_are_convolutions() {
    use super::winograd::{POINTS, output};
    let most = if cfg!(miri) { 8 } else { usize::from(crate::format::MOST_TILED_INPUTS) };
    for (inputs, fill) in [4, 20, most].into_iter().flat_map(|inputs| (0..FILLS).map(move |fill| (inputs, fill))) {
        let (mut tiles, mut channels) =
            (std::vec![[[0; 4]; 2]; POINTS * inputs / 4], std::vec![[[0; 4]; 2]; POINTS * inputs / 4]);
        let rows: [[Vec<i8>; 6]; 2] =
            core::array::from_fn(|t| core::array::from_fn(|y| i8s(6 * inputs, fill, (6 * t + y) as u32)));
        let weights: [Vec<i8>; 2] = core::array::from_fn(|c| i8s(9 * inputs, fill, 20 + c as u32));
        let mut products = [[0; 4]; POINTS];
        for side in 0..2 {
            dsp::winograd_input(&mut tiles, side, core::array::from_fn(|y| rows[side][y].as_slice()));
            dsp::winograd_weights(&mut channels, side, &weights[side]);
        }
        dsp::winograd_multiply(&mut products, &tiles, &channels);
        for which in 0..4 {
            let (rows, weights) = (&rows[which / 2], &weights[which % 2]);
            let mut found = [[77; 4]; 4];
            output(&mut found, &products, which);
            for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let runs = (0..3).map(|ky| (&rows[y + ky][x * inputs..][..3 * inputs], &weights[3 * ky * inputs..]));
                let expected = runs.fold(0, |sum, (row, weights)| wrapped(sum, row, &weights[..3 * inputs]));
                assert_eq!(found[y][x], expected, "{inputs} inputs, fill {fill}, sum {which}, at {y}, {x}");
            }
        }
    }
}

/// The same of tiles of two, over values at the limit of the ring.
#[cfg(feature = "tiles")]
#[test]
fn tiles_of_two_are_convolutions() {
    use super::winograd::two::{POINTS, output};
    let most = if cfg!(miri) { 8 } else { usize::from(Tiling::Two.most_inputs()) };
    for (inputs, fill) in
        [4, 20, 56, 60, most].into_iter().flat_map(|inputs| (0..FILLS).map(move |fill| (inputs, fill)))
    {
        let mut tiles = std::vec![[[0; 4]; 2]; POINTS * inputs / 4];
        let mut channels = tiles.clone();
        let rows: [Vec<i16>; 4] = core::array::from_fn(|y| cases::limited(6 * inputs, fill, y as u32, inputs));
        let weights: [Vec<i8>; 2] = core::array::from_fn(|c| i8s(9 * inputs, fill, 20 + c as u32));
        let mut products = [[0; 4]; POINTS];
        dsp::winograd2_input(&mut tiles, core::array::from_fn(|y| rows[y].as_slice()));
        for side in 0..2 {
            dsp::winograd2_weights(&mut channels, side, &weights[side]);
        }
        dsp::winograd_multiply(&mut products, &tiles, &channels);
        for (channel, weights) in weights.iter().enumerate() {
            let mut found = [[77; 4]; 2];
            output(&mut found, &products, channel);
            for (y, x) in (0..2).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let runs = (0..3).map(|ky| (&rows[y + ky][x * inputs..][..3 * inputs], &weights[3 * ky * inputs..]));
                let expected = runs.fold(0, |sum, (row, weights)| wrapped(sum, row, &weights[..3 * inputs]));
                assert_eq!(found[y][x], expected, "{inputs} inputs, fill {fill}, channel {channel}, at {y}, {x}");
            }
        }
    }
}
