//! What a convolution reads, writes or adds, whatever the width.

use crate::fixed::{saturate_i8, saturate_i16};
use crate::format::Element;
use crate::ops::{tail, view_mut};

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
