//! Values of a sample, as the caller sees them.

use crate::format::Precision;
use crate::ops::{view, view_mut};

/// Values of a sample or a model output, in the precision's own type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Samples<'a> {
    /// `i8` precision: 20 fractional bits.
    Fixed(&'a [i32]),
    /// Float precisions.
    Float(&'a [f32]),
}

/// Values to write, in the precision's own type.
#[derive(Debug, PartialEq)]
pub enum SamplesMut<'a> {
    /// `i8` precision: 20 fractional bits.
    Fixed(&'a mut [i32]),
    /// Float precisions.
    Float(&'a mut [f32]),
}

impl<'a> Samples<'a> {
    /// Bytes of a tensor; `None` if they are misaligned or do not divide.
    pub(super) fn view(precision: Precision, bytes: &'a [u8]) -> Option<Self> {
        match precision {
            Precision::I8 => view(bytes).map(Self::Fixed),
            Precision::F16 | Precision::F32 => view(bytes).map(Self::Float),
        }
    }
}

impl<'a> SamplesMut<'a> {
    /// Bytes of a tensor; `None` if they are misaligned or do not divide.
    pub(super) fn view(precision: Precision, bytes: &'a mut [u8]) -> Option<Self> {
        match precision {
            Precision::I8 => view_mut(bytes).map(Self::Fixed),
            Precision::F16 | Precision::F32 => view_mut(bytes).map(Self::Float),
        }
    }
}
