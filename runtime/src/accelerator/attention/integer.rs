//! Integer attention, see [`ops::attention`](crate::ops::attention::i8): for tiles of queries, scores as products with keys that
//! take the place of weights, then contexts as products of the scores' weights with values that do.

use super::super::room;
use super::Heads;
use super::products::{multiply, pack};
use crate::arch::wide::{LANES, PIXELS, Scale, Wide, Work};
use crate::ops::attention::i8::normalizer;

/// What is taken off the weights of scores, which are up to 2¹⁵, so that they are words.
const OFFSET: i32 = 1 << 14;

/// Most bits of a weight.
const MOST_BITS: u32 = 15;

/// Words in groups of two.
const GROUP: usize = 2;

impl Work for Heads<'_, i8> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { op, queries, key_value, channels, head, scratch } = self;
        if op.weight_bits > MOST_BITS {
            return None;
        }
        let pixels = key_value.len() / (2 * channels).max(1);
        let (taps, places) = (head.next_multiple_of(GROUP), pixels.next_multiple_of(GROUP));
        let rows: &mut [i16] = room(&mut scratch.row, PIXELS * taps);
        let keys: &mut [i16] = room(&mut scratch.values, pixels.next_multiple_of(LANES) * taps);
        let values: &mut [i16] = room(&mut scratch.maps, head.next_multiple_of(LANES) * places);
        let weights: &mut [i16] = room(&mut scratch.weights, PIXELS * places);
        // Scores of all pixels, then contexts of all channels of a head, whichever are more.
        let sums = PIXELS * pixels.max(head).next_multiple_of(LANES);
        let all: &mut [i32] = room(&mut scratch.sums, sums + head);
        let (scores, totals) = all.split_at_mut_checked(sums)?;
        let scale = Scale::uniform(op.score_multiplier, op.score_shift);
        for first in (0..channels).step_by(head) {
            let key =
                |pixel: usize, tap: usize| key_value.get(pixel * 2 * channels + first + tap).map(|&value| value.into());
            let value = |channel: usize, pixel: usize| {
                key_value.get((2 * pixel + 1) * channels + first + channel).map(|&value| value.into())
            };
            pack::<_, GROUP>(keys, [pixels, head], taps, key);
            pack::<_, GROUP>(values, [head, pixels], places, value);
            for (channel, total) in totals.iter_mut().enumerate() {
                *total = (0..pixels)
                    .fold(0, |sum, pixel| value(channel, pixel).map_or(sum, |value: i16| sum + i32::from(value)));
            }
            for tile in queries.chunks_mut(PIXELS * channels) {
                let count = tile.len() / channels;
                for (row, query) in rows.chunks_exact_mut(taps).zip(tile.chunks_exact(channels)) {
                    row.fill(0);
                    for (to, &from) in row.iter_mut().zip(query.get(first..first + head)?) {
                        *to = from.into();
                    }
                }
                let into = scores.chunks_exact_mut(pixels.next_multiple_of(LANES));
                multiply(wide, (&*rows, taps, &*keys), pixels, |_| [0; LANES], into)?;
                let mut normalizers = [[0; 2]; PIXELS];
                let rows =
                    scores.chunks_exact_mut(pixels.next_multiple_of(LANES)).zip(weights.chunks_exact_mut(places));
                for ((scores, weights), normalizer_of) in rows.zip(&mut normalizers).take(count) {
                    let total = weigh(wide, scores.get_mut(..pixels)?, weights, (&scale, op.weight_bits));
                    *normalizer_of = normalizer([op.value_multiplier, op.value_shift], total);
                }
                let begin = |block: usize| {
                    let mut lanes = [0; LANES];
                    for (lane, total) in lanes.iter_mut().zip(totals.get(block * LANES..).unwrap_or_default()) {
                        *lane = total.wrapping_mul(OFFSET);
                    }
                    lanes
                };
                let into = scores.chunks_exact_mut(head.next_multiple_of(LANES));
                multiply(wide, (&*weights, places, &*values), head, begin, into)?;
                let contexts = scores.chunks_exact_mut(head.next_multiple_of(LANES));
                for ((query, contexts), [multiplier, shift]) in
                    tile.chunks_exact_mut(channels).zip(contexts).zip(normalizers)
                {
                    let scale = Scale::uniform(multiplier, shift);
                    let query = query.get_mut(first..first + head)?;
                    for (query, lanes) in query.chunks_mut(LANES).zip(contexts.as_chunks_mut::<LANES>().0) {
                        wide.requantize(lanes, &scale);
                        let mut narrow = [0i8; LANES];
                        wide.store(lanes, &mut narrow);
                        query.copy_from_slice(narrow.get(..query.len())?);
                    }
                }
            }
        }
        Some(())
    }
}

/// Turns a query's scores into weights less [`OFFSET`]; their total, modulo 2³².
#[inline(always)]
fn weigh<W: Wide>(wide: W, scores: &mut [i32], weights: &mut [i16], (scale, bits): (&Scale, u32)) -> u32 {
    let mut largest = i32::MIN;
    for &score in &*scores {
        largest = largest.max(score);
    }
    let mut totals = [0u32; LANES];
    weights.fill(0);
    for (scores, weights) in scores.chunks(LANES).zip(weights.chunks_mut(LANES)) {
        let mut lanes = [0; LANES];
        let count = scores.len();
        match scores.first_chunk::<LANES>() {
            Some(scores) => lanes = *scores,
            None => lanes.get_mut(..count).unwrap_or_default().copy_from_slice(scores),
        }
        for lane in &mut lanes {
            // Products of bytes are far from the smallest number.
            *lane = lane.wrapping_neg();
        }
        wide.saturating_add(&mut lanes, largest);
        wide.requantize(&mut lanes, scale);
        wide.exp2_neg(&mut lanes, bits);
        lanes.get_mut(count..).unwrap_or_default().fill(0);
        for (total, &lane) in totals.iter_mut().zip(&lanes) {
            *total = total.wrapping_add(lane.unsigned_abs());
        }
        for lane in &mut lanes {
            *lane -= OFFSET;
        }
        match weights.first_chunk_mut::<LANES>() {
            Some(weights) if count == LANES => wide.store(&lanes, weights),
            _ => {
                let mut narrow = [0i16; LANES];
                wide.store(&lanes, &mut narrow);
                for (weight, &narrow) in weights.iter_mut().zip(&narrow).take(count) {
                    *weight = narrow;
                }
            }
        }
    }
    totals.iter().fold(0, |sum, &total| sum.wrapping_add(total))
}
