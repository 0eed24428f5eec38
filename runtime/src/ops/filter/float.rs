//! In single precision, from and to the model's storage type.

use super::Bound;
use crate::float::Float;
use crate::format::{Filter, Resampling};
use crate::ops::{Context, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Filter, slice: u32, arena: &mut [u8]) -> Option<()> {
    let bound = Bound::bind(context, op, slice, arena)?;
    let source: &[E] = view(bound.source.1)?;
    for index in 0..bound.output.1.len() / size_of::<E>() {
        let mut sum = 0.0;
        for (weight, at) in bound.taps(op, index)? {
            sum = added(sum, weight, source.get(at)?.to_f32());
        }
        *view_mut::<E>(bound.output.1)?.get_mut(index)? = E::from_f32(filtered(op, sum));
    }
    Some(())
}

/// A sum with one more tap.
#[inline(always)]
pub fn added(sum: f32, weight: i32, value: f32) -> f32 {
    sum + weight as f32 * value
}

/// A result of a sum.
#[inline(always)]
pub fn filtered(op: &Filter, sum: f32) -> f32 {
    match op.resampling() {
        Resampling::Halve => sum / 256.0,
        Resampling::Double => sum / 128.0,
    }
}
