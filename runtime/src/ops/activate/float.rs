//! In single precision, from and to the model's storage type.

use super::Bound;
use crate::float::{Float, activate};
use crate::format::{Activate, Film};
use crate::ops::{Context, view, view_mut};

pub(crate) fn run<E: Float>(context: &Context<'_>, op: &Activate, slice: u32, arena: &mut [u8]) -> Option<()> {
    let Bound { maps, step, observed, source, residual, output } = Bound::<f32>::bind(context, op, slice, arena)?;
    let source: &[E] = view(source.1)?;
    let kept: &[E] = match residual {
        Some((_, bytes)) => view(bytes)?,
        None => &[],
    };
    let output: &mut [E] = view_mut(output.1)?;
    let channels = maps.len().max(1);
    for (index, output) in output.iter_mut().enumerate() {
        let channel = index % channels;
        // What has no place of its own is at the output's.
        let read = |values: &[E]| values.get(index).unwrap_or(output).to_f32();
        let film = [0, 1].map(|part| {
            let of = |values: [&[f32]; 2]| values.get(part).and_then(|values| values.get(channel)).copied();
            of(step).unwrap_or_default() + of(observed).unwrap_or_default()
        });
        let kept = residual.map_or(0.0, |_| read(kept));
        *output = E::from_f32(activated(op, read(source), *maps.get(channel)?, film) + kept);
    }
    Some(())
}

/// One result without the residual, from the input and the channel's map, factor and summand.
#[inline(always)]
pub fn activated(op: &Activate, value: f32, [a, b]: [f32; 2], [scale, shift]: [f32; 2]) -> f32 {
    let value = activate(op.activation(), value * a + b);
    match op.film() {
        Film::None => value,
        Film::Shift => value + shift,
        Film::ScaleShift => value * scale + shift,
    }
}
