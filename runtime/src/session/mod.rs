//! Running a model: one session, one picture at a time, in bounded steps.

mod acceleration;
mod elements;
mod image;
mod original;
mod path;
mod prediction;
mod progress;
mod request;
mod run;
mod samples;
mod update;
mod walk;

pub use image::Image;
pub use original::Original;
pub use prediction::Prediction;
pub use progress::Progress;
pub use request::Request;
pub use run::Run;
pub use samples::{Samples, SamplesMut};

use acceleration::Acceleration;
use run::{Start, THRESHOLDS};
use walk::Walk;

use crate::error::{RequestError, RunError, SessionError};
use crate::format::{ALIGN, NONE};
use crate::log::debug;
use crate::model::Model;
use crate::noise::{Noise, Seed};
use crate::ops::{self, Context};
use crate::precision::with_precision;
use crate::weights::{Resident, WeightSource};

/// A model, the memory it runs in, and where its weights come from if the model file does not carry them.
#[derive(Debug)]
pub struct Session<'a, W = Resident> {
    model: &'a Model<'a>,
    arena: &'a mut [u8],
    weights: W,
    acceleration: Acceleration<'a>,
    /// Whether the model reads no condition, or was given one.
    is_conditioned: bool,
    /// Whether the model acts on no observation, or was given one.
    is_observed: bool,
}

impl<'a> Session<'a> {
    /// Prepares `model` to run in `arena`, whose contents do not matter.
    ///
    /// # Errors
    /// If the memory is too small or misaligned, the crate was built without the model's precision or one of its
    /// operations, or the model streams its weights.
    pub fn new(model: &'a Model<'a>, arena: &'a mut [u8]) -> Result<Self, SessionError> {
        Self::with_weights(model, arena, Resident)
    }
}

impl<'a, W: WeightSource> Session<'a, W> {
    /// The same for a model that streams its weights; a source is not asked for those of one that does not.
    ///
    /// # Errors
    /// If the memory is too small or misaligned, or the crate was built without the model's precision or one of its
    /// operations.
    pub fn with_weights(model: &'a Model<'a>, arena: &'a mut [u8], weights: W) -> Result<Self, SessionError> {
        if !W::STREAMS && model.header().weights_bytes > 0 {
            return Err(SessionError::WeightsMissing);
        }
        if !with_precision!(model.precision(), _Built => true, else false) {
            return Err(SessionError::PrecisionDisabled { precision: model.precision() });
        }
        let mut ops = (0..model.ops()).filter_map(|index| model.op(index));
        if let Some(feature) = ops.find_map(|op| ops::missing_feature(&op)) {
            return Err(SessionError::OperationDisabled { feature });
        }
        if model.header().history[0] != NONE && !cfg!(feature = "history") {
            return Err(SessionError::OperationDisabled { feature: "history" });
        }
        if model.header().variance != 0 && !cfg!(feature = "learned-variance") {
            return Err(SessionError::OperationDisabled { feature: "learned-variance" });
        }
        if model.header().gradient != 0 && !cfg!(feature = "classifier") {
            return Err(SessionError::OperationDisabled { feature: "classifier" });
        }
        let mut schedules = (0..model.schedules()).filter_map(|index| model.schedule(index));
        if schedules.any(|schedule| schedule.threshold != 0) && !THRESHOLDS {
            return Err(SessionError::OperationDisabled { feature: "thresholding" });
        }
        if !model.bytes().as_ptr().addr().is_multiple_of(4) {
            return Err(SessionError::ModelMisaligned);
        }
        if !arena.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(SessionError::ArenaMisaligned);
        }
        let found = arena.len();
        let expected = model.arena_bytes();
        let arena = arena.get_mut(..expected).ok_or(SessionError::ArenaTooSmall { expected, found })?;
        debug!("waft: session of {} bytes", expected);
        let header = model.header();
        let (is_conditioned, is_observed) = (header.condition == 0, header.observation == 0);
        let acceleration = Acceleration::default();
        Ok(Self { model, arena, weights, acceleration, is_conditioned, is_observed })
    }

    /// The same session with an accelerator: it computes whole operations, so that a step of a run takes as long as an operation,
    /// and gives the same bits. One of another model is not used.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn accelerated(mut self, accelerator: &'a mut crate::Accelerator) -> Self {
        self.acceleration = Acceleration::new(self.model, accelerator);
        self
    }

    /// The model.
    pub const fn model(&self) -> &'a Model<'a> {
        self.model
    }

    /// Where the weights come from, to look at its state after an error.
    pub const fn weights(&mut self) -> &mut W {
        &mut self.weights
    }

    /// Starts a picture from the documented noise of the request's seed.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for.
    pub fn sample(&mut self, request: Request) -> Result<Run<'_, Seed, &mut W>, RequestError> {
        self.sample_with(request, Seed::new(request.seed))
    }

    /// Starts a picture from the caller's noise; the request's seed is ignored.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for.
    pub fn sample_with<N: Noise>(&mut self, request: Request, noise: N) -> Result<Run<'_, N, &mut W>, RequestError> {
        let start = Start::new(self, request, None)?;
        Ok(Run::new(self.lend(), start, noise))
    }

    /// Starts from a picture rather than from noise alone, or redraws a part of one.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for, or the picture has another size.
    pub fn sample_from<'s>(
        &'s mut self,
        request: Request,
        original: Original<'s>,
    ) -> Result<Run<'s, Seed, &'s mut W>, RequestError> {
        self.sample_from_with(request, original, Seed::new(request.seed))
    }

    /// The same with the caller's noise, of which draw 0 is asked for again where a mask keeps elements.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for, or the picture has another size.
    pub fn sample_from_with<'s, N: Noise>(
        &'s mut self,
        request: Request,
        original: Original<'s>,
        noise: N,
    ) -> Result<Run<'s, N, &'s mut W>, RequestError> {
        let start = Start::new(self, request, Some(original))?;
        Ok(Run::new(self.lend(), start, noise))
    }

    /// The same session for as long as a run borrows it.
    fn lend(&mut self) -> Session<'_, &mut W> {
        Session {
            model: self.model,
            arena: &mut *self.arena,
            weights: &mut self.weights,
            acceleration: self.acceleration.lend(),
            is_conditioned: self.is_conditioned,
            is_observed: self.is_observed,
        }
    }

    /// Starts a picture as [`sample`](Self::sample) does, in a run that owns the session until
    /// [`Run::into_session`] gives it back: for state machines that keep a run between calls.
    ///
    /// ```
    /// # use waft::{Error, Request, Run, Session, noise::Seed};
    /// enum Painter {
    ///     Ready(Session<'static>),
    ///     Drawing(Run<'static, Seed>),
    /// }
    ///
    /// impl Painter {
    ///     /// Does a bounded slice of work, in a task or a timer's interrupt; what to do next time.
    ///     fn poll(self, request: Request, show: impl FnOnce(&[u8])) -> Result<Self, Error> {
    ///         match self {
    ///             Self::Ready(session) => Ok(Self::Drawing(session.into_run(request).map_err(|(_, error)| error)?)),
    ///             Self::Drawing(mut run) => match run.step()? {
    ///                 Some(_progress) => Ok(Self::Drawing(run)),
    ///                 None => {
    ///                     run.image().map(|image| show(image.data()));
    ///                     Ok(Self::Ready(run.into_session()))
    ///                 }
    ///             },
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// If the model cannot draw what is asked for; with the session, unchanged.
    pub fn into_run(self, request: Request) -> Result<Run<'a, Seed, W>, (Self, RequestError)> {
        self.into_run_with(request, Seed::new(request.seed))
    }

    /// The same from the caller's noise; the request's seed is ignored.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for; with the session, unchanged.
    pub fn into_run_with<N: Noise>(self, request: Request, noise: N) -> Result<Run<'a, N, W>, (Self, RequestError)> {
        self.into_run_from(request, None, noise)
    }

    /// The same from a picture, if one is given.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for, or the picture has another size; with the session, unchanged.
    pub fn into_run_from<N: Noise>(
        self,
        request: Request,
        original: Option<Original<'a>>,
        noise: N,
    ) -> Result<Run<'a, N, W>, (Self, RequestError)> {
        match Start::new(&self, request, original) {
            Ok(start) => Ok(Run::new(self, start, noise)),
            Err(error) => Err((self, error)),
        }
    }

    /// Starts one network call at step `step` of the model's step list number `schedule`, on the sample that
    /// [`input`](Self::input) holds: for samplers of your own. What it computes is the network's output, see
    /// [`Output`](crate::format::Output).
    ///
    /// # Errors
    /// If there is no such step or class.
    pub fn predict(
        &mut self,
        schedule: u16,
        step: u32,
        class: Option<u16>,
    ) -> Result<Prediction<'_, 'a, W>, RequestError> {
        let schedule = self
            .model
            .schedule(schedule)
            .filter(|schedule| step < schedule.steps)
            .ok_or(RequestError::Steps { asked: step.saturating_add(1) })?;
        let class = request::check_class(self.model, class)?;
        self.check_inputs()?;
        Ok(Prediction { session: self, walk: Walk::default(), schedule, step, class })
    }

    /// The sample that the network reads, to be written before [`predict`](Self::predict): values in (row, column,
    /// channel) order, [`Model::image_shape`] for a model that draws pictures, −1 for black and 1 for white; noise of
    /// standard deviation 1 at the first step. Their unit is [`SamplesMut`]'s. `None` only if the model's bytes changed.
    pub fn input(&mut self) -> Option<SamplesMut<'_>> {
        let tensor = self.model.tensor(self.model.header().sample)?;
        let bytes = self.arena.get_mut(tensor.range())?;
        SamplesMut::view(self.model.precision(), bytes)
    }

    /// The condition that the network reads beside the sample, (row, column, channel) order, to be written before the first
    /// picture: it stays for all that follow, until it is written again. `None` if the model reads none.
    pub fn condition(&mut self) -> Option<SamplesMut<'_>> {
        self.model.condition_shape()?;
        let tensor = self.model.tensor(self.model.header().condition)?;
        let bytes = self.arena.get_mut(tensor.range())?;
        self.is_conditioned = true;
        SamplesMut::view(self.model.precision(), bytes)
    }

    /// The observation that a policy acts on, to be written before each run: [`Model::observation_len`] values in the units of
    /// the data that it was trained on, those of the oldest step first. Their unit here is [`SamplesMut`]'s; in i8, values
    /// further than eight from 0 after normalization count as eight. It stays for the runs that follow, until it is written
    /// again. `None` if the model acts on none.
    pub fn observation(&mut self) -> Option<SamplesMut<'_>> {
        self.model.observation_len()?;
        let tensor = self.model.tensor(self.model.header().observation)?;
        let bytes = self.arena.get_mut(tensor.range())?;
        self.is_observed = true;
        SamplesMut::view(self.model.precision(), bytes)
    }

    /// Whether condition and observation were given, if the model reads any, and the observation is of numbers.
    fn check_inputs(&self) -> Result<(), RequestError> {
        if !self.is_conditioned {
            return Err(RequestError::ConditionMissing);
        }
        if !cfg!(feature = "unet1d") || self.model.header().observation == 0 {
            return Ok(());
        }
        if !self.is_observed {
            return Err(RequestError::ObservationMissing);
        }
        match self.samples(self.model.header().observation) {
            Some(Samples::Float(values)) => match values.iter().position(|value| !value.is_finite()) {
                Some(index) => Err(RequestError::ObservationNotFinite { index }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A tensor's bytes as the plan stands now, for calibration and parity tests.
    #[doc(hidden)]
    pub fn tensor_bytes(&self, id: u16) -> Option<&[u8]> {
        self.arena.get(self.model.tensor(id)?.range())
    }

    /// Executes one operation of a network call on what the arena holds, for parity tests.
    #[doc(hidden)]
    pub fn execute(&mut self, schedule: u16, step: u32, class: u16, index: u16) -> Result<(), RunError> {
        let corrupt = RunError::Corrupt { op: index };
        let schedule = self.model.schedule(schedule).ok_or(corrupt)?;
        let context = Context { model: self.model, schedule, step, class };
        let mut walk = Walk::at(index);
        while walk.op == index {
            with_precision!(
                self.model.precision(),
                P => walk.advance::<P, W>(&context, self.arena, &mut self.weights, &mut self.acceleration)?,
                else return Err(corrupt)
            );
        }
        Ok(())
    }

    fn samples(&self, id: u16) -> Option<Samples<'_>> {
        Samples::view(self.model.precision(), self.tensor_bytes(id)?)
    }
}

#[cfg(test)]
mod tests;
