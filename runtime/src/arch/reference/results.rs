//! Whole convolutions over patches, and what becomes of sums: kernels that only some families have, as tests compare them.

use super::dot_channel;
use crate::arch::PIXELS;
#[cfg(feature = "tiles")]
use crate::arch::patches::BlockSums;
use crate::arch::patches::{Channels, Finish, Group, Kept, Place, rows};
use crate::fixed::{HighWord, RESIDUAL_BITS, requantize, round_shift};

/// Computes channels of a convolution from their patches: products, bias, requantization, residual, each result to the nearest
/// of its type. A residual is what stands at the results' places if it has no values of its own. Returns how many channels it
/// computed, from the first on, as a kernel may leave some to the caller; of others nothing is written.
pub(crate) fn convolve_i8(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i8]>)>,
    output: &mut [i8],
) -> usize {
    convolve(channels, patches, place, kept, output, crate::fixed::saturate_i8)
}

/// The same for `i16` results.
pub(crate) fn convolve_i16(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i16]>)>,
    output: &mut [i16],
) -> usize {
    convolve(channels, patches, place, kept, output, crate::fixed::saturate_i16)
}

fn convolve<T: Copy + Into<i32>>(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
    nearest: impl Fn(i32) -> T,
) -> usize {
    let rows = rows(channels.weights, channels.taps, channels.stride).take(channels.bias.len());
    finish_channels(rows.map(|row| dot_channel(patches, row)), channels, place, kept, output, nearest)
}

/// The same from sums of products; weights are not read. Fours of pixels follow one another, each as far from the one before as
/// the second pixel's place says; the last has a place for all of its channels.
#[cfg(feature = "tiles")]
pub(crate) fn finish_blocks_i8(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[i8]>)>,
    output: &mut [i8],
) -> usize {
    finish_blocks(sums, channels, place, kept, output, crate::fixed::saturate_i8)
}

/// The same for `i16` results.
#[cfg(feature = "tiles")]
pub(crate) fn finish_blocks_i16(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[i16]>)>,
    output: &mut [i16],
) -> usize {
    finish_blocks(sums, channels, place, kept, output, crate::fixed::saturate_i16)
}

#[cfg(feature = "tiles")]
fn finish_blocks<T: Copy + Into<i32>>(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
    nearest: impl Fn(i32) -> T,
) -> usize {
    for (at, sums) in (place.at..).step_by(PIXELS * place.offsets[1]).zip(sums) {
        let sums = sums.iter().copied().take(channels.bias.len());
        finish_channels(sums, channels, Place { at, ..place }, kept, output, &nearest);
    }
    channels.bias.len()
}

fn finish_channels<T: Copy + Into<i32>>(
    sums: impl Iterator<Item = [i32; PIXELS]>,
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
    nearest: impl Fn(i32) -> T,
) -> usize {
    let Channels { bias, requant, zero, .. } = *channels;
    for (channel, sums) in sums.enumerate() {
        let [multiplier, shift] = requant[channel];
        let places = place.offsets.map(|offset| place.at + offset + channel);
        // All are read before any is written: pixels may share a place.
        let results = core::array::from_fn::<_, PIXELS, _>(|pixel| {
            let sum = sums[pixel].wrapping_add(bias[channel]);
            let value = match kept {
                None => requantize(sum, multiplier, shift),
                Some((kept, values)) => {
                    let held: i32 = values.map_or(output[places[pixel]], |values| values[places[pixel]]).into();
                    let held = requantize(held - kept.zero, kept.map[0], kept.map[1]);
                    let value = requantize(sum, multiplier, shift + RESIDUAL_BITS as i32);
                    round_shift(i64::from(value) + i64::from(held), RESIDUAL_BITS) as i32
                }
            };
            nearest(value.saturating_add(zero))
        });
        for (place, result) in places.into_iter().zip(results) {
            output[place] = result;
        }
    }
    bias.len()
}

/// The high word of each value's product, rounded and shifted, see [`HighWord`].
pub(crate) fn scale_each(values: &mut [i32], high: HighWord) {
    values.iter_mut().for_each(|value| *value = high.scale(*value));
}

/// Writes the results of channels at as many pixels, which are `advance` elements apart, each the nearest of its type. Returns how
/// many channels it finished, from the first on: a kernel may leave some to the caller, who writes them, and what is at their
/// places by then is not said.
pub(crate) fn finish_i8(finish: Finish<'_>, output: &mut [i8], advance: usize, pixels: usize) -> usize {
    self::finish(finish, output, [advance, pixels], crate::fixed::saturate_i8)
}

/// The same for `i16` results.
pub(crate) fn finish_i16(finish: Finish<'_>, output: &mut [i16], advance: usize, pixels: usize) -> usize {
    self::finish(finish, output, [advance, pixels], crate::fixed::saturate_i16)
}

fn finish<T>(finish: Finish<'_>, output: &mut [T], [advance, pixels]: [usize; 2], nearest: impl Fn(i32) -> T) -> usize {
    let Finish { accumulators, bias, requant, kept, zero } = finish;
    for (channel, accumulators) in accumulators.iter().enumerate() {
        let [multiplier, shift] = requant[channel];
        for (pixel, accumulator) in accumulators.iter().enumerate().take(pixels) {
            let value = accumulator.wrapping_add(bias[channel]);
            let result = match kept {
                None => requantize(value, multiplier, shift),
                Some(kept) => {
                    let scaled = requantize(value, multiplier, shift + RESIDUAL_BITS as i32);
                    round_shift(i64::from(scaled) + i64::from(kept[channel][pixel]), RESIDUAL_BITS) as i32
                }
            };
            output[pixel * advance + channel] = nearest(result.saturating_add(zero));
        }
    }
    accumulators.len()
}
