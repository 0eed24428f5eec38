//! Integer attention: symmetric `i8` queries, keys and values, a table for the exponential, one division a row.

use super::Operands;
use crate::arch::{dot_i8, weighted_i8};
use crate::fixed::{exp2_neg, requantize, saturate_i8};
use crate::format::Attention;
use crate::ops::Context;

pub(crate) fn run(context: &Context<'_>, op: &Attention, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Operands { query, key_value, scores, head } = Operands::<i8, i32>::bind(context, op, slice, arena)?;
    for (query, first) in query.chunks_exact_mut(head).zip((0..).step_by(head)) {
        let mut largest = i32::MIN;
        for (score, key) in scores.iter_mut().zip(key_value.keys(first)) {
            *score = dot_i8(query, key);
            largest = largest.max(*score);
        }
        let mut total = 0u32;
        for score in scores.iter_mut() {
            *score = weight(op, largest, *score);
            total = total.wrapping_add(score.unsigned_abs());
        }
        let [multiplier, shift] = normalizer(op, total);
        for (context, channel) in query.iter_mut().zip(first..) {
            let sum = weighted_i8(scores, key_value.values(channel), key_value.stride());
            *context = saturate_i8(requantize(sum, multiplier, shift));
        }
    }
    Some(())
}

/// The unnormalized weight of a score.
#[inline(always)]
pub fn weight(op: &Attention, largest: i32, score: i32) -> i32 {
    let below = requantize(largest.saturating_sub(score), op.score_multiplier, op.score_shift);
    exp2_neg(below.max(0).unsigned_abs(), op.weight_bits)
}

/// Multiplier and shift from a sum of weighted values to the output, for weights of this total.
#[inline(always)]
pub fn normalizer(op: &Attention, total: u32) -> [i32; 2] {
    // The largest score has weight 2^weight_bits, so the total is not zero.
    let normalize = total.leading_zeros();
    let total = u64::from(total.wrapping_shl(normalize)).max(1);
    let multiplier = ((u64::from(op.value_multiplier.unsigned_abs()) << 31) / total).min(i32::MAX as u64) as i32;
    [multiplier, op.value_shift.saturating_add(normalize as i32 - 31)]
}
