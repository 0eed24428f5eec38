//! Winograd's tiles against explicit matrices, and against the convolution.

use super::*;

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

/// Miri watches the memory of kernels; of their results it compares every fifth.
const COMPARED: usize = if cfg!(miri) { 5 } else { 1 };

pub(super) fn winograd_input(kernel: impl Fn(&mut [winograd::Pair], usize, [&[i8]; 6])) {
    for (groups, fill) in
        (1..if cfg!(miri) { 3 } else { 6 }).flat_map(|groups| (0..FILLS).map(move |fill| (groups, fill)))
    {
        let mut pair = std::vec![[[77; 4]; 2]; 36 * groups];
        for tile in 0..2 {
            let rows: [Vec<i8>; 6] = core::array::from_fn(|y| i8s(24 * groups, fill, (6 * tile + y) as u32));
            kernel(&mut pair, tile, core::array::from_fn(|y| rows[y].as_slice()));
            for channel in (0..4 * groups).step_by(COMPARED) {
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
            for input in (0..4 * groups).step_by(COMPARED) {
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

pub(super) fn limit_i16(kernel: impl Fn(&mut [i16], u16)) {
    for (len, fill) in LENGTHS.flat_map(|len| (0..FILLS).map(move |fill| (len, fill))) {
        for limit in [1, 327, 8191, 32_767] {
            // At each distance from a word's boundary.
            let start = len % 3;
            let values = i16s(start + len, fill, 0);
            let mut found = values.clone();
            kernel(&mut found[start..], limit);
            let bound = i64::from(limit);
            for (i, (&value, found)) in values.iter().zip(found).enumerate() {
                let value = i64::from(value);
                let expected = if i < start || value.abs() <= bound { value } else { value.signum() * bound };
                assert_eq!(i64::from(found), expected, "length {len}, fill {fill}, limit {limit}");
            }
        }
    }
}

/// Values up to the limit of the ring.
fn limited(len: usize, fill: usize, operand: u32, inputs: usize) -> Vec<i16> {
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

/// Transforms, products and the way back together are the convolution, up to the most input channels and at the extremes.
pub(super) fn winograd_output(kernel: impl Fn(&mut [[i32; 4]], usize, &[winograd::Products], usize)) {
    use crate::arch::winograd::POINTS;
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
            let stride = 1 + fill % 3;
            let mut found = std::vec![[77; 4]; 3 * stride + 1 + fill];
            kernel(&mut found, stride, &products, which);
            let found: Vec<[i32; 4]> = found.into_iter().step_by(stride).collect();
            for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let runs = (0..3).map(|ky| (&rows[y + ky][x * inputs..][..3 * inputs], &weights[3 * ky * inputs..]));
                let expected = runs.fold(0, |sum, (row, weights)| wrapped(sum, row, &weights[..3 * inputs]));
                assert_eq!(found[y][x], expected, "{inputs} inputs, fill {fill}, sum {which}, at {y}, {x}");
            }
        }
    }
}

/// The same of tiles of two, over values at the limit of the ring.
pub(super) fn winograd2_output(kernel: impl Fn(&mut [[i32; 4]], usize, &[winograd::Products], usize)) {
    use crate::arch::winograd::two::POINTS;
    let most = if cfg!(miri) { 8 } else { usize::from(Tiling::Two.most_inputs()) };
    for (inputs, fill) in
        [4, 20, 56, 60, most].into_iter().flat_map(|inputs| (0..FILLS).map(move |fill| (inputs, fill)))
    {
        let mut tiles = std::vec![[[0; 4]; 2]; POINTS * inputs / 4];
        let mut channels = tiles.clone();
        let rows: [Vec<i16>; 4] = core::array::from_fn(|y| limited(6 * inputs, fill, y as u32, inputs));
        let weights: [Vec<i8>; 2] = core::array::from_fn(|c| i8s(9 * inputs, fill, 20 + c as u32));
        let mut products = [[0; 4]; POINTS];
        dsp::winograd2_input(&mut tiles, core::array::from_fn(|y| rows[y].as_slice()));
        for (side, weights) in weights.iter().enumerate() {
            dsp::winograd2_weights(&mut channels, side, weights);
        }
        dsp::winograd_multiply(&mut products, &tiles, &channels);
        for (channel, weights) in weights.iter().enumerate() {
            let stride = 1 + fill % 3;
            let mut found = std::vec![[77; 4]; stride + 1 + fill];
            kernel(&mut found, stride, &products, channel);
            let found: Vec<[i32; 4]> = found.into_iter().step_by(stride).collect();
            for (y, x) in (0..2).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let runs = (0..3).map(|ky| (&rows[y + ky][x * inputs..][..3 * inputs], &weights[3 * ky * inputs..]));
                let expected = runs.fold(0, |sum, (row, weights)| wrapped(sum, row, &weights[..3 * inputs]));
                assert_eq!(found[y][x], expected, "{inputs} inputs, fill {fill}, channel {channel}, at {y}, {x}");
            }
        }
    }
}
