//! Elements of the sample: where they lie, and what a picture makes of them.

use core::ops::Range;

use super::Original;
use crate::error::RunError;
use crate::format::{ACTION_BYTES, Level, Schedule};
use crate::model::Model;
use crate::ops::{view, view_mut};
use crate::sampler::Sample;

/// An element of a picture with noise, as it is before a step.
pub(super) fn noised<S: Sample>(
    model: &Model<'_>,
    schedule: &Schedule,
    step: u32,
    original: &Original<'_>,
    index: usize,
    z: S,
) -> Result<S, RunError> {
    let byte = original.byte(index).ok_or(RunError::Corrupt { op: model.ops() })?;
    Ok(S::from_byte(byte).noised(z, level(model, schedule, step)))
}

/// What the sample before a step consists of.
pub(super) fn level(model: &Model<'_>, schedule: &Schedule, step: u32) -> Level {
    Level::read(model.bytes(), schedule.levels as usize + step as usize * size_of::<Level>())
}

/// What a part of the sampler's step reads and writes.
pub(super) struct Update<'a, S> {
    pub(super) sample: &'a mut [S],
    pub(super) prediction: &'a [S],
    /// Empty without guidance.
    pub(super) unconditional: &'a [S],
    /// Clean samples of the step before and of the one before that; empty if the sampler does not look back so far.
    pub(super) history: [&'a mut [S]; 2],
    /// What the network says about the noise's variance; empty if it was not trained to.
    pub(super) variance: &'a [S],
}

impl<'a, S: Sample> Update<'a, S> {
    pub(super) fn bind(model: &Model<'_>, arena: &'a mut [u8], elements: Range<usize>, guided: bool) -> Option<Self> {
        let header = model.header();
        let place = |id| model.tensor(id).map(|tensor| tensor.range());
        let unconditional = if guided { place(header.unconditional)? } else { 0..0 };
        let [newer, older] =
            header.history.map(|id| if cfg!(feature = "history") { place(id).unwrap_or(0..0) } else { 0..0 });
        #[cfg(feature = "learned-variance")]
        let variance = if header.variance == 0 { 0..0 } else { place(header.variance)? };
        let [sample, prediction, unconditional, newer, older, rest @ ..] = arena
            .get_disjoint_mut([
                place(header.sample)?,
                place(header.prediction)?,
                unconditional,
                newer,
                older,
                #[cfg(feature = "learned-variance")]
                variance,
            ])
            .ok()?;
        let variance = match rest.into_iter().next() {
            Some(variance) if !variance.is_empty() => view(variance)?.get(elements.clone())?,
            _ => &[],
        };
        let kept = |bytes: &'a mut [u8]| {
            let elements = if bytes.is_empty() { 0..0 } else { elements.clone() };
            view_mut(bytes)?.get_mut(elements)
        };
        Some(Self {
            sample: view_mut(sample)?.get_mut(elements.clone())?,
            prediction: view(prediction)?.get(elements.clone())?,
            unconditional: view(unconditional)?.get(if guided { elements.clone() } else { 0..0 })?,
            history: [kept(newer)?, kept(older)?],
            variance,
        })
    }
}

/// Turns a sample, whose channels are actions, into the units of these.
pub(super) fn to_actions<S: Sample>(model: &Model<'_>, channels: usize, sample: &mut [S]) {
    for actions in sample.chunks_exact_mut(channels.max(1)) {
        for (channel, action) in actions.iter_mut().enumerate() {
            let at = model.header().actions as usize + channel * ACTION_BYTES;
            *action = action.to_action(model.bytes(), at);
        }
    }
}

/// Turns the first `len` elements into bytes, in place.
pub(super) fn to_bytes<S: Sample>(bytes: &mut [u8], len: usize) -> Option<()> {
    for index in 0..len {
        let element: S =
            bytemuck::try_pod_read_unaligned(bytes.get(index * size_of::<S>()..)?.get(..size_of::<S>())?).ok()?;
        // Byte `index` is at or before the element it comes from.
        *bytes.get_mut(index)? = element.to_byte();
    }
    Some(())
}
