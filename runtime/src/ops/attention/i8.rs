//! Integer attention: symmetric `i8` queries, keys and values, a table for the exponential, one division a row.

use super::Operands;
use crate::arch::{QUAD, scores_i8, weighted4_i8};
use crate::fixed::{HighWord, divide, exp2_neg, requantize, saturate_i8};
use crate::format::Attention;
use crate::ops::Context;
use crate::ops::requantize::requantize_each;

pub(crate) fn run(context: &Context<'_>, op: &Attention, place: u32, arena: &mut [u8]) -> Option<()> {
    let Operands { query, key_value, memory, memory_scores, scores, head } =
        Operands::<i8, i32>::bind(context, op, place, arena)?;
    for (query, first) in query.chunks_exact_mut(head).zip((0..).step_by(head)) {
        self::scores(memory_scores, query, memory.keys(first), memory.stride());
        self::scores(scores, query, key_value.keys(first), key_value.stride());
        let largest = memory_scores.iter().chain(&*scores).copied().max().unwrap_or_default();
        let total = weigh(op, largest, memory_scores).wrapping_add(weigh(op, largest, scores));
        let [multiplier, shift] = normalizer([op.value_multiplier, op.value_shift], total);
        for (contexts, channel) in query.chunks_mut(QUAD).zip((first..).step_by(QUAD)) {
            let learned = weighted4_i8(memory_scores, memory.values(channel), memory.stride());
            let mut sums = weighted4_i8(scores, key_value.values(channel), key_value.stride());
            sums.iter_mut().zip(learned).for_each(|(sum, learned)| *sum = sum.wrapping_add(learned));
            requantize_each(&mut sums, multiplier, shift);
            contexts.iter_mut().zip(sums).for_each(|(context, sum)| *context = saturate_i8(sum));
        }
    }
    Some(())
}

/// The products of a query with the first of every `stride` keys and what lies behind.
#[inline(always)]
pub fn scores(scores: &mut [i32], query: &[i8], keys: &[i8], stride: usize) {
    scores_i8(scores, query, keys, stride);
}

/// Replaces scores, of which none is larger than `largest`, by their [`weight`]s. Returns the total.
pub fn weigh(op: &Attention, largest: i32, scores: &mut [i32]) -> u32 {
    let mut total = 0u32;
    let mut put = |score: &mut i32, below: i32| {
        *score = unnormalized(op, below);
        total = total.wrapping_add(score.unsigned_abs());
    };
    match HighWord::of(op.score_multiplier, op.score_shift) {
        Some(high) if !cfg!(no_long_multiply) => {
            scores.iter_mut().for_each(|score| put(score, high.scale(largest.saturating_sub(*score))));
        }
        _ => {
            scores.iter_mut().for_each(|score| *score = largest.saturating_sub(*score));
            requantize_each(scores, op.score_multiplier, op.score_shift);
            scores.iter_mut().for_each(|score| put(score, *score));
        }
    }
    total
}

/// The unnormalized weight of a score.
#[inline(always)]
pub fn weight(op: &Attention, largest: i32, score: i32) -> i32 {
    unnormalized(op, requantize(largest.saturating_sub(score), op.score_multiplier, op.score_shift))
}

/// The weight of a score that lies `below/256` binary orders below the largest.
#[inline(always)]
fn unnormalized(op: &Attention, below: i32) -> i32 {
    exp2_neg(below.max(0).unsigned_abs(), op.weight_bits)
}

/// Multiplier and shift from a sum of weighted values to the output, for those of a weighted mean and weights of this total.
#[inline(always)]
pub fn normalizer([multiplier, shift]: [i32; 2], total: u32) -> [i32; 2] {
    // The largest score has a weight, so the total is not zero.
    let normalize = total.leading_zeros();
    let total = total.wrapping_shl(normalize).max(1);
    let multiplier = divide(u64::from(multiplier.unsigned_abs()) << 31, total).min(i32::MAX as u64) as i32;
    [multiplier, shift.saturating_add(normalize as i32 - 31)]
}
