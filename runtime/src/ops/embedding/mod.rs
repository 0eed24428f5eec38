//! Conditioning: the vector of a step and a class, and its projections into the biases of convolutions.
//!
//! The time perceptron runs at export, for the steps of each schedule. What is left for the device is the sum with the
//! class row, the SiLU over it, which a class makes inseparable from the time, and one small linear map a residual
//! block. Slice `s` of a linear map computes outputs `32·s..`.

use crate::format::{LINEAR_BLOCK, Linear};
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Number of slices of a linear map.
pub(super) fn linear_slices(model: &Model<'_>, op: &Linear) -> Option<u32> {
    Some(model.tensor(op.output)?.len().div_ceil(LINEAR_BLOCK) as u32)
}
