//! Patches, convolutions over them, and what brings values into the ring.

use super::*;

/// Runs of every length come in one, two or three rows, as those of a kernel do, which lie apart and not in order. The last
/// pixel may be the one before.
fn patches<T: Copy + Into<i64>>(
    activations: impl Fn(usize, usize, u32) -> Vec<T>,
    unfold: impl Fn(&mut [patches::Group], &patches::Window<'_, T>),
) {
    for (run, rows) in (1..if cfg!(miri) { 10 } else { 40 }).flat_map(|run| [1, 2, 3].map(|rows| (run, rows))) {
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
                    assert_eq!(i64::from(found), expected, "{rows} rows of {run}, fill {fill}, pixel {p}, tap {tap}");
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
    let shifts = || (-20..12i32).step_by(if cfg!(miri) { 7 } else { 1 });
    let taps = || (1..if cfg!(miri) { 10 } else { 45 }).step_by(if cfg!(miri) { 4 } else { 1 });
    for (taps, shift) in taps().flat_map(|taps| shifts().map(move |s| (taps, s))) {
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
        let channels =
            patches::Channels { weights: &weights, taps, stride, narrow: false, bias: &bias, requant: &requant, zero };
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
                for (offset, pixel) in place.offsets.iter().zip(&pixels).take(there) {
                    let at = place.at + offset + c;
                    let sum = wrapped(bias[c], pixel, &weights[c * stride..][..taps]);
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

/// The sums of the channels' products, as tiles would have them, at four pixels and, the same, at four others.
fn sums(channels: &patches::Channels<'_>, patches: &[patches::Group], fours: usize) -> Vec<patches::BlockSums> {
    let mut sums = [[77; PIXELS]; CHANNEL_BLOCK];
    let of_channels = &mut sums[..channels.bias.len()];
    super::super::reference::dot_patches(of_channels, patches, channels.weights, channels.taps, channels.stride);
    std::vec![sums; fours]
}

/// Several fours of pixels at once are what each is.
fn finish<T: Copy + PartialEq + core::fmt::Debug>(
    kernel: impl Fn(
        &[patches::BlockSums],
        &patches::Channels<'_>,
        patches::Place,
        Option<(patches::Kept, Option<&[T]>)>,
        &mut [T],
    ) -> usize,
    (channels, patches, place): (&patches::Channels<'_>, &[patches::Group], patches::Place),
    kept: Option<(patches::Kept, Option<&[T]>)>,
    output: &mut [T],
) -> usize {
    let before = output.to_vec();
    let done = kernel(&sums(channels, patches, 1), channels, place, kept, output);
    let next = PIXELS * place.offsets[1];
    let twice = |values: &[T]| [&values[..next], values].concat();
    let values = kept.map(|(kept, values)| (kept, values.map(twice)));
    let of_both = values.as_ref().map(|(kept, values)| (*kept, values.as_deref()));
    let mut both = twice(&before);
    let again = kernel(&sums(channels, patches, 2), channels, place, of_both, &mut both);
    // What the first four write is what the residual of the second is, if they overlap.
    if next > place.at + place.offsets[PIXELS - 1] + channels.bias.len() {
        assert_eq!((again, &both[next + place.at..]), (done, &output[place.at..]));
    }
    done
}

pub(super) fn finish_blocks_i8(
    kernel: impl Fn(
        &[patches::BlockSums],
        &patches::Channels<'_>,
        patches::Place,
        Option<(patches::Kept, Option<&[i8]>)>,
        &mut [i8],
    ) -> usize,
) {
    convolve_i8(|channels, patches, place, kept, output| finish(&kernel, (channels, patches, place), kept, output));
}

pub(super) fn finish_blocks_i16(
    kernel: impl Fn(
        &[patches::BlockSums],
        &patches::Channels<'_>,
        patches::Place,
        Option<(patches::Kept, Option<&[i16]>)>,
        &mut [i16],
    ) -> usize,
) {
    convolve_i16(|channels, patches, place, kept, output| finish(&kernel, (channels, patches, place), kept, output));
}

/// A multiplier of every way into a ring.
const MULTIPLIER: i32 = 1_500_000_000;

/// Every shift of the affine map that a word decides, results over the whole table and beyond both of its ends, saturated
/// sums and rings; and raw values.
fn gather<S: Copy + Into<i32>, R: PartialEq + Copy + core::fmt::Debug>(
    values: impl Fn(usize, usize, u32) -> Vec<S>,
    nearest: impl Fn(i32) -> R,
    zeros: [i32; 2],
    kernel: impl Fn(IntoRing, &[S], &[[i32; 2]], &mut [R], [usize; 2]) -> bool,
) {
    use crate::fixed::{affine, requantize, silu};
    // The interpreter takes each fifth.
    let step = if cfg!(miri) { 5 } else { 1 };
    let shifts = (16..32).step_by(step).flat_map(|shift| [false, true].map(|is_silu| (shift, is_silu)));
    for ((affine_shift, is_silu), fill) in shifts.flat_map(|shift| (0..FILLS).map(move |fill| (shift, fill))) {
        for (shift, zero) in (-20..4).step_by(step).flat_map(|shift| [0, zeros[0], zeros[1]].map(|zero| (shift, zero)))
        {
            let most = if size_of::<R>() == 1 { 127 } else { 32_767 };
            let map = IntoRing::mapped(affine_shift, [MULTIPLIER, shift], [zero, most], is_silu);
            // Both ends of 25 bits are beyond the ring's, or there is no kernel.
            let [first, last] =
                [-(1 << 27), ((1 << 24) - 1) << 3].map(|v| requantize(v, MULTIPLIER, shift).saturating_add(zero));
            let fits = if is_silu { shift < 0 } else { shift < 2 && first < -most && last >= most };
            assert_eq!(map.is_some(), (17..31).contains(&affine_shift) && fits, "{affine_shift}, {shift}, {is_silu}");
            let Some(map) = map else { continue };
            for (len, pixels, behind) in [(1, 1, 0), (2, 3, 1), (7, 2, 9), (32, 1, 5), (16, 2, 0)] {
                let values = values(pixels * len, fill, 0);
                let advance = len + behind;
                // Most maps give what the table has, some far more.
                let maps: Vec<[i32; 2]> = (0..len as u32)
                    .map(|i| {
                        let [a, b, c, _] = philox([affine_shift, fill as u32], [i, len as u32, 0, 0]);
                        [a as i32 >> (c % 20), b as i32 >> (c / 32 % 24)]
                    })
                    .collect();
                // Behind the last pixel there need not be any.
                let mut targets = std::vec![nearest(99); pixels * advance - behind];
                assert!(!kernel(map, &values, &maps[1..], &mut targets, [len, advance]), "a map is missing");
                assert!(!kernel(map, &values, &maps, &mut targets, [len, len - 1]), "pixels lie in each other");
                assert!(kernel(map, &values, &maps, &mut targets, [len, advance]));
                let between = targets.chunks(advance).flat_map(|pixel| &pixel[len.min(pixel.len())..]);
                assert!(between.into_iter().all(|&target| target == nearest(99)), "what lies between pixels is left");
                let written = targets.chunks(advance).flat_map(|pixel| &pixel[..len]);
                let of_pixels = values.iter().zip(maps.iter().cycle());
                for ((value, &[a, b]), &target) in of_pixels.zip(written) {
                    let mapped = affine((*value).into(), a, affine_shift, b);
                    let entered = if is_silu { silu(mapped) } else { mapped.clamp(-(1 << 27), 1 << 27) << 3 };
                    let expected = nearest(requantize(entered, MULTIPLIER, shift).saturating_add(zero));
                    assert_eq!(target, expected, "{:?}, {a}, {b}, {map:?}", (*value).into());
                }
            }
        }
    }
    raw_values(values, nearest, zeros, kernel);
}

/// Values without maps: every shift, and zero points of both sides.
fn raw_values<S: Copy + Into<i32>, R: PartialEq + Copy + core::fmt::Debug>(
    values: impl Fn(usize, usize, u32) -> Vec<S>,
    nearest: impl Fn(i32) -> R,
    zeros: [i32; 2],
    kernel: impl Fn(IntoRing, &[S], &[[i32; 2]], &mut [R], [usize; 2]) -> bool,
) {
    use crate::fixed::requantize;
    let froms = [0, -65_535, 65_535];
    for (shift, from) in
        (-32..16).step_by(if cfg!(miri) { 7 } else { 1 }).flat_map(|shift| froms.map(|from| (shift, from)))
    {
        for (zero, fill) in
            [0, zeros[0], zeros[1]].into_iter().flat_map(|zero| (0..FILLS).map(move |fill| (zero, fill)))
        {
            for multiplier in [MULTIPLIER, 1 << 30, i32::MAX, 3, -MULTIPLIER] {
                assert!(IntoRing::raw(from, [0, shift], zero).is_none(), "a copy");
                assert!(IntoRing::raw(1 << 16, [multiplier, shift], zero).is_none(), "a zero of more bits");
                let map = IntoRing::raw(from, [multiplier, shift], zero);
                assert!(map.is_some() || !(-13..12).contains(&shift), "{shift}, {from}, {zero}");
                let Some(map) = map else { continue };
                for (len, pixels, behind) in [(1, 1, 0), (7, 2, 3), (16, 2, 0)] {
                    let values = values(pixels * len, fill, 0);
                    let advance = len + behind;
                    let mut targets = std::vec![nearest(99); pixels * advance];
                    assert!(kernel(map, &values, &[], &mut targets, [len, advance]));
                    let written = targets.chunks(advance).flat_map(|pixel| &pixel[..len]);
                    for (value, &target) in values.iter().zip(written) {
                        let value = (*value).into();
                        let expected = nearest(requantize(value - from, multiplier, shift).saturating_add(zero));
                        assert_eq!(target, expected, "{value}, {map:?}");
                    }
                }
            }
        }
    }
}

pub(super) fn gather_i8_i8(kernel: impl Fn(IntoRing, &[i8], &[[i32; 2]], &mut [i8], [usize; 2]) -> bool) {
    gather(i8s, crate::fixed::saturate_i8, [-128, 127], kernel);
}

pub(super) fn gather_i16_i8(kernel: impl Fn(IntoRing, &[i16], &[[i32; 2]], &mut [i8], [usize; 2]) -> bool) {
    gather(i16s, crate::fixed::saturate_i8, [-128, 127], kernel);
}

pub(super) fn gather_i8_i16(kernel: impl Fn(IntoRing, &[i8], &[[i32; 2]], &mut [i16], [usize; 2]) -> bool) {
    gather(i8s, crate::fixed::saturate_i16, [-300, 300], kernel);
}

pub(super) fn gather_i16_i16(kernel: impl Fn(IntoRing, &[i16], &[[i32; 2]], &mut [i16], [usize; 2]) -> bool) {
    gather(i16s, crate::fixed::saturate_i16, [-300, 300], kernel);
}

pub(super) fn dot_patches(kernel: impl Fn(&mut [[i32; PIXELS]], &[patches::Group], &[i8], usize, usize)) {
    // Weights between those of two channels, as where a row of the kernel lies in the padding.
    let all = [0, 1, patches::GROUP, 3 * patches::GROUP];
    let behind = if cfg!(miri) { &all[..2] } else { &all };
    // Whole groups and what is left of one.
    let lengths: Vec<usize> = if cfg!(miri) { std::vec![4, 7, 8] } else { LENGTHS.collect() };
    for (taps, &behind) in lengths.into_iter().flat_map(|taps| behind.iter().map(move |behind| (taps, behind))) {
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

/// Rows of three columns, in which the first pixel, the last, both or none have zeros at an end.
pub(super) fn dot_edges(kernel: impl Fn(&mut [[i32; PIXELS]], &[patches::Group], &[i8], usize, usize, patches::Idle)) {
    for (column, rows) in [1, 2, 3, 4, 8, 12, 20].into_iter().flat_map(|column| [1, 2, 3].map(|rows| (column, rows))) {
        for (fill, [first, last]) in
            (0..FILLS).flat_map(|fill| [[false, false], [true, false], [false, true], [true, true]].map(|i| (fill, i)))
        {
            let (taps, channels) = (3 * column * rows, 1 + (rows + fill) % 9);
            let stride = taps + patches::GROUP * (fill % 2);
            let mut pixels: [Vec<i16>; PIXELS] = core::array::from_fn(|p| i16s(taps, fill, p as u32));
            for row in 0..rows {
                let at = 3 * column * row;
                let mut clear = |pixel: usize, from: usize| pixels[pixel][from..from + column].fill(0);
                if first {
                    clear(0, at);
                }
                if last {
                    clear(PIXELS - 1, at + 2 * column);
                }
            }
            let weights = i8s(channels * stride, fill, 9);
            let expected: Vec<[i32; PIXELS]> = (0..channels)
                .map(|c| core::array::from_fn(|p| wrapped(0, &pixels[p], &weights[c * stride..][..taps])))
                .collect();
            let mut sums = std::vec![[77; PIXELS]; channels];
            let idle = patches::Idle { column, first, last };
            kernel(&mut sums, &unfolded(&pixels), &weights, taps, stride, idle);
            assert_eq!(sums, expected, "{channels} channels, {rows} rows of {column}, fill {fill}, {idle:?}");
        }
    }
}

/// Patches of every run, in one to three rows, in a room that is larger than what is used or not, meet rows of weights of
/// one to nine channels; the extremes of both are among them.
fn made_and_multiplied<T: Copy + Default + Into<i64>>(
    activations: impl Fn(usize, usize, u32) -> Vec<T>,
    kernel: impl Fn() -> patches::Patches<T>,
) {
    let patches::Patches { unfold, multiply, edges, taps: together } = kernel();
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
                let expected = core::array::from_fn(|p| wrapped(0, &pixels[p], &weights[channel * stride..][..taps]));
                assert_eq!(
                    *sums, expected,
                    "{rows} rows of {run}, {channels} channels, fill {case}, channel {channel}"
                );
            }
            // What four-bit weights meet: the taps from some on.
            #[cfg(feature = "i4")]
            if let (Some(behind), Some(weights)) = (room.get(SPREAD / together..), weights.get(SPREAD..)) {
                let taps = taps.saturating_sub(SPREAD);
                multiply(&mut sums, behind, weights, taps, stride);
                for (channel, sums) in sums.iter().take(if taps == 0 { 0 } else { channels }).enumerate() {
                    let row = &weights[channel * stride..][..taps];
                    let expected = core::array::from_fn(|p| wrapped(0, &pixels[p][SPREAD..], row));
                    assert_eq!(*sums, expected, "{rows} rows of {run}, channel {channel} from tap {SPREAD} on");
                }
            }
            // Runs of whole columns of three, with pixels that are idle.
            if run % 3 == 0 {
                let column = run / 3;
                let idle = patches::Idle { column, first: case % 2 == 0, last: case % 3 == 0 };
                let mut pixels = pixels;
                for row in (0..taps).step_by(run) {
                    if idle.first {
                        pixels[0][row..row + column].fill(T::default());
                    }
                    if idle.last {
                        pixels[PIXELS - 1][row + 2 * column..row + run].fill(T::default());
                    }
                }
                unfold(&mut room, &patches::Window { ring: &pixels.concat(), rows: &starts, pixels: places, run });
                edges(&mut sums, &room, &weights, taps, stride, idle);
                for (channel, sums) in sums.iter().take(channels).enumerate() {
                    let row = &weights[channel * stride..][..taps];
                    let expected = core::array::from_fn(|p| wrapped(0, &pixels[p], row));
                    assert_eq!(
                        *sums, expected,
                        "{rows} rows of {run}, {channels} channels, channel {channel}, {idle:?}"
                    );
                }
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

/// Whatever a model says of a residual and its zero points, words for it are made without an overflow, or not at all.
#[cfg(not(no_long_multiply))]
#[test]
fn residuals_of_any_numbers_are_taken_or_left() {
    const ZEROS: [i32; 9] = [i32::MIN, -65_536, -65_535, -128, 0, 65_535, 65_536, (1 << 23) - 1, i32::MAX];
    const SHIFTS: [i32; 11] = [i32::MIN, -33, -8, -7, -1, 0, 10, 11, 18, 19, i32::MAX];
    for zero in ZEROS {
        for of_residual in ZEROS {
            for shift in SHIFTS {
                for element in [8, 16] {
                    let kept = patches::Kept { zero: of_residual, map: [1 << 30, shift] };
                    let fits = (-65_535..=65_535).contains(&zero)
                        && i64::from(of_residual).abs() < 1 << element
                        && (-7..=26 - element as i32).contains(&shift);
                    assert_eq!(kept.words(zero, element).is_some(), fits, "{zero} {of_residual} {shift} {element}");
                }
            }
        }
    }
}
