//! Values of a sample, as the caller sees them: a picture's −1 to 1, and what noise adds to it, in (row, column, channel)
//! order.

use crate::format::Precision;
use crate::ops::{view, view_mut};

/// Values of a sample or a model output, in the precision's own type, (row, column, channel) order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Samples<'a> {
    /// `i8` precision: 20 fractional bits, so that 1 is `1 << 20` ([`SAMPLE_BITS`](crate::fixed::SAMPLE_BITS)) and the range
    /// −2048 to 2048.
    Fixed(&'a [i32]),
    /// `f16` and `f32` precisions.
    Float(&'a [f32]),
}

/// Values to write, in the precision's own type, (row, column, channel) order.
#[derive(Debug, PartialEq)]
pub enum SamplesMut<'a> {
    /// `i8` precision: 20 fractional bits, so that 1 is `1 << 20` ([`SAMPLE_BITS`](crate::fixed::SAMPLE_BITS)) and the range
    /// −2048 to 2048.
    Fixed(&'a mut [i32]),
    /// `f16` and `f32` precisions.
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
