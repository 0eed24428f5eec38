//! In single precision.

use super::Bound;
use crate::float::activate;
use crate::format::Observe;
use crate::ops::Context;

pub(crate) fn run(context: &Context<'_>, op: &Observe, arena: &mut [u8]) -> Option<()> {
    for (output, x, center, gain) in Bound::<f32, f32, f32>::bind(context, op, arena)?.elements() {
        *output = observed(op, x, center, gain);
    }
    Some(())
}

/// One element.
#[inline]
pub fn observed(op: &Observe, x: f32, center: f32, gain: f32) -> f32 {
    activate(op.activation(), (x - center) * gain)
}
