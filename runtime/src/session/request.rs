//! What to draw, and what a model makes of it.

use crate::error::RequestError;
use crate::format::{NONE, Schedule};
use crate::guidance::{Guidance, Rescale};
use crate::model::Model;

/// What to draw. Starts from seed 0, no class, the first step list of the model, guidance 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Request {
    class: Option<u16>,
    pub(super) seed: u64,
    steps: Option<u32>,
    first: u32,
    guidance: Guidance,
    guided: [u32; 2],
    rescale: Rescale,
}

impl Request {
    /// Seed 0, no class, the first step list of the model, guidance 1.
    pub const fn new() -> Self {
        Self {
            class: None,
            seed: 0,
            steps: None,
            first: 0,
            guidance: Guidance::NONE,
            guided: [0, u32::MAX],
            rescale: Rescale::NONE,
        }
    }

    /// Draws this class.
    pub const fn class(self, class: u16) -> Self {
        Self { class: Some(class), ..self }
    }

    /// Starts from the noise of this seed, see [`noise`](crate::noise).
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Takes this many steps; the model must carry a list of that length.
    pub const fn steps(self, steps: u32) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// Takes the steps of the list from number `step` on, from 0, for a run that starts from an
    /// [`Original`](super::Original). diffusers' `strength` s of n steps is n less the whole part of n·s.
    pub const fn start(self, step: u32) -> Self {
        Self { first: step, ..self }
    }

    /// The first step that is taken.
    pub const fn first_step(&self) -> u32 {
        self.first
    }

    /// Strengthens the class; other than 1 it costs two network calls a step.
    pub const fn guidance(self, guidance: Guidance) -> Self {
        Self { guidance, ..self }
    }

    /// Guides the steps from number `first` of the list, from 0, up to `end`, which is not among them; the others take the
    /// conditional prediction alone, at the cost of one network call (Kynkäänniemi et al., 2024, arXiv:2404.07724). The
    /// `start` and `stop` of diffusers' guiders are fractions of the list's length, rounded down. Where a classifier guides, the
    /// conditional prediction has its gradient, at scale 1.
    pub const fn guidance_interval(self, first: u32, end: u32) -> Self {
        Self { guided: [first, end], ..self }
    }

    /// Brings guided predictions back to the contrast of conditional ones; without guidance it changes nothing.
    pub const fn guidance_rescale(self, rescale: Rescale) -> Self {
        Self { rescale, ..self }
    }

    /// The guidance of a step: that asked for, or none outside of the interval.
    pub const fn guidance_at(&self, step: u32) -> Guidance {
        if self.guided[0] <= step && step < self.guided[1] { self.guidance } else { Guidance::NONE }
    }

    /// The guidance asked for.
    pub const fn asked_guidance(&self) -> Guidance {
        self.guidance
    }

    /// The rescaling asked for.
    pub const fn asked_rescale(&self) -> Rescale {
        self.rescale
    }

    /// The model's step list of the length asked for.
    #[doc(hidden)]
    pub fn schedule(&self, model: &Model<'_>) -> Result<Schedule, RequestError> {
        (0..model.schedules())
            .filter_map(|index| model.schedule(index))
            .find(|schedule| self.steps.is_none_or(|steps| schedule.steps == steps))
            .ok_or(RequestError::Steps { asked: self.steps.unwrap_or(0) })
    }

    /// Whether the list can be started where this asks for.
    pub(super) fn check_start(&self, model: &Model<'_>, schedule: &Schedule) -> Result<(), RequestError> {
        if self.first >= schedule.steps {
            return Err(RequestError::Start { asked: self.first, steps: schedule.steps });
        }
        // The first step takes its own clean sample for the one before it, which lowers its order by one. What looks back on
        // two would need other coefficients in the step after.
        if self.first > 0 && model.header().history[1] != NONE {
            return Err(RequestError::StartLooksBack);
        }
        Ok(())
    }

    /// The step list and the class ([`NONE`] of a model without classes) that the model draws this with, if it can.
    #[doc(hidden)]
    pub fn resolve(&self, model: &Model<'_>) -> Result<(Schedule, u16), RequestError> {
        let schedule = self.schedule(model)?;
        let class = check_class(model, self.class)?;
        let header = model.header();
        let (Some(sample), Some(prediction)) = (model.tensor(header.sample), model.tensor(header.prediction)) else {
            return Err(RequestError::NotASampler);
        };
        if sample.channels != prediction.channels {
            return Err(RequestError::NotASampler);
        }
        if self.guidance != Guidance::NONE && !model.has_guidance() {
            return Err(RequestError::GuidanceUnavailable);
        }
        if self.rescale != Rescale::NONE && !cfg!(feature = "guidance-rescale") {
            return Err(RequestError::RescaleDisabled);
        }
        Ok((schedule, class))
    }
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

/// The class to draw: a model that knows "no class" can draw without being told one.
pub(super) fn check_class(model: &Model<'_>, class: Option<u16>) -> Result<u16, RequestError> {
    let classes = model.classes();
    match class {
        Some(_) if classes == 0 => Err(RequestError::Unconditional),
        Some(asked) if asked >= classes => Err(RequestError::Class { asked, classes }),
        Some(class) => Ok(class),
        None if classes > 0 => model.unconditional_class().ok_or(RequestError::ClassMissing),
        None => Ok(NONE),
    }
}
