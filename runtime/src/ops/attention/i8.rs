//! Integer attention: symmetric `i8` queries, keys and values, a table for the exponential, one division a row.

use crate::arch::{dot_i8, weighted_i8};
use crate::fixed::{exp2_neg, requantize, saturate_i8};
use crate::format::Attention;
use crate::ops::{Context, view, view_mut};

pub(crate) fn run(context: &Context<'_>, op: &Attention, slice: u32, arena: &mut [u8]) -> Option<()> {
    let query = context.tensor(op.query)?;
    let key_value = context.tensor(op.key_value)?;
    let scratch = context.tensor(op.scratch)?;
    let channels = usize::from(query.channels);
    let head = channels.checked_div(op.heads.into())?.max(1);
    let [rows, key_value, scores] = arena.get_disjoint_mut([query.range(), key_value.range(), scratch.range()]).ok()?;
    let rows: &mut [i8] = view_mut(rows)?;
    let key_value: &[i8] = view(key_value)?;
    let scores: &mut [i32] = view_mut(scores)?;
    let start = slice as usize * channels;
    let row = rows.get_mut(start..start + channels)?;

    for (index, query) in row.chunks_exact_mut(head).enumerate() {
        let first = index * head;
        let pixels = || key_value.chunks_exact((2 * channels).max(1));
        let mut largest = i32::MIN;
        for (score, pixel) in scores.iter_mut().zip(pixels()) {
            let key = pixel.get(first..first + head)?;
            *score = dot_i8(query, key);
            largest = largest.max(*score);
        }
        let mut total = 0u32;
        for score in scores.iter_mut() {
            *score = weight(op, largest, *score);
            total = total.wrapping_add(score.unsigned_abs());
        }
        let [multiplier, shift] = normalizer(op, total);
        for (channel, context) in query.iter_mut().enumerate() {
            let sum = weighted_i8(scores, key_value.get(channels + first + channel..)?, 2 * channels);
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
