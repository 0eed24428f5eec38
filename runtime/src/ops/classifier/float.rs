//! In single precision, from and to the model's storage type.

use super::Bound;
use crate::float::{Float, exp};
use crate::format::{Classifier, Pass};
use crate::ops::{Context, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Classifier, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { source, gradient, output: (_, output) } = Bound::bind(context, op, slice, arena)?;
    let (source, gradient): (&[E], &[E]) = (view(source)?, view(gradient)?);
    let output = view_mut::<E>(output)?.iter_mut();
    match op.pass() {
        Pass::Forward => output.zip(source).for_each(|(output, z)| *output = E::from_f32(silu(z.to_f32()))),
        Pass::Backward | Pass::BackwardScaled => {
            let factor = match op.pass() {
                Pass::BackwardScaled => *context.data(context.biases_of_step() + op.factor_at, 1)?.first()?,
                _ => 1.0,
            };
            for ((output, z), gradient) in output.zip(source).zip(gradient) {
                *output = E::from_f32(backward(gradient.to_f32(), z.to_f32(), factor));
            }
        }
        Pass::Loss => {
            let largest = source.iter().fold(f32::NEG_INFINITY, |largest, logit| largest.max(logit.to_f32()));
            let total = source.iter().fold(0.0, |sum, logit| sum + exp(logit.to_f32() - largest));
            for (class, (output, logit)) in output.zip(source).enumerate() {
                let weight = exp(logit.to_f32() - largest);
                *output = E::from_f32(loss(weight, total, class == usize::from(context.class)));
            }
        }
    }
    Some(())
}

/// `z·σ(z)`.
#[inline(always)]
pub fn silu(z: f32) -> f32 {
    z / (1.0 + exp(-z))
}

/// A gradient behind the activation: `σ′` is `σ·(1 + z·(1 − σ))`.
#[inline(always)]
pub fn backward(gradient: f32, z: f32, factor: f32) -> f32 {
    let sigmoid = 1.0 / (1.0 + exp(-z));
    gradient * (sigmoid * (1.0 + z * (1.0 - sigmoid))) * factor
}

/// The gradient with respect to a logit: 1 for the class that is asked for, 0 for others, less the probability.
#[inline(always)]
pub fn loss(weight: f32, total: f32, is_class: bool) -> f32 {
    (if is_class { 1.0 } else { 0.0 }) - weight / total
}
