//! Attention in the float precisions.

use super::Operands;
use crate::arch::{dot_float, weighted_float};
use crate::float::{Float, exp};
use crate::format::Attention;
use crate::ops::Context;

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Attention, place: u32, arena: &mut [u8]) -> Option<()> {
    let Operands { query, key_value, memory, memory_scores, scores, head } =
        Operands::<E, f32>::bind(context, op, place, arena)?;
    for (query, first) in query.chunks_exact_mut(head).zip((0..).step_by(head)) {
        let mut largest = f32::NEG_INFINITY;
        let parts = [(&mut *memory_scores, memory), (&mut *scores, key_value)];
        for (scores, keys) in parts {
            for (score, key) in scores.iter_mut().zip(keys.keys(first).chunks(keys.stride())) {
                *score = op.scale * dot_float(query, key);
                largest = largest.max(*score);
            }
        }
        let mut total = 0.0;
        for score in memory_scores.iter_mut().chain(scores.iter_mut()) {
            *score = exp(*score - largest);
            total += *score;
        }
        for (context, channel) in query.iter_mut().zip(first..) {
            let sum = weighted_float(memory_scores, memory.values(channel), memory.stride())
                + weighted_float(scores, key_value.values(channel), key_value.stride());
            *context = E::from_f32(sum / total);
        }
    }
    Some(())
}
