//! Linear attention in the float precisions.

use super::{BLOCK, Operands, Part, Work};
use crate::float::{Float, exp};
use crate::format::LinearAttention;
use crate::ops::Context;

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &LinearAttention, slice: u32, arena: &mut [u8]) -> Option<()> {
    let mut operands = Operands::<E, f32>::bind(context, op, arena)?;
    match Work::new(context.model, op)?.of_slice(slice) {
        Part::Blocks(blocks) => blocks.for_each(|block| {
            let place = operands.block(block);
            let [key, value] = place;
            let largest = operands.keys(key, value).fold(f32::NEG_INFINITY, |a, (key, _)| a.max(key.to_f32()));
            let (mut sums, mut total) = ([0.0; BLOCK], 0.0);
            for (key, values) in operands.keys(key, value) {
                let weight = exp(key.to_f32() - largest);
                total += weight;
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value.to_f32());
            }
            operands.contexts(place).iter_mut().zip(sums).for_each(|(context, sum)| *context = sum / total);
        }),
        Part::Queries(queries) => {
            let Operands { queries: all, contexts, weights, channels, head, .. } = operands;
            for query in queries {
                let start = query as usize * channels;
                let query = all.get_mut(start..start + channels)?;
                // A zip would divide by the length of a head's contexts, which the compiler does not know to be above 0.
                for (number, query) in query.chunks_exact_mut(head).enumerate() {
                    let contexts = contexts.get(number * head * head..)?.get(..head * head)?;
                    let largest = query.iter().fold(f32::NEG_INFINITY, |a, value| a.max(value.to_f32()));
                    let mut total = 0.0;
                    for (weight, value) in weights.iter_mut().zip(&*query) {
                        *weight = exp(value.to_f32() - largest);
                        total += *weight;
                    }
                    for (channel, result) in query.iter_mut().enumerate() {
                        let contexts = contexts.iter().skip(channel).step_by(head);
                        let sum = weights.iter().zip(contexts).fold(0.0, |sum, (weight, of)| sum + weight * of);
                        *result = E::from_f32(sum / total * op.gain);
                    }
                }
            }
        }
    }
    Some(())
}
