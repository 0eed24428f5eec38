//! How far a run is, and what is left of it.

use super::path::Next;
use super::run::{CHUNK, RESCALES, Run, Stage};
use crate::error::RequestError;
use crate::guidance::{Guidance, Rescale};
use crate::noise::Noise;
use crate::threshold::PASSES;
use crate::weights::WeightSource;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress {
    /// Diffusion steps that are complete, those before a later [start](crate::Request::start) and those that are
    /// [taken again](crate::Original::resample) included.
    pub step: u32,
    /// Diffusion steps in all.
    pub steps: u32,
    /// Slices of work that are complete.
    pub slice: u32,
    /// Slices of work in all.
    pub slices: u32,
}

impl<N: Noise, W: WeightSource> Run<'_, N, W> {
    /// Changes the guidance of the steps that begin from now on, those outside of the request's interval excepted: for a scale
    /// that depends on the step; see [`next_step`](Self::next_step).
    ///
    /// # Errors
    /// If the model was exported without guidance.
    pub fn set_guidance(&mut self, guidance: Guidance) -> Result<(), RequestError> {
        if guidance != Guidance::NONE && !self.session.model.has_guidance() {
            return Err(RequestError::GuidanceUnavailable);
        }
        let next = self.following();
        let begun = self.progress.slices.saturating_sub(self.left(next)[1]);
        self.request = self.request.guidance(guidance);
        self.progress.slices = begun.saturating_add(self.left(next)[1]);
        Ok(())
    }

    /// The number, in the list, of the step that begins next; `None` if none is left.
    pub fn next_step(&self) -> Option<u32> {
        match self.following() {
            Next::Step(position) | Next::Back(position) => Some(position.step),
            Next::End => None,
        }
    }

    /// What follows the step that has begun.
    fn following(&self) -> Next {
        match self.stage {
            Stage::Noise { .. } => Next::Step(self.position),
            // The way itself is under way.
            Stage::Back { .. } => match self.path.next(self.position) {
                Next::Back(to) => Next::Step(to),
                other => other,
            },
            Stage::Network { .. } | Stage::Measure { .. } | Stage::Search { .. } | Stage::Update { .. } => {
                self.path.next(self.position)
            }
            Stage::Sampled | Stage::Converted | Stage::Acted => Next::End,
        }
    }

    /// Network calls with their steps, and slices, of what is left from something on.
    pub(super) fn left(&self, mut next: Next) -> [u32; 2] {
        let (mut steps, mut slices) = (0u32, 0u32);
        let chunks = self.chunks();
        let measured = if self.rescales() { chunks } else { 0 };
        loop {
            let at = match next {
                Next::Step(at) => at,
                Next::Back(at) => {
                    slices = slices.saturating_add(chunks);
                    at
                }
                Next::End => return [steps, slices],
            };
            let is_guided = self.request.guidance_at(at.step) != Guidance::NONE;
            let second = if self.has_gradient() { 0 } else { self.network };
            let guided = if is_guided { second.saturating_add(measured) } else { 0 };
            steps = steps.saturating_add(1);
            let searched = if self.thresholds() { chunks.saturating_mul(PASSES) } else { 0 };
            slices = slices.saturating_add(self.network).saturating_add(chunks).saturating_add(guided);
            slices = slices.saturating_add(searched);
            next = self.path.next(at);
        }
    }

    /// Whether guided outputs are rescaled.
    pub(super) fn rescales(&self) -> bool {
        RESCALES && self.request.asked_rescale() != Rescale::NONE
    }

    pub(super) fn chunks(&self) -> u32 {
        self.sample.len().div_ceil(CHUNK) as u32
    }
}
