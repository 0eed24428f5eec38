//! What becomes of the sample behind a network call: chunk by chunk, the step of the sampler and what it needs of whole pictures.

use super::Session;
use super::elements::{Update, level, noised};
use super::path::{Position, back};
use super::run::{Run, THRESHOLDS};
use crate::error::RunError;
use crate::format::{LEVEL_BITS, Level, STEP_BYTES, Threshold, Variance};
use crate::guidance::{FACTOR_BITS, Guidance};
use crate::noise::Noise;
use crate::ops::view_mut;
use crate::sampler::{Sample, Step, Terms};
use crate::weights::WeightSource;

impl<N: Noise, W: WeightSource> Run<'_, N, W> {
    /// Takes part of a guided output into account.
    pub(super) fn measure<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let Session { model, arena, .. } = &mut self.session;
        let corrupt = RunError::Corrupt { op: model.ops() };
        let spread = self.spread.first_mut().ok_or(corrupt)?;
        let Update { prediction, unconditional, .. } =
            Update::<S>::bind(model, arena, elements, true).ok_or(corrupt)?;
        for (&prediction, &unconditional) in prediction.iter().zip(unconditional) {
            let guided = S::guide(unconditional, prediction, self.guidance);
            spread.add(prediction.to_fixed(), guided.to_fixed());
        }
        Ok(())
    }

    /// Takes part of the clean sample into account, and ends a pass over it behind its last part.
    pub(super) fn count_magnitudes<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let (elements, is_last) = (self.elements(chunk), self.is_last(chunk));
        let corrupt = RunError::Corrupt { op: self.session.model.ops() };
        if !THRESHOLDS {
            return Err(corrupt);
        }
        let (step, is_guided, guiding) = (self.coefficients::<S>(), self.is_guided(), self.guiding());
        let threshold = self.threshold();
        let Session { model, arena, .. } = &mut self.session;
        let Update { sample, prediction, unconditional, .. } =
            Update::<S>::bind(model, arena, elements, is_guided).ok_or(corrupt)?;
        let search = self.search.first_mut().ok_or(corrupt)?;
        let mut unconditional = unconditional.iter();
        for (&x, &prediction) in sample.iter().zip(prediction) {
            let m = guided(prediction, unconditional.next(), guiding);
            search.add(step.clean(x, m).magnitude());
        }
        if is_last {
            *search = search.after_pass(threshold.rank);
        }
        Ok(())
    }

    /// The coefficients of the step.
    fn coefficients<S: Sample>(&self) -> S::Step {
        let at = self.schedule.rows as usize + self.position.step as usize * STEP_BYTES;
        S::Step::read(self.session.model.bytes(), at)
    }

    /// What the network's output for the variance means in the step, if there is one.
    fn variance(&self) -> Variance {
        let at = self.schedule.variances() as usize + self.position.step as usize * size_of::<Variance>();
        Variance::read(self.session.model.bytes(), at)
    }

    /// Whether the step's output is guided.
    fn is_guided(&self) -> bool {
        self.guidance != Guidance::NONE
    }

    /// How it is, if it is: the scale, and the factor that rescales.
    fn guiding(&self) -> (Guidance, i32) {
        let factor = match self.spread.first() {
            Some(spread) if self.is_guided() && self.rescales() => spread.factor(self.request.asked_rescale()),
            _ => 1 << FACTOR_BITS,
        };
        (self.guidance, factor)
    }

    /// How clean samples are bounded.
    fn threshold(&self) -> Threshold {
        Threshold::read(self.session.model.bytes(), self.schedule.threshold as usize)
    }

    /// Whether they are.
    pub(super) fn thresholds(&self) -> bool {
        THRESHOLDS && self.schedule.threshold != 0
    }

    /// Leads part of the sample back to what it is before an earlier step, by noise.
    pub(super) fn go_back<S: Sample>(&mut self, chunk: usize, to: Position) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let corrupt = RunError::Corrupt { op: self.session.model.ops() };
        if !cfg!(feature = "original") {
            return Err(corrupt);
        }
        let level = |step: u32| level(self.session.model, &self.schedule, step);
        let clean = Level { signal: 1 << LEVEL_BITS, noise: 0 };
        let after = self.position.step.saturating_add(1);
        let from = if after < self.schedule.steps { level(after) } else { clean };
        let way = back(from, level(to.step));
        let draw = u32::MAX.wrapping_sub(to.jumps.saturating_sub(1));
        let sample = self.session.arena.get_mut(self.sample.range()).and_then(view_mut::<S>);
        let part = sample.and_then(|sample| sample.get_mut(elements.clone())).ok_or(corrupt)?;
        for (x, index) in part.iter_mut().zip(elements) {
            let value = self.noise.sample(draw, index as u32).ok_or(RunError::NoiseExhausted { draw })?;
            *x = x.noised(S::from_noise(value), way);
        }
        Ok(())
    }

    /// Moves part of the sample to the next step.
    pub(super) fn update<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let (step, is_guided, guiding) = (self.coefficients::<S>(), self.is_guided(), self.guiding());
        let bound = match self.search.first() {
            Some(search) if self.thresholds() => Some(S::bound(self.threshold(), search.found())),
            _ => None,
        };
        let variance_of_step = self.variance();
        let draw = self.progress.step.saturating_add(1);
        let next_step = self.position.step.saturating_add(1);
        let kept = self.original.filter(|original| cfg!(feature = "original") && original.mask.is_some());
        let Session { model, arena, .. } = &mut self.session;
        let Update { sample, prediction, unconditional, history, variance } =
            Update::<S>::bind(model, arena, elements.clone(), is_guided)
                .ok_or(RunError::Corrupt { op: model.ops() })?;
        let mut unconditional = unconditional.iter();
        let is_later_start = cfg!(feature = "original")
            && self.request.first_step() > 0
            && self.progress.step == self.request.first_step();
        let [newer, older] = history;
        let (mut newer, mut older, mut variances) = (newer.iter_mut(), older.iter_mut(), variance.iter());
        for ((x, &prediction), index) in sample.iter_mut().zip(prediction).zip(elements) {
            let m = guided(prediction, unconditional.next(), guiding);
            let z = if step.has_noise() {
                self.noise.sample(draw, index as u32).ok_or(RunError::NoiseExhausted { draw })?
            } else {
                0
            };
            let x0 = step.clean(*x, m);
            let x0 = bound.map_or(x0, |bound| x0.bounded(bound));
            let z = S::from_noise(z);
            let z = variances.next().map_or(z, |&v| z.varied(v, variance_of_step));
            let terms = Terms { x0, x: *x, m, z };
            let (newer, older) = (newer.next(), older.next());
            let mut history = [&newer, &older].map(|kept| kept.as_ref().map_or(S::zeroed(), |kept| **kept));
            if is_later_start {
                history = [terms.x0; 2];
            }
            *x = step.next(terms, history);
            if let Some(original) = &kept
                && original.keeps(index, self.sample.channels.into())
            {
                *x = if next_step < self.schedule.steps {
                    let z = self.noise.sample(0, index as u32).ok_or(RunError::NoiseExhausted { draw: 0 })?;
                    noised(model, &self.schedule, next_step, original, index, S::from_noise(z))?
                } else {
                    S::from_byte(original.byte(index).ok_or(RunError::Corrupt { op: model.ops() })?)
                };
            }
            if let Some(older) = older {
                *older = history[0];
            }
            if let Some(newer) = newer {
                *newer = terms.x0;
            }
        }
        Ok(())
    }
}

/// The model output of a step.
fn guided<S: Sample>(prediction: S, unconditional: Option<&S>, (guidance, factor): (Guidance, i32)) -> S {
    match unconditional {
        Some(&unconditional) => {
            let guided = S::guide(unconditional, prediction, guidance);
            if factor == 1 << FACTOR_BITS { guided } else { guided.scaled(factor) }
        }
        None => prediction,
    }
}
