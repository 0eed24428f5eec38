//! From accumulators to results: bias, requantization, residual.

use super::values::Values;
use crate::arch::PIXELS;
#[cfg(not(any(no_long_multiply, dsp)))]
use crate::arch::patches::Kept;
#[cfg(any(armv6m, test))]
use crate::arch::{finish_i8, finish_i16, patches::Finish};
use crate::fixed::{HighWord, RESIDUAL_BITS, requantize, saturate_i8, saturate_i16};
use crate::format::{CHANNEL_BLOCK, Conv2d, NONE};
use crate::ops::requantize::{requantize_centered, requantize_each};
#[cfg(not(any(no_long_multiply, dsp)))]
use crate::ops::tail;

/// What a ring's scales ask of accumulators. A type, so that a firmware without scales of steps is none the larger.
pub(super) trait Scales: Copy {
    /// An accumulator in the units of its bias, with the bias.
    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32;
}

/// Those of the record.
#[derive(Clone, Copy)]
pub(super) struct OfRecord;

impl Scales for OfRecord {
    fn complete(self, _op: &Conv2d, accumulator: i32, _sum: i32, bias: i32) -> i32 {
        accumulator.wrapping_add(bias)
    }
}

/// Those of the step: multiplier and shift of accumulators.
#[derive(Clone, Copy)]
pub(super) struct OfStep(pub(super) [i32; 2]);

impl Scales for OfStep {
    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32 {
        rescaled(op.ring_zero, accumulator, sum, self.0, bias)
    }
}

/// An accumulator that started at zero over a ring with the step's own scales, in the units of its bias; `sum` is that of
/// the channel's weights. Products and differences wrap.
#[inline(always)]
pub fn rescaled(ring_zero: i32, accumulator: i32, sum: i32, [multiplier, shift]: [i32; 2], bias: i32) -> i32 {
    let centered = accumulator.wrapping_sub(ring_zero.wrapping_mul(sum));
    requantize(centered, multiplier, shift).saturating_add(bias)
}

/// One result, to be saturated to the output's width, from its accumulator and what the residual holds there.
#[inline(always)]
pub fn finished(op: &Conv2d, accumulator: i32, requant: [i32; 2], kept: Option<i32>) -> i32 {
    let value = match kept {
        None => scaled(accumulator, requant, 0),
        Some(kept) => added(op, scaled(accumulator, requant, RESIDUAL_BITS), kept),
    };
    value.saturating_add(op.output_zero)
}

/// An accumulator in the units of the output, with some more fractional bits.
#[inline(always)]
fn scaled(accumulator: i32, [multiplier, shift]: [i32; 2], bits: u32) -> i32 {
    requantize(accumulator, multiplier, shift.saturating_add(bits as i32))
}

/// The sum of a result with [`RESIDUAL_BITS`] more bits and what the residual holds.
#[inline(always)]
fn added(op: &Conv2d, value: i32, kept: i32) -> i32 {
    let kept = requantize(kept.saturating_sub(op.residual_zero), op.residual_multiplier, op.residual_shift);
    sum(value, kept)
}

/// The sum of two values with [`RESIDUAL_BITS`] more bits than the output, rounded half up: high and low bits apart, as the
/// sum itself may have 33.
#[inline(always)]
pub(crate) fn sum(value: i32, kept: i32) -> i32 {
    const MASK: i32 = (1 << RESIDUAL_BITS) - 1;
    let carry = ((value & MASK) + (kept & MASK) + (1 << (RESIDUAL_BITS - 1))) >> RESIDUAL_BITS;
    (value >> RESIDUAL_BITS) + (kept >> RESIDUAL_BITS) + carry
}

/// What turns the accumulators of some output channels into results.
pub(super) struct Block<'a, S> {
    pub(super) op: &'a Conv2d,
    pub(super) scales: S,
    pub(super) bias: &'a [i32],
    /// Sums of weights; empty if the record's scales hold.
    pub(super) sums: &'a [i32],
    pub(super) requant: &'a [[i32; 2]],
}

/// Where the results of neighbouring pixels go.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The element of the first pixel's first channel.
    pub(super) at: usize,
    /// Elements from one pixel to the next.
    pub(super) advance: usize,
    /// Pixels that there are, at most [`PIXELS`]; the accumulators of others are left.
    pub(super) pixels: usize,
}

/// What the residual holds for each accumulator of a block.
type Held = [[i32; PIXELS]; CHANNEL_BLOCK];

impl<S: Scales> Block<'_, S> {
    /// Writes the results of a block's accumulators. A residual without values of its own is what stands at the output's
    /// place.
    pub(super) fn write(
        &self,
        accumulators: &[[i32; PIXELS]],
        residual: Option<&Values<'_>>,
        output: &mut Values<'_>,
        place: Place,
    ) {
        #[cfg(not(any(no_long_multiply, dsp)))]
        if self.op.residual != NONE && self.put_sums(accumulators, residual, output, place) {
            return;
        }
        let kept = (self.op.residual != NONE).then(|| self.kept(residual.unwrap_or(output), accumulators.len(), place));
        let kept = kept.as_ref();
        #[cfg(any(armv6m, test))]
        if self.finish(accumulators, kept, output, place) {
            return;
        }
        // Where a product of 64 bits takes long anyway, or where most results are written by a kernel, small code wins.
        if cfg!(any(no_long_multiply, all(dsp, not(feature = "tiles")))) {
            return self.write_pixels(accumulators, kept, output, place);
        }
        match output {
            Values::I8(output) => self.put(accumulators, kept, output, place, saturate_i8),
            Values::I16(output) => self.put(accumulators, kept, output, place, saturate_i16),
            Values::I32(output) => self.put(accumulators, kept, output, place, |value| value),
        }
    }

    /// The same by a kernel; false where there is none, or where it leaves channels.
    #[cfg(any(armv6m, test))]
    fn finish(
        &self,
        accumulators: &[[i32; PIXELS]],
        kept: Option<&Held>,
        output: &mut Values<'_>,
        place: Place,
    ) -> bool {
        let (zero, Place { at, advance, pixels }) = (self.op.output_zero, place);
        // Scales of steps have sums.
        if zero.unsigned_abs() > Finish::MOST_ZERO || !self.sums.is_empty() {
            return false;
        }
        let kept = kept.map(|kept| kept.as_slice());
        let finish = Finish { accumulators, bias: self.bias, requant: self.requant, kept, zero };
        let done = match output {
            Values::I8(output) => finish_i8(finish, output.get_mut(at..).unwrap_or_default(), advance, pixels),
            Values::I16(output) => finish_i16(finish, output.get_mut(at..).unwrap_or_default(), advance, pixels),
            Values::I32(_) => return false,
        };
        done == accumulators.len()
    }

    /// The same by way of memory, for all elements alike.
    #[inline(never)]
    fn write_pixels(&self, accumulators: &[[i32; PIXELS]], kept: Option<&Held>, output: &mut Values<'_>, place: Place) {
        let bits = if kept.is_some() { RESIDUAL_BITS } else { 0 };
        let mut results = [[0; PIXELS]; CHANNEL_BLOCK];
        let mut sums = self.sums.iter();
        let mut kept = kept.into_iter().flatten();
        let channels = accumulators.iter().zip(self.bias).zip(self.requant);
        for (results, ((accumulators, &bias), &[multiplier, shift])) in results.iter_mut().zip(channels) {
            let sum_of_weights = sums.next().copied().unwrap_or_default();
            for (result, &accumulator) in results.iter_mut().zip(accumulators) {
                *result = self.scales.complete(self.op, accumulator, sum_of_weights, bias);
            }
            requantize_each(results, multiplier, shift.saturating_add(bits as i32));
            for (result, &kept) in results.iter_mut().zip(kept.next().into_iter().flatten()) {
                *result = sum(*result, kept);
            }
        }
        let zero = self.op.output_zero;
        for pixel in 0..place.pixels.min(PIXELS) {
            let channels = results.iter().take(accumulators.len());
            let values = channels.map(|pixels| pixels.get(pixel).copied().unwrap_or_default().saturating_add(zero));
            output.write(place.at + pixel * place.advance, values);
        }
    }

    /// The residual with [`RESIDUAL_BITS`] more bits than the output.
    #[inline(never)]
    fn kept(&self, residual: &Values<'_>, channels: usize, place: Place) -> Held {
        let op = self.op;
        let mut all = [[0; PIXELS]; CHANNEL_BLOCK];
        let kept = all.get_mut(..channels).unwrap_or_default();
        for pixel in 0..place.pixels.min(PIXELS) {
            let mut values = [0; CHANNEL_BLOCK];
            let values = values.get_mut(..kept.len()).unwrap_or_default();
            residual.read(place.at + pixel * place.advance, values);
            for (kept, &value) in kept.iter_mut().zip(&*values) {
                kept.get_mut(pixel).into_iter().for_each(|kept| *kept = value);
            }
        }
        let width = (residual.bits(), op.residual_zero);
        requantize_centered(kept.as_flattened_mut(), width, op.residual_multiplier, op.residual_shift);
        all
    }

    /// The same of 16 bits with a residual of as many, in one pass; false where its results may be large, or types are others.
    #[cfg(not(any(no_long_multiply, dsp)))]
    fn put_sums(
        &self,
        accumulators: &[[i32; PIXELS]],
        residual: Option<&Values<'_>>,
        output: &mut Values<'_>,
        place: Place,
    ) -> bool {
        let op = self.op;
        let kept = Kept { zero: op.residual_zero, map: [op.residual_multiplier, op.residual_shift] };
        let Some(words) = kept.words(op.output_zero, i16::BITS) else { return false };
        let residual = match residual {
            None => None,
            Some(Values::I16(residual)) => Some(&**residual),
            Some(_) => return false,
        };
        match output {
            Values::I16(output) if place.pixels >= PIXELS => {
                self.put_words(accumulators, words, residual, output, place);
                true
            }
            _ => false,
        }
    }

    /// The same with the residual's words, see [`Kept::words`]; all pixels are there.
    #[cfg(not(any(no_long_multiply, dsp)))]
    #[inline(never)]
    fn put_words(
        &self,
        accumulators: &[[i32; PIXELS]],
        [zero, left, multiplier, rounding, right]: [i32; 5],
        residual: Option<&[i16]>,
        output: &mut [i16],
        place: Place,
    ) {
        let op = self.op;
        let kept = HighWord::with_rounding(multiplier, rounding, right as u32);
        let [a, b, c, d] = rows(output, place, Default::default());
        let mut others = residual.map(|residual| {
            let mut rows = tail(residual, place.at).chunks(place.advance.max(1));
            let mut row = || rows.next().unwrap_or_default().iter();
            row().zip(row()).zip(row()).zip(row())
        });
        let targets = a.iter_mut().zip(b).zip(c).zip(d);
        let channels = accumulators.iter().zip(self.bias).zip(self.requant);
        let mut sums = self.sums.iter();
        for ((((a, b), c), d), ((&accumulators, &bias), &[multiplier, shift])) in targets.zip(channels) {
            let sum = sums.next().copied().unwrap_or_default();
            let complete = |accumulator| self.scales.complete(op, accumulator, sum, bias);
            let held = match others.as_mut().and_then(Iterator::next) {
                Some((((&a, &b), &c), &d)) => [a, b, c, d],
                None => [*a, *b, *c, *d],
            };
            let [first, second, third, fourth] = accumulators;
            if let Some(high) = HighWord::of(multiplier, shift.saturating_add(RESIDUAL_BITS as i32)) {
                let added = |accumulator, held: i16| {
                    let kept = kept.scale((i32::from(held) - zero) << left);
                    saturate_i16((high.scale(complete(accumulator)) + kept) >> RESIDUAL_BITS)
                };
                *a = added(first, held[0]);
                *b = added(second, held[1]);
                *c = added(third, held[2]);
                *d = added(fourth, held[3]);
            } else {
                for ((target, accumulator), held) in [a, b, c, d].into_iter().zip(accumulators).zip(held) {
                    let result = finished(op, complete(accumulator), [multiplier, shift], Some(held.into()));
                    *target = saturate_i16(result);
                }
            }
        }
    }

    // Out of line, so that only one element type's copy takes stack; four pixels by name, which are a loop otherwise where
    // code is to be small.
    #[inline(never)]
    fn put<T: Copy + Default>(
        &self,
        accumulators: &[[i32; PIXELS]],
        kept: Option<&Held>,
        output: &mut [T],
        place: Place,
        nearest: impl Fn(i32) -> T,
    ) {
        // There is one pixel at least.
        let mut spare;
        let [a, b, c, d] = if place.pixels < PIXELS {
            spare = [[T::default(); CHANNEL_BLOCK]; PIXELS - 1];
            let [b, c, d] = &mut spare;
            rows(output, place, [b, c, d])
        } else {
            rows(output, place, Default::default())
        };
        let zero = self.op.output_zero;
        let targets = a.iter_mut().zip(b).zip(c).zip(d);
        let channels = accumulators.iter().zip(self.bias).zip(self.requant);
        let mut sums = self.sums.iter();
        let mut complete = |&[a, b, c, d]: &[i32; PIXELS], bias| {
            let sum = sums.next().copied().unwrap_or_default();
            let complete = |accumulator| self.scales.complete(self.op, accumulator, sum, bias);
            [complete(a), complete(b), complete(c), complete(d)]
        };
        match kept {
            None => {
                for ((((a, b), c), d), ((accumulators, &bias), &requant)) in targets.zip(channels) {
                    let scaled = scaled_pixels(complete(accumulators, bias), requant, zero);
                    *a = nearest(scaled[0]);
                    *b = nearest(scaled[1]);
                    *c = nearest(scaled[2]);
                    *d = nearest(scaled[3]);
                }
            }
            Some(kept) => {
                let nearest = |value: i32| nearest(value.saturating_add(zero));
                for (((((a, b), c), d), ((accumulators, &bias), &requant)), kept) in targets.zip(channels).zip(kept) {
                    let [multiplier, shift] = requant;
                    let requant = [multiplier, shift.saturating_add(RESIDUAL_BITS as i32)];
                    let scaled = scaled_pixels(complete(accumulators, bias), requant, 0);
                    *a = nearest(sum(scaled[0], kept[0]));
                    *b = nearest(sum(scaled[1], kept[1]));
                    *c = nearest(sum(scaled[2], kept[2]));
                    *d = nearest(sum(scaled[3], kept[3]));
                }
            }
        }
    }
}

/// One channel's accumulators by a multiplier and a shift, and a zero point.
#[inline(always)]
fn scaled_pixels(mut values: [i32; PIXELS], [multiplier, shift]: [i32; 2], zero: i32) -> [i32; PIXELS] {
    let high = HighWord::of(multiplier, shift).and_then(|high| high.around(zero));
    if let (false, Some(high)) = (cfg!(no_long_multiply), high) {
        let [a, b, c, d] = values;
        [high.scale(a), high.scale(b), high.scale(c), high.scale(d)]
    } else {
        requantize_each(&mut values, multiplier, shift);
        let [a, b, c, d] = values;
        [a, b, c, d].map(|value| value.saturating_add(zero))
    }
}

/// The places of each pixel's results; those of pixels behind the first that there are not are in what is spare.
#[inline(always)]
fn rows<'a, T>(output: &'a mut [T], place: Place, [b, c, d]: [&'a mut [T]; PIXELS - 1]) -> [&'a mut [T]; PIXELS] {
    let output = output.get_mut(place.at..).unwrap_or_default();
    let mut rows = output.chunks_mut(place.advance.max(1)).take(place.pixels);
    let mut row = |spare: &'a mut [T]| rows.next().unwrap_or(spare);
    [row(Default::default()), row(b), row(c), row(d)]
}
