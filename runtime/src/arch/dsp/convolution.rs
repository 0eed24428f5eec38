//! A convolution over patches as a whole: products, bias, requantization, residual and stores of four pixels, all channels
//! in one call.
//!
//! Results are those of [`requantize`](crate::fixed::requantize) by the high word of a product. Where that word alone does not
//! decide, as for results with many fractional bits, the sum is shifted left first. What does not fit then is saturated, which
//! is exact as long as the result is saturated anyway; otherwise the channel is left to the caller.

#[cfg(dsp)]
use super::call::Call;
#[cfg(not(dsp))]
use super::channel::MOST_LEFT;
#[cfg(dsp)]
use super::{channel::multiply_channel, pixel};
use crate::arch::PIXELS;
#[cfg(feature = "tiles")]
use crate::arch::patches::BlockSums;
use crate::arch::patches::{Channels, GROUP, Group, Kept, Place};
use crate::fixed::RESIDUAL_BITS;

/// An element of outputs and residuals.
trait Element: Copy + Into<i32> {
    const BITS: u32;

    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self;
}

impl Element for i8 {
    const BITS: u32 = 8;

    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self {
        crate::fixed::saturate_i8(value)
    }
}

impl Element for i16 {
    const BITS: u32 = 16;

    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self {
        crate::fixed::saturate_i16(value)
    }
}

/// See [`reference::convolve_i8`](crate::arch::reference::convolve_i8).
#[inline]
pub(crate) fn convolve_i8(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i8]>)>,
    output: &mut [i8],
) -> usize {
    convolve(channels, patches, place, kept, output).unwrap_or(0)
}

/// See [`reference::convolve_i16`](crate::arch::reference::convolve_i16).
#[inline]
pub(crate) fn convolve_i16(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i16]>)>,
    output: &mut [i16],
) -> usize {
    convolve(channels, patches, place, kept, output).unwrap_or(0)
}

/// See [`reference::finish_blocks_i8`](crate::arch::reference::finish_blocks_i8).
#[cfg(feature = "tiles")]
#[inline]
pub(crate) fn finish_blocks_i8(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[i8]>)>,
    output: &mut [i8],
) -> usize {
    finish(sums, channels, place, kept, output).unwrap_or(0)
}

/// See [`reference::finish_blocks_i16`](crate::arch::reference::finish_blocks_i16).
#[cfg(feature = "tiles")]
#[inline]
pub(crate) fn finish_blocks_i16(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[i16]>)>,
    output: &mut [i16],
) -> usize {
    finish(sums, channels, place, kept, output).unwrap_or(0)
}

/// What the sums of a channel come from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// The products of patches and weights.
    Patches(&'a [Group]),
    /// They are there, for one channel after another.
    #[cfg(feature = "tiles")]
    Sums(&'a BlockSums),
}

/// As [`convolve`] does, for all pixels.
#[cfg(feature = "tiles")]
#[inline(always)]
fn finish<T: Element>(
    sums: &[BlockSums],
    channels: &Channels<'_>,
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
) -> Option<usize> {
    let values = kept.map(|(_, values)| values);
    let len = values.flatten().map_or(output.len(), |values| values.len().min(output.len()));
    let first = sums.first()?;
    // If there is room for the last pixels, there is for all.
    let next = PIXELS * place.offsets[1];
    let last = Place { at: place.at + (sums.len() - 1) * next, ..place };
    let (channels, scale) = placed(channels, last, kept.map(|(kept, _)| kept), (len, T::BITS), first.len())?;
    #[cfg(dsp)]
    {
        let bytes = size_of::<T>();
        let mut call = call(&channels, Origin::Sums(first), place, &scale, values, output);
        let mut done = 0;
        for sums in sums {
            call.patches = sums.as_ptr().cast();
            call.bias_end = channels.bias.as_ptr_range().end;
            // SAFETY: the caller has seen that there are a constant and a sum at each pixel for each channel, and an element of
            // the output and of the residual for each at each pixel. The same channels are left at all pixels.
            done = (unsafe { multiply_channel(call) }.addr() - call.bias.addr()) / size_of::<i32>();
            call.output = call.output.wrapping_add(next * bytes);
            call.residual = call.residual.wrapping_add(next * bytes);
        }
        Some(done)
    }
    #[cfg(not(dsp))]
    {
        let mut done = 0;
        for (at, sums) in (place.at..).step_by(next).zip(sums) {
            done = compute(&channels, Origin::Sums(sums), Place { at, ..place }, &scale, values, output);
        }
        Some(done)
    }
}

/// What all channels have in common; `None` where the loop below does not hold for them.
#[inline(always)]
fn convolve<T: Element>(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
) -> Option<usize> {
    let values = kept.map(|(_, values)| values);
    let len = values.flatten().map_or(output.len(), |values| values.len().min(output.len()));
    let (channels, scale) = bounded(channels, place, kept.map(|(kept, _)| kept), len, T::BITS)?;
    let patches = patches.get(..channels.taps.div_ceil(GROUP)).filter(|patches| !patches.is_empty())?;
    Some(compute(&channels, Origin::Patches(patches), place, &scale, values, output))
}

/// The channels that have all they need in an output, or in an output and a residual, of `len` elements of some bits.
#[inline(never)]
fn bounded<'a>(
    channels: &Channels<'a>,
    place: Place,
    kept: Option<Kept>,
    len: usize,
    bits: u32,
) -> Option<(Channels<'a>, Scale)> {
    // Behind a row's last tap there are zeros in the patch, and weights of the next row, or nothing.
    let last = channels.weights.len().checked_sub(channels.taps.next_multiple_of(GROUP))?;
    placed(channels, place, kept, (len, bits), last.checked_div(channels.stride)? + 1)
}

/// The same of the first `there` channels.
#[inline(always)]
fn placed<'a>(
    channels: &Channels<'a>,
    place: Place,
    kept: Option<Kept>,
    (len, bits): (usize, u32),
    there: usize,
) -> Option<(Channels<'a>, Scale)> {
    let count = there.min(channels.bias.len()).min(channels.requant.len());
    let zero = channels.zero;
    if place.at + place.offsets[PIXELS - 1] + count > len || zero.unsigned_abs() >> 20 != 0 {
        return None;
    }
    let scale = match kept {
        None => Scale { constant: 2 * zero + 1, bits: 0, kept: [0; 5] },
        Some(kept) => Scale { constant: 1, bits: RESIDUAL_BITS as i32, kept: kept.words(zero, bits)? },
    };
    Some((Channels { bias: channels.bias.get(..count)?, requant: channels.requant.get(..count)?, ..*channels }, scale))
}

/// What turns a sum into a result.
#[derive(Clone, Copy)]
struct Scale {
    /// Zero point and rounding: `(2·zero + 1)`, which is to be shifted by one less than the result.
    constant: i32,
    /// Fractional bits that the result keeps for the sum with the residual.
    bits: i32,
    /// Of a residual: zero point, shift to the left, multiplier, rounding, shift to the right.
    kept: [i32; 5],
}

/// Channels from the first on until one is left to the caller; how many.
#[cfg(dsp)]
#[inline(always)]
fn compute<T: Element>(
    channels: &Channels<'_>,
    origin: Origin<'_>,
    place: Place,
    scale: &Scale,
    kept: Option<Option<&[T]>>,
    output: &mut [T],
) -> usize {
    // SAFETY: the caller has seen that there is a constant, and a row of whole groups of weights, for each channel, and an
    // element of the output and of the residual for each at each pixel; patches are as many as the groups of a row.
    unsafe { run(&mut call(channels, origin, place, scale, kept, output), channels.bias.len(), size_of::<T>()) }
}

/// What the loops are to do.
#[cfg(dsp)]
#[inline(always)]
fn call<T: Element>(
    channels: &Channels<'_>,
    origin: Origin<'_>,
    place: Place,
    scale: &Scale,
    kept: Option<Option<&[T]>>,
    output: &mut [T],
) -> Call {
    let bytes = size_of::<T>();
    let output = output.as_mut_ptr().wrapping_add(place.at);
    let residual = match kept {
        Some(Some(values)) => values.as_ptr().wrapping_add(place.at),
        _ => output.cast_const(),
    };
    let [_, b, c, d] = place.offsets;
    let (patches, sums) = match origin {
        Origin::Patches(patches) => (patches.as_ptr_range(), 0),
        #[cfg(feature = "tiles")]
        Origin::Sums(sums) => (sums.as_ptr().cast()..sums.as_ptr().cast(), 8),
    };
    let groups = (patches.end.addr() - patches.start.addr()) / size_of::<Group>();
    Call {
        patches: patches.start,
        end: patches.end,
        requant: channels.requant.as_ptr(),
        output: output.cast(),
        bias: channels.bias.as_ptr(),
        bias_end: channels.bias.as_ptr_range().end,
        constant: scale.constant,
        base: -1 - scale.bits,
        most: scale.constant.unsigned_abs().leading_zeros() - 1,
        offsets: [b * bytes, c * bytes, d * bytes],
        behind: channels.stride.wrapping_sub(GROUP * groups),
        residual: residual.cast(),
        kept: scale.kept,
        weights: channels.weights.as_ptr(),
        stride: channels.stride,
        mode: usize::from(bytes == 2) | usize::from(kept.is_some()) << 1 | sums,
        entry: 0,
        pairs: 0,
        finish: 0,
    }
}

/// Computes `count` channels with elements of some bytes, or as many as the loops can.
///
/// # Safety
/// Pointers lead to what [`multiply_channel`] reads and writes for as many channels.
#[cfg(dsp)]
#[inline(never)]
unsafe fn run(call: &mut Call, count: usize, bytes: usize) -> usize {
    let aligned = call.weights.addr().is_multiple_of(4) && call.stride.is_multiple_of(4);
    call.mode |= usize::from(aligned) << 2;
    let groups = (call.end.addr() - call.patches.addr()) / size_of::<Group>();
    let [b, c, d] = call.offsets;
    let is_dense = b | c | d == 0 && call.mode & !1 == 4 && groups.is_multiple_of(pixel::ROUND);
    let (mut done, mut at) = (0, 0);
    // SAFETY: parts of what the caller promises. A row may lie anywhere, if not `aligned`.
    unsafe {
        if is_dense && count >= pixel::CHANNELS {
            let whole = count - count % pixel::CHANNELS;
            done = call.part(0, whole, bytes, pixel::multiply_pixel);
            if done == whole && done < count {
                // The last ones, some of them a second time.
                at = count - pixel::CHANNELS;
                if call.part(at as isize, pixel::CHANNELS, bytes, pixel::multiply_pixel) > 0 {
                    done = count;
                }
            }
        }
        if done < count {
            done += call.part(done as isize - at as isize, count - done, bytes, multiply_channel);
        }
    }
    done
}

/// The same over the modelled instructions.
#[cfg(not(dsp))]
fn compute<T: Element>(
    channels: &Channels<'_>,
    origin: Origin<'_>,
    place: Place,
    scale: &Scale,
    kept: Option<Option<&[T]>>,
    output: &mut [T],
) -> usize {
    let high = |value: i32, multiplier: i32| ((i64::from(value) * i64::from(multiplier)) >> 32) as i32;
    let most = scale.constant.unsigned_abs().leading_zeros() as i32 - 1;
    for (channel, (&bias, &[multiplier, shift])) in channels.bias.iter().zip(channels.requant).enumerate() {
        let mut sums = [bias; PIXELS];
        match origin {
            Origin::Patches(patches) => {
                for (k, group) in patches.iter().enumerate() {
                    let weights = channels.weights.get(channel * channels.stride + k * GROUP..).unwrap_or_default();
                    super::add_group(&mut sums, group, weights.first_chunk().copied().unwrap_or_default());
                }
            }
            #[cfg(feature = "tiles")]
            Origin::Sums(of_channels) => {
                for (sum, &more) in sums.iter_mut().zip(of_channels.get(channel).into_iter().flatten()) {
                    *sum = sum.wrapping_add(more);
                }
            }
        }
        let mut right = (-1 - scale.bits).wrapping_sub(shift);
        if right < 1 || right > most {
            let left = 1i32.wrapping_sub(right) as u32;
            if right > 0 || left > MOST_LEFT || multiplier < 1 << 30 {
                return channel;
            }
            sums = sums.map(|sum| sum.clamp(i32::MIN >> left, i32::MAX >> left) << left);
            right = 1;
        }
        let places = place.offsets.map(|offset| place.at + offset + channel);
        // All are read before any is written: pixels may share a place.
        let results: [T; PIXELS] = core::array::from_fn(|pixel| {
            let result = (high(sums[pixel], multiplier) + (scale.constant << (right - 1))) >> right;
            T::nearest(match kept {
                None => result,
                Some(values) => {
                    let [zero, left, multiplier, rounding, right] = scale.kept;
                    let value: i32 = values.map_or(output[places[pixel]], |values| values[places[pixel]]).into();
                    let added = (high((value - zero) << left, multiplier) + rounding) >> right;
                    (result + added) >> RESIDUAL_BITS
                }
            })
        });
        for (place, result) in places.into_iter().zip(results) {
            output[place] = result;
        }
    }
    channels.bias.len()
}
