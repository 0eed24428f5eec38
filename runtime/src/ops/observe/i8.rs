//! In integers: from 20 fractional bits to 12 in 16, so that normalized values beyond 8 saturate.

use super::Bound;
use crate::fixed::{NORM_BITS, SILU_BITS, activate, requantize, round_shift, saturate_i16, saturate_i32};
use crate::format::Observe;
use crate::ops::Context;

/// Fractional bits of the results.
pub const OBSERVED_BITS: u32 = 12;

pub(crate) fn run(context: &Context<'_>, op: &Observe, arena: &mut [u8]) -> Option<()> {
    for (output, x, center, gain) in Bound::<i32, [i32; 2], i16>::bind(context, op, arena)?.elements() {
        *output = observed(op, x, center, gain);
    }
    Some(())
}

/// One element.
#[inline]
pub fn observed(op: &Observe, x: i32, center: i32, [multiplier, shift]: [i32; 2]) -> i16 {
    // To NORM_BITS, which the activation reads.
    let normalized = requantize(x.saturating_sub(center), multiplier, shift);
    const { assert!(NORM_BITS == OBSERVED_BITS) };
    let value = activate(op.activation(), normalized);
    saturate_i16(saturate_i32(round_shift(value.into(), SILU_BITS - OBSERVED_BITS)))
}
