//! Attention in the float precisions.

use crate::arch::{dot_float, weighted_float};
use crate::float::{Float, exp};
use crate::format::Attention;
use crate::ops::{Context, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Attention, slice: u32, arena: &mut [u8]) -> Option<()> {
    let query = context.tensor(op.query)?;
    let key_value = context.tensor(op.key_value)?;
    let scratch = context.tensor(op.scratch)?;
    let channels = usize::from(query.channels);
    let head = channels.checked_div(op.heads.into())?.max(1);
    let [rows, key_value, scores] = arena.get_disjoint_mut([query.range(), key_value.range(), scratch.range()]).ok()?;
    let rows: &mut [E] = view_mut(rows)?;
    let key_value: &[E] = view(key_value)?;
    let scores: &mut [f32] = view_mut(scores)?;
    let start = slice as usize * channels;
    let row = rows.get_mut(start..start + channels)?;

    for (index, query) in row.chunks_exact_mut(head).enumerate() {
        let first = index * head;
        let pixels = || key_value.chunks_exact((2 * channels).max(1));
        let mut largest = f32::NEG_INFINITY;
        for (score, pixel) in scores.iter_mut().zip(pixels()) {
            let key = pixel.get(first..first + head)?;
            *score = op.scale * dot_float(query, key);
            largest = largest.max(*score);
        }
        let mut total = 0.0;
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
            total += *score;
        }
        for (channel, context) in query.iter_mut().enumerate() {
            let sum = weighted_float(scores, key_value.get(channels + first + channel..)?, 2 * channels);
            *context = E::from_f32(sum / total);
        }
    }
    Some(())
}
