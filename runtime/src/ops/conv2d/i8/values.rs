//! What a convolution reads, writes or adds, whatever the width.

#[cfg(all(feature = "tiles", any(all(dsp, not(mve)), test)))]
use crate::arch::patches::BlockSums;
#[cfg(any(dsp, test))]
use crate::arch::patches::{Channels, Group, Kept, Place};
#[cfg(any(dsp, test))]
use crate::arch::{convolve_i8, convolve_i16};
#[cfg(all(feature = "tiles", any(all(dsp, not(mve)), test)))]
use crate::arch::{finish_blocks_i8, finish_blocks_i16};
#[cfg(not(no_long_multiply))]
use crate::fixed::IntoRing;
use crate::fixed::{saturate_i8, saturate_i16};
use crate::format::Element;
#[cfg(any(dsp, test))]
use crate::format::{Conv2d, NONE};
use crate::ops::{tail, view_mut};

#[cfg(not(no_long_multiply))]
use super::weights::Activation;

/// Values that a convolution reads, writes or adds.
pub(super) enum Values<'a> {
    I8(&'a mut [i8]),
    I16(&'a mut [i16]),
    I32(&'a mut [i32]),
}

impl<'a> Values<'a> {
    pub(super) fn new(element: Element, bytes: &'a mut [u8]) -> Option<Self> {
        Some(match element {
            Element::I8 => Values::I8(view_mut(bytes)?),
            Element::I16 => Values::I16(view_mut(bytes)?),
            Element::I32 => Values::I32(view_mut(bytes)?),
            Element::F16 | Element::F32 => return None,
        })
    }

    /// Computes channels from their patches, from the first on; how many. The residual is what stands at the results' places if
    /// it has no values of its own.
    #[cfg(any(dsp, test))]
    #[inline(never)]
    pub(super) fn convolve(
        &mut self,
        op: &Conv2d,
        channels: &Channels<'_>,
        patches: &[Group],
        place: Place,
        residual: Option<&Values<'_>>,
    ) -> usize {
        let kept = Kept { zero: op.residual_zero, map: [op.residual_multiplier, op.residual_shift] };
        match (self, residual) {
            (Values::I8(output), _) if op.residual == NONE => convolve_i8(channels, patches, place, None, output),
            (Values::I16(output), _) if op.residual == NONE => convolve_i16(channels, patches, place, None, output),
            (Values::I8(output), None) => convolve_i8(channels, patches, place, Some((kept, None)), output),
            (Values::I16(output), None) => convolve_i16(channels, patches, place, Some((kept, None)), output),
            (Values::I8(output), Some(Values::I8(values))) => {
                convolve_i8(channels, patches, place, Some((kept, Some(values))), output)
            }
            (Values::I16(output), Some(Values::I16(values))) => {
                convolve_i16(channels, patches, place, Some((kept, Some(values))), output)
            }
            _ => 0,
        }
    }

    /// Writes channels from their sums of products, as [`convolve`](Self::convolve) does.
    #[cfg(all(feature = "tiles", any(all(dsp, not(mve)), test)))]
    #[inline(never)]
    pub(super) fn finish(
        &mut self,
        op: &Conv2d,
        channels: &Channels<'_>,
        sums: &[BlockSums],
        place: Place,
        residual: Option<&Values<'_>>,
    ) -> usize {
        let kept = Kept { zero: op.residual_zero, map: [op.residual_multiplier, op.residual_shift] };
        match (self, residual) {
            (Values::I8(output), _) if op.residual == NONE => finish_blocks_i8(sums, channels, place, None, output),
            (Values::I16(output), _) if op.residual == NONE => finish_blocks_i16(sums, channels, place, None, output),
            (Values::I8(output), None) => finish_blocks_i8(sums, channels, place, Some((kept, None)), output),
            (Values::I16(output), None) => finish_blocks_i16(sums, channels, place, Some((kept, None)), output),
            (Values::I8(output), Some(Values::I8(values))) => {
                finish_blocks_i8(sums, channels, place, Some((kept, Some(values))), output)
            }
            (Values::I16(output), Some(Values::I16(values))) => {
                finish_blocks_i16(sums, channels, place, Some((kept, Some(values))), output)
            }
            _ => 0,
        }
    }

    /// Brings pixels of some channels into the ring, where they are so many elements apart; false where there is no kernel for them.
    #[cfg(not(no_long_multiply))]
    pub(super) fn gather<R: Activation>(
        &self,
        map: IntoRing,
        maps: &[[i32; 2]],
        targets: &mut [R],
        sizes: [usize; 2],
    ) -> bool {
        match self {
            Values::I8(values) => R::gather_i8(map, values, maps, targets, sizes),
            Values::I16(values) => R::gather_i16(map, values, maps, targets, sizes),
            Values::I32(_) => false,
        }
    }

    /// Bits of a value.
    pub(super) const fn bits(&self) -> u32 {
        match self {
            Values::I8(_) => i8::BITS,
            Values::I16(_) => i16::BITS,
            Values::I32(_) => i32::BITS,
        }
    }

    /// The elements from `at` on, which exist: whoever binds values knows how many they are.
    pub(super) fn read(&self, at: usize, into: &mut [i32]) {
        fn copy<T: Copy + Into<i32>>(values: &[T], at: usize, into: &mut [i32]) {
            into.iter_mut().zip(tail(values, at)).for_each(|(into, &value)| *into = value.into());
        }
        match self {
            Values::I8(values) => copy(values, at, into),
            Values::I16(values) => copy(values, at, into),
            Values::I32(values) => copy(values, at, into),
        }
    }

    /// Replaces the elements from `at` on, which exist, by the nearest values of their type.
    pub(super) fn write(&mut self, at: usize, from: impl Iterator<Item = i32>) {
        fn copy<T>(values: &mut [T], at: usize, from: impl Iterator<Item = i32>, nearest: impl Fn(i32) -> T) {
            let values = values.get_mut(at..).unwrap_or_default();
            values.iter_mut().zip(from).for_each(|(value, from)| *value = nearest(from));
        }
        match self {
            Values::I8(values) => copy(values, at, from, saturate_i8),
            Values::I16(values) => copy(values, at, from, saturate_i16),
            Values::I32(values) => copy(values, at, from, |value| value),
        }
    }
}
