//! What a convolution reads, writes or adds, whatever the width.

#[cfg(mve)]
use crate::arch::mve::Lane;
#[cfg(mve)]
use crate::arch::mve::results::{Added, Channels, Place, convolve};
#[cfg(mve)]
use crate::arch::patches::Group;
use crate::fixed::{saturate_i8, saturate_i16};
use crate::format::Element;
#[cfg(mve)]
use crate::format::{Conv2d, NONE};
use crate::ops::{tail, view_mut};

use bytemuck::Pod;

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

    /// Computes channels at four pixels in vectors, see [`convolve`]. The residual is what stands at the results' place if it
    /// has no values of its own.
    #[cfg(mve)]
    pub(super) fn convolve<R: Lane>(
        &mut self,
        op: &Conv2d,
        channels: &Channels<'_>,
        patches: &[Group],
        place: Place,
        residual: Option<&Values<'_>>,
    ) -> bool {
        fn added<'a, K>(op: &Conv2d, values: Option<&'a [K]>) -> Option<Added<'a, K>> {
            let (multiplier, shift) = (op.residual_multiplier, op.residual_shift);
            (op.residual != NONE).then_some(Added { values, zero: op.residual_zero, multiplier, shift })
        }
        match (self, residual) {
            (Values::I8(output), Some(Values::I16(values))) => {
                convolve::<R, _, _>(channels, patches, output, place, added(op, Some(values)))
            }
            (Values::I8(output), Some(Values::I8(values))) => {
                convolve::<R, _, _>(channels, patches, output, place, added(op, Some(values)))
            }
            (Values::I8(output), None) => convolve::<R, _, i8>(channels, patches, output, place, added(op, None)),
            (Values::I16(output), Some(Values::I8(values))) => {
                convolve::<R, _, _>(channels, patches, output, place, added(op, Some(values)))
            }
            (Values::I16(output), Some(Values::I16(values))) => {
                convolve::<R, _, _>(channels, patches, output, place, added(op, Some(values)))
            }
            (Values::I16(output), None) => convolve::<R, _, i16>(channels, patches, output, place, added(op, None)),
            _ => false,
        }
    }

    /// The first elements, as many as there are targets: as they are if both are of one type, else the nearest.
    pub(super) fn copy<R: Activation>(&self, targets: &mut [R]) {
        fn nearest<T: Pod + Into<i32>, R: Activation>(values: &[T], targets: &mut [R]) {
            let values = values.get(..targets.len()).unwrap_or_default();
            match bytemuck::try_cast_slice::<T, R>(values) {
                #[cfg(mve)]
                Ok(values) => crate::arch::mve::copy_row(targets, values),
                #[cfg(not(mve))]
                Ok(values) if values.len() == targets.len() => targets.copy_from_slice(values),
                _ => targets.iter_mut().zip(values).for_each(|(target, &value)| *target = R::saturate(value.into())),
            }
        }
        match self {
            Values::I8(values) => nearest(values, targets),
            Values::I16(values) => nearest(values, targets),
            Values::I32(values) => nearest(values, targets),
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
