//! Sums of products, of integers and of floats, and moments.

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
    let (most, step) = if cfg!(miri) { (4, 5) } else { (17, 1) };
    for (pixels, run) in
        [1, 2, 3, most].into_iter().flat_map(|pixels| (1..12).step_by(step).map(move |run| (pixels, run)))
    {
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
                assert_eq!(found, (sum as i64, squares as u64), "{pixels} pixels of {run} and {behind}, zero {zero}");
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
    let lengths = LENGTHS.step_by(if cfg!(miri) { 5 } else { 1 });
    for (len, count) in lengths.flat_map(|len| [1, 2, 3, 4, 9, 11].map(|count| (len, count))) {
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
            let weights: Vec<[f32; CHANNEL_BLOCK]> = (0..len).map(|k| core::array::from_fn(|c| rows[c][k])).collect();
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

pub(super) fn spread_packed(kernel: impl Fn(&mut [[u32; SPREAD / patches::GROUP]; QUAD], &[u16])) {
    for len in 0..=SPREAD {
        let weights: Vec<u16> = (0..len as u32).map(|i| philox([i, len as u32], [0; 4])[0] as u16).collect();
        let mut rows = [[u32::MAX; SPREAD / patches::GROUP]; QUAD];
        kernel(&mut rows, &weights);
        for (output, row) in rows.iter().enumerate() {
            let row: &[i8] = bytemuck::cast_slice(row);
            for (tap, &found) in row.iter().take(len.next_multiple_of(patches::GROUP)).enumerate() {
                // Two's complement.
                let nibble = weights.get(tap).map_or(0, |weight| i32::from(weight >> (4 * output) & 15));
                let expected = if nibble > 7 { nibble - 16 } else { nibble };
                assert_eq!(i32::from(found), expected, "tap {tap} of {len}, output {output}");
            }
        }
    }
}

pub(super) fn scale_each(kernel: impl Fn(&mut [i32], HighWord)) {
    for (shift, multiplier) in (-31..-1).flat_map(|shift| [1 << 30, i32::MAX, 3, -1_500_000_000].map(|m| (shift, m))) {
        let Some(high) = HighWord::of(multiplier, shift) else { panic!("{shift} has a high word") };
        assert_eq!(high.parts(), (multiplier, (-1 - shift) as u32));
        for len in [0, 1, 7, 32] {
            let random = (0..len).map(|i| philox([i, shift.unsigned_abs()], [0; 4])[0] as i32);
            let edges = [i32::MIN, i32::MAX, -1, 0, 65_535, -65_536, 32_768];
            let values: Vec<i32> = edges.into_iter().cycle().take(len as usize).chain(random).collect();
            let mut scaled = values.clone();
            kernel(&mut scaled, high);
            for (value, scaled) in values.into_iter().zip(scaled) {
                let product = i128::from(value) * i128::from(multiplier);
                let expected = (product + (1 << (30 - shift))) >> (31 - shift);
                assert_eq!(i128::from(scaled), expected, "{value}·{multiplier}, {shift}");
            }
        }
    }
}

/// Results of every size, with residuals and without, at the ends of their range and beyond, of one to four pixels. A kernel may
/// leave channels from one on.
fn finish<T: PartialEq + Copy + core::fmt::Debug>(
    nearest: impl Fn(i128) -> T,
    kernel: impl Fn(patches::Finish<'_>, &mut [T], usize, usize) -> usize,
) {
    const CHANNELS: usize = 5;
    let mut finished = 0;
    for (shift, case) in (-33..32i32).flat_map(|shift| (0..60).map(move |case| (shift, case))) {
        let words = |operand: u32, size: u32| -> Vec<[i32; PIXELS]> {
            let channels = 0..CHANNELS as u32;
            channels.map(|c| philox([case, operand], [c, shift as u32, 0, 0]).map(|word| word as i32 >> size)).collect()
        };
        let [a, b, c, d] = philox([case, shift as u32], [0; 4]);
        let (accumulators, held) = (words(1, a % 32), words(2, b % 32));
        let bias: Vec<i32> = words(3, c % 32).concat()[..CHANNELS].to_vec();
        let requant = [1 << 30, i32::MAX, 1_600_000_000, 3, 1 << 30].map(|multiplier| [multiplier, shift]);
        let most = patches::Finish::MOST_ZERO as i32;
        let zero = [0, -3, 127, most, -most][d as usize % 5];
        let pixels = 1 + case as usize % PIXELS;
        let advance = CHANNELS + case as usize % 3;
        for kept in [None, Some(&held[..])] {
            let untouched = nearest(99);
            let mut output = std::vec![untouched; (pixels - 1) * advance + CHANNELS];
            let call = patches::Finish { accumulators: &accumulators, bias: &bias, requant: &requant, kept, zero };
            let done = kernel(call, &mut output, advance, pixels);
            finished += done;
            for (at, found) in output.into_iter().enumerate() {
                let (pixel, channel) = (at / advance, at % advance);
                let rounded = |value: i128, right: i32| (value + (1 << (right - 1))) >> right;
                if channel >= CHANNELS {
                    assert_eq!(found, untouched);
                } else if channel < done {
                    let sum = accumulators[channel][pixel].wrapping_add(bias[channel]);
                    let more = if kept.is_some() { 8 } else { 0 };
                    let product = i128::from(sum) * i128::from(requant[channel][0]);
                    let scaled = rounded(product, 31 - (shift + more).clamp(-31, 30));
                    let scaled = scaled.clamp(i32::MIN.into(), i32::MAX.into());
                    let result = kept.map_or(scaled, |kept| rounded(scaled + i128::from(kept[channel][pixel]), 8));
                    let result = (result + i128::from(zero)).clamp(i32::MIN.into(), i32::MAX.into());
                    assert_eq!(found, nearest(result), "{sum}·{:?}, {kept:?}, {zero}", requant[channel]);
                }
            }
        }
    }
    assert!(finished > 10_000, "{finished}");
}

pub(super) fn finish_i8(kernel: impl Fn(patches::Finish<'_>, &mut [i8], usize, usize) -> usize) {
    finish(|value| value.clamp(-128, 127) as i8, kernel);
}

pub(super) fn finish_i16(kernel: impl Fn(patches::Finish<'_>, &mut [i16], usize, usize) -> usize) {
    finish(|value| value.clamp(-32_768, 32_767) as i16, kernel);
}
