//! Linear attention in integers: symmetric `i8` queries, keys and values, a table for the exponential, one division for each block
//! of contexts and each head of a query.

use super::{BLOCK, Operands, Part, Work};
use crate::fixed::{exp2_neg, requantize, saturate_i8, saturate_i16};
use crate::format::LinearAttention;
use crate::ops::Context;
use crate::ops::attention::i8::normalizer;

/// What a context has beyond the bits of values: 6.
const CONTEXT: [i32; 2] = [1 << 30, 7];

pub(crate) fn run(context: &Context<'_>, op: &LinearAttention, slice: u32, arena: &mut [u8]) -> Option<()> {
    let mut operands = Operands::<i8, i16>::bind(context, op, arena)?;
    match Work::new(context.model, op)?.of_slice(slice) {
        Part::Blocks(blocks) => blocks.for_each(|block| {
            let place = operands.block(block);
            let [key, value] = place;
            let largest = operands.keys(key, value).map(|(key, _)| key.into()).max().unwrap_or_default();
            let (mut sums, mut total) = ([0i32; BLOCK], 0u32);
            for (key, values) in operands.keys(key, value) {
                let weight = key_weight(op, largest, key.into());
                total = total.wrapping_add(weight.unsigned_abs());
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, &value)| *sum = sum.wrapping_add(weight.wrapping_mul(value.into())));
            }
            operands.contexts(place).iter_mut().zip(sums).for_each(|(to, sum)| *to = context_of(sum, total));
        }),
        Part::Queries(queries) => {
            let Operands { queries: all, contexts, weights, channels, head, .. } = operands;
            for query in queries {
                let start = query as usize * channels;
                let query = all.get_mut(start..start + channels)?;
                // A zip would divide by the length of a head's contexts, which the compiler does not know to be above 0.
                for (number, query) in query.chunks_exact_mut(head).enumerate() {
                    let contexts = contexts.get(number * head * head..)?.get(..head * head)?;
                    let largest = query.iter().copied().max().unwrap_or_default().into();
                    let mut total = 0u32;
                    for (weight, &value) in weights.iter_mut().zip(&*query) {
                        let of = query_weight(op, largest, value.into());
                        *weight = saturate_i16(of);
                        total = total.wrapping_add(of.unsigned_abs());
                    }
                    let [multiplier, shift] = normalizer([op.value_multiplier, op.value_shift], total);
                    for (channel, result) in query.iter_mut().enumerate() {
                        let contexts = contexts.iter().skip(channel).step_by(head);
                        let products = weights.iter().zip(contexts).map(|(&w, &of)| i32::from(w) * i32::from(of));
                        let sum = products.fold(0i32, i32::wrapping_add);
                        *result = saturate_i8(requantize(sum, multiplier, shift));
                    }
                }
            }
        }
    }
    Some(())
}

/// The unnormalized weight of a key.
#[inline(always)]
pub fn key_weight(op: &LinearAttention, largest: i32, key: i32) -> i32 {
    weight(largest, key, [op.key_multiplier, op.key_shift], op.key_bits)
}

/// The unnormalized weight of a channel of a query.
#[inline(always)]
pub fn query_weight(op: &LinearAttention, largest: i32, value: i32) -> i32 {
    weight(largest, value, [op.query_multiplier, op.query_shift], op.query_bits)
}

#[inline(always)]
fn weight(largest: i32, value: i32, [multiplier, shift]: [i32; 2], bits: u32) -> i32 {
    let below = requantize(largest.wrapping_sub(value), multiplier, shift);
    exp2_neg(below.max(0).unsigned_abs(), bits)
}

/// A context, for the weighted sum of values and the weights' total.
#[inline(always)]
pub fn context_of(sum: i32, total: u32) -> i16 {
    let [multiplier, shift] = normalizer(CONTEXT, total);
    saturate_i16(requantize(sum, multiplier, shift))
}
