//! In single precision, from and to the model's storage type: sums over the channels in their order.

use super::{Bound, pixel};
use crate::float::{Float, activate, sqrt};
use crate::format::{Center, LayerNorm};
use crate::ops::{Context, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &LayerNorm, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { gamma, beta, source, residual, output } = Bound::<f32>::bind(context, op, slice, arena)?;
    let channels = gamma.len().max(1);
    let (element, bytes) = output;
    for (index, output) in bytes.chunks_exact_mut((channels * element.bytes()).max(1)).enumerate() {
        let values: &[E] = view(pixel(source, index, channels, output))?;
        let mut sum = 0.0;
        let mut deviations = 0.0;
        for value in values {
            sum += value.to_f32();
        }
        let center = center(op, sum, channels as f32);
        for value in values {
            deviations += squared(value.to_f32(), center);
        }
        let inverse = inverse_deviation(op, deviations, channels as f32);
        for (channel, (&gamma, &beta)) in gamma.iter().zip(beta).enumerate() {
            let read = |bytes: &[u8]| Some(view::<E>(bytes)?.get(channel)?.to_f32());
            let value = read(pixel(source, index, channels, output))?;
            let kept = match residual {
                Some(residual) => read(pixel(residual, index, channels, output))?,
                None => 0.0,
            };
            *view_mut::<E>(output)?.get_mut(channel)? =
                E::from_f32(normalized(op, value, [center, inverse], [gamma, beta]) + kept);
        }
    }
    Some(())
}

/// What deviations are from, for the sum of `count` channels.
#[inline(always)]
pub fn center(op: &LayerNorm, sum: f32, count: f32) -> f32 {
    match op.center() {
        Center::Zero => 0.0,
        Center::Mean => sum / count,
    }
}

/// The square of a deviation.
#[inline(always)]
pub fn squared(value: f32, center: f32) -> f32 {
    (value - center) * (value - center)
}

/// One over the deviation, for the sum of the squares of `count` channels.
#[inline(always)]
pub fn inverse_deviation(op: &LayerNorm, squares: f32, count: f32) -> f32 {
    1.0 / sqrt(squares / count + op.epsilon)
}

/// One result without the residual.
#[inline(always)]
pub fn normalized(op: &LayerNorm, value: f32, [center, inverse]: [f32; 2], [gamma, beta]: [f32; 2]) -> f32 {
    let value = (value - center) * inverse * gamma + beta;
    match op.gather().activation() {
        Some(activation) => activate(activation, value),
        None => value,
    }
}
