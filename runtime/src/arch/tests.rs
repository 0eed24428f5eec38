//! Each implementation of a kernel against the kernel's definition, on the same cases.

extern crate std;

use std::vec::Vec;

use super::QUAD;
use super::*;
use crate::fixed::Silu;
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

    /// Runs of every length come in one, two or three rows, as those of a kernel do, which lie apart and not in order. The last
    /// pixel may be the one before.
    fn patches<T: Copy + Into<i64>>(
        activations: impl Fn(usize, usize, u32) -> Vec<T>,
        unfold: impl Fn(&mut [patches::Group], &patches::Window<'_, T>),
    ) {
        for (run, rows) in (1..40).flat_map(|run| [1, 2, 3].map(|rows| (run, rows))) {
            for fill in 0..FILLS {
                let taps = run * rows;
                let advance = if fill % 2 == 0 { run } else { 1 + fill };
                let pixels = [0, advance, 2 * advance, (2 + fill % 2) * advance];
                // The last row ends where the ring does.
                let ring = activations(rows * (pixels[3] + run), fill, 0);
                let starts: Vec<usize> = (0..rows).rev().map(|row| row * (pixels[3] + run)).collect();
                let mut unfolded = std::vec![[[99; patches::GROUP]; PIXELS]; taps.div_ceil(patches::GROUP)];
                unfold(&mut unfolded, &patches::Window { ring: &ring, rows: &starts, pixels, run });
                for (p, pixel) in pixels.into_iter().enumerate() {
                    for tap in 0..unfolded.len() * patches::GROUP {
                        let expected = starts.get(tap / run).map_or(0, |start| ring[start + pixel + tap % run].into());
                        let found = unfolded[tap / 4][p][PLACE[tap % 4]];
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

    /// The patches of four pixels of their own.
    fn unfolded(pixels: &[Vec<i16>; PIXELS]) -> Vec<patches::Group> {
        let taps = pixels[0].len();
        let mut unfolded = std::vec![[[0; patches::GROUP]; PIXELS]; taps.div_ceil(patches::GROUP)];
        let window =
            patches::Window { ring: &pixels.concat(), rows: &[0], pixels: [0, 1, 2, 3].map(|p| p * taps), run: taps };
        super::super::reference::unfold_i16(&mut unfolded, &window);
        unfolded
    }

    pub(super) fn unfold_i8(kernel: impl Fn(&mut [patches::Group], &patches::Window<'_, i8>)) {
        patches(i8s, kernel);
    }

    pub(super) fn unfold_i16(kernel: impl Fn(&mut [patches::Group], &patches::Window<'_, i16>)) {
        patches(i16s, kernel);
    }

    /// Shifts from far below to far above what one word decides, multipliers of all sizes, sums that saturate and wrap, residuals
    /// in place and elsewhere, zero points at the ends of their range. A kernel may leave channels from one on.
    fn convolve<T: Copy + Into<i32> + PartialEq + core::fmt::Debug>(
        elements: impl Fn(usize, usize, u32) -> Vec<T>,
        nearest: impl Fn(i128) -> T,
        kernel: impl Fn(
            &patches::Channels<'_>,
            &[patches::Group],
            patches::Place,
            Option<(patches::Kept, Option<&[T]>)>,
            &mut [T],
        ) -> usize,
        [low, high]: [i32; 2],
    ) {
        let rounded = |value: i128, shift: i32| (value + (1 << (30 - shift))) >> (31 - shift);
        let mut computed = 0;
        for (taps, shift) in (1..if cfg!(miri) { 10 } else { 45 }).flat_map(|taps| (-20..12i32).map(move |s| (taps, s)))
        {
            let fill = (taps + shift.unsigned_abs() as usize) % FILLS;
            let case = philox([taps as u32, shift as u32], [0; 4]);
            let stride = taps + [0, 4, 3][case[0] as usize % 3];
            let outputs = 5;
            // The last pixel may be the one before.
            let there = 4 - (case[3] % 2) as usize;
            let pixels: [Vec<i16>; PIXELS] = core::array::from_fn(|p| i16s(taps, fill, p.min(there - 1) as u32));
            let unfolded = unfolded(&pixels);
            // With what a whole group reads behind the last row, or without.
            let weights = i8s(outputs * stride + (case[0] >> 8) as usize % 4, fill, 9);
            let bias: Vec<i32> = (0..outputs).map(|c| [0, i32::MAX, i32::MIN, 99, -7][c] >> (case[1] % 20)).collect();
            let requant: Vec<[i32; 2]> = (0..outputs)
                .map(|c| [[1 << 30, i32::MAX, 1_500_000_000, 3 << 29, 5 << 20][c], shift + [0, 1, -9, 0, 2][c]])
                .collect();
            let zero = [0, low, high, -3, 1 << 21][case[2] as usize % 5];
            let channels = patches::Channels {
                weights: &weights,
                taps,
                stride,
                narrow: false,
                bias: &bias,
                requant: &requant,
                zero,
            };
            let place = patches::Place { at: 3, offsets: core::array::from_fn(|p| 7 * p.min(there - 1)) };
            let map =
                [[1 << 30, i32::MAX, 1_200_000_000][case[0] as usize % 3], [-3, 5, 8, 9, 10, 14][case[1] as usize % 6]];
            let kept = patches::Kept { zero: [0, low, high][case[3] as usize % 3], map };
            let before = elements(40, 4, 17);
            let values = elements(40, 5, 18);
            for residual in [None, Some((kept, None)), Some((kept, Some(&values[..])))] {
                let mut output = before.clone();
                let done = kernel(&channels, &unfolded, place, residual, &mut output);
                computed += done;
                let mut expected = before.clone();
                for c in 0..done {
                    for p in 0..there {
                        let at = place.at + place.offsets[p] + c;
                        let sum = wrapped(bias[c], &pixels[p], &weights[c * stride..][..taps]);
                        let [multiplier, shift] = requant[c];
                        let product = i128::from(sum) * i128::from(multiplier);
                        let limit = |value: i128| value.clamp(i32::MIN.into(), i32::MAX.into());
                        let value = match residual {
                            None => limit(rounded(product, shift)),
                            Some((kept, values)) => {
                                let held: i32 = values.map_or(before[at], |values| values[at]).into();
                                let held = i128::from(held - kept.zero) * i128::from(kept.map[0]);
                                (limit(rounded(product, shift + 8)) + limit(rounded(held, kept.map[1])) + 128) >> 8
                            }
                        };
                        expected[at] = nearest(value + i128::from(zero));
                    }
                }
                assert_eq!(output, expected, "{taps} taps, shift {shift}, {residual:?}, {done} done");
            }
        }
        assert!(computed > 4_000 || cfg!(miri), "{computed} channels");
    }

    pub(super) fn convolve_i8(
        kernel: impl Fn(
            &patches::Channels<'_>,
            &[patches::Group],
            patches::Place,
            Option<(patches::Kept, Option<&[i8]>)>,
            &mut [i8],
        ) -> usize,
    ) {
        convolve(i8s, |value| value.clamp(-128, 127) as i8, kernel, [-128, 127]);
    }

    pub(super) fn convolve_i16(
        kernel: impl Fn(
            &patches::Channels<'_>,
            &[patches::Group],
            patches::Place,
            Option<(patches::Kept, Option<&[i16]>)>,
            &mut [i16],
        ) -> usize,
    ) {
        convolve(i16s, |value| value.clamp(-32_768, 32_767) as i16, kernel, [-32_768, 32_767]);
    }

    /// Every shift of the affine map that a word decides, results over the whole table and beyond both of its ends, saturated
    /// sums and rings.
    fn silu<S: Copy + Into<i32>, R: PartialEq + Copy + core::fmt::Debug>(
        values: impl Fn(usize, usize, u32) -> Vec<S>,
        nearest: impl Fn(i32) -> R,
        zeros: [i32; 2],
        kernel: impl Fn(Silu, &[S], &[[i32; 2]], &mut [R]),
    ) {
        use crate::fixed::{affine, requantize, silu};
        for (affine_shift, fill) in (16..32).flat_map(|shift| (0..FILLS).map(move |fill| (shift, fill))) {
            for (shift, zero) in (-20..0).flat_map(|shift| [0, zeros[0], zeros[1]].map(|zero| (shift, zero))) {
                let map = Silu::new(affine_shift, [1_500_000_000, shift], zero);
                assert_eq!(map.is_some(), (17..31).contains(&affine_shift) && shift < -1, "{affine_shift}, {shift}");
                let Some(map) = map else { continue };
                for len in [0, 1, 2, 7, 32] {
                    let values = values(len, fill, 0);
                    // Most maps give what the table has, some far more.
                    let maps: Vec<[i32; 2]> = (0..len as u32)
                        .map(|i| {
                            let [a, b, c, _] = philox([affine_shift, fill as u32], [i, len as u32, 0, 0]);
                            [a as i32 >> (c % 20), b as i32 >> (c / 32 % 24)]
                        })
                        .collect();
                    let mut targets = std::vec![nearest(99); len];
                    kernel(map, &values, &maps, &mut targets);
                    for ((value, &[a, b]), target) in values.iter().zip(&maps).zip(targets) {
                        let activated = silu(affine((*value).into(), a, affine_shift, b));
                        let expected = nearest(requantize(activated, 1_500_000_000, shift).saturating_add(zero));
                        assert_eq!(target, expected, "{:?}, {a}, {b}, {map:?}", (*value).into());
                    }
                }
            }
        }
    }

    pub(super) fn silu_i8_i8(kernel: impl Fn(Silu, &[i8], &[[i32; 2]], &mut [i8])) {
        silu(i8s, crate::fixed::saturate_i8, [-128, 127], kernel);
    }

    pub(super) fn silu_i16_i8(kernel: impl Fn(Silu, &[i16], &[[i32; 2]], &mut [i8])) {
        silu(i16s, crate::fixed::saturate_i8, [-128, 127], kernel);
    }

    pub(super) fn silu_i8_i16(kernel: impl Fn(Silu, &[i8], &[[i32; 2]], &mut [i16])) {
        silu(i8s, crate::fixed::saturate_i16, [-300, 300], kernel);
    }

    pub(super) fn silu_i16_i16(kernel: impl Fn(Silu, &[i16], &[[i32; 2]], &mut [i16])) {
        silu(i16s, crate::fixed::saturate_i16, [-300, 300], kernel);
    }

    pub(super) fn dot_patches(kernel: impl Fn(&mut [[i32; PIXELS]], &[patches::Group], &[i8], usize, usize)) {
        // Weights between those of two channels, as where a row of the kernel lies in the padding.
        let all = [0, 1, patches::GROUP, 3 * patches::GROUP];
        let behind = if cfg!(miri) { &all[..2] } else { &all };
        for (taps, &behind) in LENGTHS.flat_map(|taps| behind.iter().map(move |behind| (taps, behind))) {
            let stride = taps + behind;
            for fill in 0..FILLS {
                let pixels: [Vec<i16>; PIXELS] = core::array::from_fn(|p| i16s(taps, fill, p as u32));
                let unfolded = unfolded(&pixels);
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

    /// Patches of every run, in one to three rows, in a room that is larger than what is used or not, meet rows of weights of
    /// one to nine channels; the extremes of both are among them.
    fn made_and_multiplied<T: Copy + Into<i64>>(
        activations: impl Fn(usize, usize, u32) -> Vec<T>,
        kernel: impl Fn() -> patches::Patches<T>,
    ) {
        let patches::Patches { unfold, multiply } = kernel();
        for (run, rows) in (1..if cfg!(miri) { 10 } else { 40 }).flat_map(|run| [1, 2, 3].map(|rows| (run, rows))) {
            for case in 0..FILLS {
                let (taps, channels, behind) = (run * rows, 1 + (run + case) % 9, [0, 4, 3][rows - 1]);
                let pixels: [Vec<T>; PIXELS] = core::array::from_fn(|p| activations(taps, case, p as u32));
                let mut room =
                    std::vec![[[99; patches::GROUP]; PIXELS]; (taps + run * (case % 2)).div_ceil(patches::GROUP)];
                let starts: Vec<usize> = (0..rows).map(|row| row * run).collect();
                let places = [0, 1, 2, 3].map(|pixel| pixel * taps);
                unfold(&mut room, &patches::Window { ring: &pixels.concat(), rows: &starts, pixels: places, run });
                let stride = taps + behind;
                let weights = i8s(channels * stride - behind, case, 9);
                let mut sums = std::vec![[77; PIXELS]; channels + case % 2];
                multiply(&mut sums, &room, &weights, taps, stride);
                for (channel, sums) in sums.iter().take(channels).enumerate() {
                    let expected =
                        core::array::from_fn(|p| wrapped(0, &pixels[p], &weights[channel * stride..][..taps]));
                    assert_eq!(
                        *sums, expected,
                        "{rows} rows of {run}, {channels} channels, fill {case}, channel {channel}"
                    );
                }
            }
        }
    }

    pub(super) fn patches_i8(kernel: impl Fn() -> patches::Patches<i8>) {
        made_and_multiplied(i8s, kernel);
    }

    pub(super) fn patches_i16(kernel: impl Fn() -> patches::Patches<i16>) {
        made_and_multiplied(i16s, kernel);
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

    fn moments<T: Copy + Into<i64>>(
        values: impl Fn(usize, usize, u32) -> Vec<T>,
        kernel: impl Fn(&[T], usize, usize, i32) -> (i64, u64),
    ) {
        for (pixels, run) in [1, 2, 3, 17].into_iter().flat_map(|pixels| (1..12).map(move |run| (pixels, run))) {
            for (fill, behind) in (0..FILLS).flat_map(|fill| [0, 1, 2, 5].map(|behind| (fill, behind))) {
                for zero in [0, 5, -65_535, 65_535, i32::MAX / 2] {
                    let stride = run + behind;
                    let values = values((pixels - 1) * stride + run + behind / 2, fill, 0);
                    let (mut sum, mut squares) = (0, 0);
                    for pixel in 0..pixels {
                        for &value in &values[pixel * stride..][..run] {
                            let centered = i128::from(value.into()) - i128::from(zero);
                            sum += centered;
                            squares += centered * centered;
                        }
                    }
                    let found = kernel(&values, stride, run, zero);
                    assert_eq!(
                        found,
                        (sum as i64, squares as u64),
                        "{pixels} pixels of {run} and {behind}, zero {zero}"
                    );
                }
            }
        }
    }

    pub(super) fn moments_i8(kernel: impl Fn(&[i8], usize, usize, i32) -> (i64, u64)) {
        moments(i8s, kernel);
    }

    pub(super) fn moments_i16(kernel: impl Fn(&[i16], usize, usize, i32) -> (i64, u64)) {
        moments(i16s, kernel);
    }

    pub(super) fn scores_i8(kernel: impl Fn(&mut [i32], &[i8], &[i8], usize)) {
        for (len, count) in LENGTHS.flat_map(|len| [1, 2, 3, 4, 9, 11].map(|count| (len, count))) {
            for (fill, behind) in (0..FILLS).flat_map(|fill| [0, 3, 4, 8].map(|behind| (fill, behind))) {
                let stride = (len + behind).max(1);
                let query = i8s(len, fill, 0);
                // Behind the last key there need not be any.
                let keys = i8s((count - 1) * stride + len, fill, 1);
                let mut scores = std::vec![77; count];
                kernel(&mut scores, &query, &keys, stride);
                let expected: Vec<i32> =
                    (0..count).map(|key| wrapped(0, &query, keys.get(key * stride..).unwrap_or_default())).collect();
                assert_eq!(scores, expected, "length {len}, fill {fill}, stride {stride}");
            }
        }
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
