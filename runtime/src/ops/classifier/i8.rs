//! In integers: tables of 256 entries for what becomes of eight bits, one division a class for the softmax.

use super::Bound;
use crate::fixed::{divide, exp2_neg, requantize, saturate_i8, saturate_i16};
use crate::format::{Classifier, Element, Pass, SLOPE_BITS};
use crate::ops::{Context, view, view_mut};

/// Fractional bits of the unnormalized probability of a class: as many as leave room for the sum over all classes that a file
/// can have.
const WEIGHT_BITS: u32 = 15;

pub(crate) fn run(context: &Context<'_>, op: &Classifier, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { source, gradient, output: (element, output) } = Bound::bind(context, op, slice, arena)?;
    if matches!(op.pass(), Pass::Loss) {
        let logits: &[i16] = view(source)?;
        let largest = logits.iter().copied().max().unwrap_or_default();
        let total = logits.iter().fold(0u32, |sum, &logit| sum.wrapping_add(weight(op, largest.into(), logit.into())));
        for (class, (output, &logit)) in view_mut::<i16>(output)?.iter_mut().zip(logits).enumerate() {
            let weight = weight(op, largest.into(), logit.into());
            *output = loss(weight, total, class == usize::from(context.class));
        }
        return Some(());
    }
    let table: &[i16] = context.data(op.table, 256)?;
    let entry = |z: i8| table.get(index(z)).copied().unwrap_or_default();
    let source: &[i8] = view(source)?;
    if matches!(op.pass(), Pass::Forward) {
        match element {
            Element::I8 => {
                let outputs = view_mut::<i8>(output)?.iter_mut().zip(source);
                outputs.for_each(|(output, &z)| *output = saturate_i8(entry(z).into()));
            }
            _ => view_mut::<i16>(output)?.iter_mut().zip(source).for_each(|(output, &z)| *output = entry(z)),
        }
        return Some(());
    }
    let factor = match op.pass() {
        Pass::BackwardScaled => *context.data(context.biases_of_step() + op.factor_at, 1)?.first()?,
        _ => [op.multiplier, op.shift],
    };
    for ((output, &z), &gradient) in view_mut::<i16>(output)?.iter_mut().zip(source).zip(view::<i16>(gradient)?) {
        *output = backward(gradient.into(), entry(z), factor);
    }
    Some(())
}

/// Which entry of a table is for an input.
#[inline(always)]
pub fn index(z: i8) -> usize {
    (i32::from(z) + 128) as usize
}

/// A gradient behind the activation.
#[inline(always)]
pub fn backward(gradient: i32, slope: i16, [multiplier, shift]: [i32; 2]) -> i16 {
    saturate_i16(requantize(gradient.wrapping_mul(slope.into()), multiplier, shift))
}

/// The unnormalized probability of a class, from its logit and the largest.
#[inline(always)]
pub fn weight(op: &Classifier, largest: i32, logit: i32) -> u32 {
    let below = requantize(largest.saturating_sub(logit), op.multiplier, op.shift);
    exp2_neg(below.max(0).unsigned_abs(), WEIGHT_BITS).unsigned_abs()
}

/// The gradient with respect to a logit: 1 for the class that is asked for, 0 for others, less the probability, to the nearest.
#[inline(always)]
pub fn loss(weight: u32, total: u32, is_class: bool) -> i16 {
    let probability = divide(((u64::from(weight) << (SLOPE_BITS + 1)).wrapping_add(total.into())) >> 1, total);
    let target = if is_class { 1 << SLOPE_BITS } else { 0 };
    saturate_i16(target - probability.min(1 << SLOPE_BITS) as i32)
}
