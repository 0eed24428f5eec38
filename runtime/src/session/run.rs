//! One picture, from its noise to its bytes.

use core::ops::Range;

use bytemuck::Zeroable;

use super::elements::{noised, to_actions, to_bytes};
use super::path::{Next, Path, Position};
use super::walk::{Advance, Walk};
use super::{Image, Original, Progress, Request, Samples, Session};
use crate::error::{RequestError, RunError};
use crate::format::{Schedule, Tensor};
use crate::guidance::{Guidance, Spread};
use crate::log::debug;
use crate::noise::Noise;
use crate::ops::{self, Context, view_mut};
use crate::precision::{Arithmetic, with_precision};
use crate::sampler::Sample;
use crate::threshold::Search;
use crate::weights::{Resident, WeightSource};

/// Elements of the sample that one slice draws, updates or converts.
pub(super) const CHUNK: usize = 512;

/// Whether guided outputs can be rescaled in this build.
pub(super) const RESCALES: bool = cfg!(feature = "guidance-rescale");

/// Whether clean samples can be bounded by dynamic thresholding in this build.
pub(super) const THRESHOLDS: bool = cfg!(feature = "thresholding");

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Drawing the initial sample.
    Noise { chunk: usize },
    /// A network call; the first of two is the unconditional one.
    Network { first_of_two: bool, walk: Walk },
    /// Measuring how far guided outputs spread, to rescale them.
    Measure { chunk: usize },
    /// Looking for the quantile that bounds the clean samples of the step.
    Search { chunk: usize },
    /// Moving the sample to the next step.
    Update { chunk: usize },
    /// Leading the sample back to an earlier one, by noise.
    Back { chunk: usize },
    /// The sample is complete.
    Sampled,
    /// The sample has been replaced by bytes.
    Converted,
    /// The sample has been replaced by actions.
    Acted,
}

/// A picture in progress, with the session that it uses: lent, `Run<'_, N, &mut W>`, by [`Session::sample`], or owned, after
/// [`Session::into_run`]. Dropping it abandons the picture; a session that lent itself is ready for the next.
#[derive(Debug)]
pub struct Run<'a, N, W = Resident> {
    pub(super) session: Session<'a, W>,
    pub(super) noise: N,
    pub(super) schedule: Schedule,
    class: u16,
    pub(super) request: Request,
    /// Of the step that is taken.
    pub(super) guidance: Guidance,
    /// Of the guided outputs of the step, in a build that rescales them.
    pub(super) spread: [Spread; RESCALES as usize],
    /// For the quantile of the step's clean samples, in a build that bounds them.
    pub(super) search: [Search; THRESHOLDS as usize],
    pub(super) sample: Tensor,
    pub(super) original: Option<Original<'a>>,
    /// Slices of a network call.
    pub(super) network: u32,
    pub(super) path: Path,
    pub(super) position: Position,
    pub(super) stage: Stage,
    pub(super) progress: Progress,
}

/// What a model makes of a request.
#[derive(Debug)]
pub(super) struct Start<'a> {
    request: Request,
    schedule: Schedule,
    class: u16,
    original: Option<Original<'a>>,
}

impl<'a> Start<'a> {
    /// Checks the request.
    pub(super) fn new<W: WeightSource>(
        session: &Session<'_, W>,
        request: Request,
        original: Option<Original<'a>>,
    ) -> Result<Self, RequestError> {
        let model = session.model;
        let (schedule, class) = request.resolve(model)?;
        match &original {
            Some(original) => original.check(model, &request, &schedule)?,
            None if request.first_step() > 0 => return Err(RequestError::StartNeedsOriginal),
            None => {}
        }
        session.check_inputs()?;
        Ok(Self { request, schedule, class, original })
    }
}

impl<'a, N: Noise, W: WeightSource> Run<'a, N, W> {
    /// Before the first slice.
    pub(super) fn new(session: Session<'a, W>, start: Start<'a>, noise: N) -> Self {
        let Start { request, schedule, class, original } = start;
        let model = session.model;
        // Resolving the request has found the tensor.
        let sample = model.tensor(model.header().sample).unwrap_or(Tensor::zeroed());
        let slices_of = |range: Range<u16>| -> u32 {
            let ops = range.filter_map(|index| model.op(index));
            ops.fold(0, |sum, op| sum.saturating_add(ops::slices(model, &op)))
        };
        let [once, network] = [0..model.ops_once(), model.ops_once()..model.ops()].map(slices_of);
        let path = Path::new(&request, schedule.steps, original.as_ref().and_then(|original| original.resampling));
        let position = path.start();
        let progress = Progress { step: position.step, steps: position.step, slice: 0, slices: 0 };
        let (guidance, stage) = (Guidance::NONE, Stage::Noise { chunk: 0 });
        let (spread, search) = (Default::default(), Default::default());
        let mut run = Self {
            session,
            noise,
            schedule,
            class,
            request,
            guidance,
            spread,
            search,
            sample,
            original,
            network,
            path,
            position,
            stage,
            progress,
        };
        let [calls, slices] = run.left(Next::Step(position));
        run.progress.steps = run.progress.steps.saturating_add(calls);
        run.progress.slices = slices.saturating_add(run.chunks()).saturating_add(once);
        debug!("waft: {} steps", run.progress.steps);
        run
    }

    /// The session, ready for the next picture; one that is not complete is abandoned.
    pub fn into_session(self) -> Session<'a, W> {
        self.session
    }

    /// Does a bounded slice of work: part of one row of one layer, or some elements of the sample; or reads a piece of
    /// streamed weights. `None` when the picture is complete.
    ///
    /// # Errors
    /// [`RunError::NoiseExhausted`] if the caller's noise ends; [`RunError::Corrupt`] if the model's bytes changed;
    /// [`RunError::WeightsUnreadable`] and [`RunError::WeightsDamaged`] for streamed weights, after which another step
    /// tries again.
    pub fn step(&mut self) -> Result<Option<Progress>, RunError> {
        with_precision!(
            self.session.model.precision(),
            P => self.step_in::<P>(),
            else Err(RunError::Corrupt { op: 0 })
        )
    }

    /// [`step`](Self::step) in the model's precision.
    fn step_in<P: Arithmetic>(&mut self) -> Result<Option<Progress>, RunError> {
        self.stage = match self.stage {
            Stage::Noise { chunk } => {
                self.draw::<P::Sample>(chunk)?;
                if self.is_last(chunk) { self.begin_step(0) } else { Stage::Noise { chunk: chunk + 1 } }
            }
            Stage::Network { first_of_two, mut walk } => {
                let class = if first_of_two { self.session.model.header().unconditional_class } else { self.class };
                let context =
                    Context { model: self.session.model, schedule: self.schedule, step: self.position.step, class };
                let Session { arena, weights, acceleration, .. } = &mut self.session;
                let advance = walk.advance::<P, W>(&context, arena, weights, acceleration);
                // Weights that came before an error are kept.
                self.stage = Stage::Network { first_of_two, walk };
                let Advance::Works { slices } = advance? else { return Ok(Some(self.progress)) };
                // One of them is counted below.
                self.progress.slice = self.progress.slice.saturating_add(slices.saturating_sub(1));
                if walk.op < self.session.model.ops() {
                    self.stage
                } else if first_of_two {
                    self.keep_unconditional()?;
                    Stage::Network { first_of_two: false, walk: Walk::at(self.session.model.ops_once()) }
                } else {
                    self.add_gradient::<P::Sample>()?;
                    self.after_network()
                }
            }
            Stage::Measure { chunk } => {
                self.measure::<P::Sample>(chunk)?;
                if self.is_last(chunk) { self.begin_update() } else { Stage::Measure { chunk: chunk + 1 } }
            }
            Stage::Search { chunk } => {
                self.count_magnitudes::<P::Sample>(chunk)?;
                match self.search.first() {
                    _ if !self.is_last(chunk) => Stage::Search { chunk: chunk + 1 },
                    Some(search) if !search.is_complete() => Stage::Search { chunk: 0 },
                    _ => Stage::Update { chunk: 0 },
                }
            }
            Stage::Update { chunk } => {
                self.update::<P::Sample>(chunk)?;
                if !self.is_last(chunk) {
                    Stage::Update { chunk: chunk + 1 }
                } else {
                    self.progress.step = self.progress.step.saturating_add(1);
                    debug!("waft: step {} of {}", self.progress.step, self.progress.steps);
                    match self.path.next(self.position) {
                        Next::Step(position) => {
                            self.position = position;
                            self.begin_step(self.session.model.ops_once())
                        }
                        Next::Back(_) => Stage::Back { chunk: 0 },
                        Next::End => Stage::Sampled,
                    }
                }
            }
            Stage::Back { chunk } => {
                let Next::Back(to) = self.path.next(self.position) else {
                    return Err(RunError::Corrupt { op: self.session.model.ops() });
                };
                self.go_back::<P::Sample>(chunk, to)?;
                if self.is_last(chunk) {
                    self.position = to;
                    self.begin_step(self.session.model.ops_once())
                } else {
                    Stage::Back { chunk: chunk + 1 }
                }
            }
            Stage::Sampled | Stage::Converted | Stage::Acted => return Ok(None),
        };
        self.progress.slice = self.progress.slice.saturating_add(1);
        Ok(Some(self.progress))
    }

    /// How far the run is.
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The sample: noise at first, the picture at the end, −1 for black and 1 for white, values in (row, column, channel)
    /// order and in the unit of [`Samples`]. `None` once [`image`](Self::image) or [`actions`](Self::actions) has replaced it.
    pub fn sample(&self) -> Option<Samples<'_>> {
        match self.stage {
            Stage::Noise { .. } | Stage::Network { .. } | Stage::Update { .. } | Stage::Sampled => {}
            _ => return None,
        }
        self.session.samples(self.session.model.header().sample)
    }

    /// The picture, once complete: bytes in (row, column, channel) order. The first call turns the sample into bytes, in
    /// place.
    pub fn image(&mut self) -> Option<Image<'_>> {
        let bytes = self.session.arena.get_mut(self.sample.range())?;
        if matches!(self.stage, Stage::Sampled) {
            with_precision!(
                self.session.model.precision(),
                P => to_bytes::<<P as Arithmetic>::Sample>(bytes, self.sample.len())?,
                else return None
            );
            self.stage = Stage::Converted;
        }
        if !matches!(self.stage, Stage::Converted) {
            return None;
        }
        let data = bytes.get(..self.sample.len())?;
        Some(Image { shape: self.session.model.image_shape(), data })
    }

    /// The actions of a policy, once complete: (step, action) order, in the units of the data that it was trained on and of
    /// [`Samples`]. The first call replaces the sample, in place. `None` for a model that draws pictures, see
    /// [`Model::has_actions`](crate::Model::has_actions).
    pub fn actions(&mut self) -> Option<Samples<'_>> {
        let model = self.session.model;
        if matches!(self.stage, Stage::Sampled) && model.has_actions() {
            let bytes = self.session.arena.get_mut(self.sample.range())?;
            with_precision!(
                model.precision(),
                P => to_actions::<<P as Arithmetic>::Sample>(model, self.sample.channels.into(), view_mut(bytes)?),
                else return None
            );
            self.stage = Stage::Acted;
        }
        if !matches!(self.stage, Stage::Acted) {
            return None;
        }
        self.session.samples(model.header().sample)
    }

    /// The operation that the next [`step`](Self::step) starts, if it starts one.
    #[doc(hidden)]
    pub fn starts(&self) -> Option<u16> {
        match self.stage {
            Stage::Network { walk, .. } if walk.slice == 0 => Some(walk.op),
            _ => None,
        }
    }

    /// The operation that the next [`step`](Self::step) works on, if it is one of the network's.
    #[doc(hidden)]
    pub fn operation(&self) -> Option<u16> {
        match self.stage {
            Stage::Network { walk, .. } => Some(walk.op),
            _ => None,
        }
    }

    /// A tensor's bytes as the plan stands now, for calibration and parity tests.
    #[doc(hidden)]
    pub fn tensor_bytes(&self, id: u16) -> Option<&[u8]> {
        self.session.tensor_bytes(id)
    }

    /// The whole arena, for tests that poison what the plan calls dead.
    #[doc(hidden)]
    pub fn arena_mut(&mut self) -> &mut [u8] {
        self.session.arena
    }

    /// `first`: the operation that the network begins with.
    fn begin_step(&mut self, first: u16) -> Stage {
        self.guidance = self.request.guidance_at(self.position.step);
        let first_of_two = self.guidance != Guidance::NONE && !self.has_gradient();
        Stage::Network { first_of_two, walk: Walk::at(first) }
    }

    /// Whether a classifier guides: one network call gives both outputs.
    pub(super) fn has_gradient(&self) -> bool {
        cfg!(feature = "classifier") && self.session.model.header().gradient != 0
    }

    /// What follows the network's outputs.
    fn after_network(&mut self) -> Stage {
        if self.rescales() && self.guidance != Guidance::NONE {
            self.spread = Default::default();
            return Stage::Measure { chunk: 0 };
        }
        self.begin_update()
    }

    /// What follows the network's output.
    fn begin_update(&mut self) -> Stage {
        self.search = Default::default();
        if self.thresholds() { Stage::Search { chunk: 0 } } else { Stage::Update { chunk: 0 } }
    }

    pub(super) fn is_last(&self, chunk: usize) -> bool {
        (chunk + 1) * CHUNK >= self.sample.len()
    }

    pub(super) fn elements(&self, chunk: usize) -> Range<usize> {
        chunk * CHUNK..((chunk + 1) * CHUNK).min(self.sample.len())
    }

    /// Fills part of the sample with draw 0.
    fn draw<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let sample = self.session.arena.get_mut(self.sample.range()).and_then(view_mut::<S>);
        let part = sample.and_then(|sample| sample.get_mut(elements.clone())).ok_or(RunError::Corrupt { op: 0 })?;
        let first = self.request.first_step();
        for (x, index) in part.iter_mut().zip(elements) {
            let value = self.noise.sample(0, index as u32).ok_or(RunError::NoiseExhausted { draw: 0 })?;
            let z = S::from_noise(value);
            *x = match self.original {
                // From the first step on a mask alone keeps a part: diffusers starts from noise then.
                Some(original) if cfg!(feature = "original") && (first > 0 || original.mask.is_none()) => {
                    noised(self.session.model, &self.schedule, first, &original, index, z)?
                }
                _ => z.started(self.schedule.start),
            };
        }
        Ok(())
    }

    /// Keeps the output as the unconditional one, and adds the classifier's gradient, which makes it the conditional one: by
    /// Bayes' rule, `∇ log p(x | y) = ∇ log p(x) + ∇ log p(y | x)`.
    fn add_gradient<S: Sample>(&mut self) -> Result<(), RunError> {
        if !self.has_gradient() {
            return Ok(());
        }
        self.keep_unconditional()?;
        let corrupt = RunError::Corrupt { op: self.session.model.ops() };
        let header = self.session.model.header();
        let place = |id: u16| self.session.model.tensor(id).map(|tensor| tensor.range()).ok_or(corrupt);
        let places = [place(header.prediction)?, place(header.gradient)?];
        let [prediction, gradient] = self.session.arena.get_disjoint_mut(places).map_err(|_| corrupt)?;
        let [prediction, gradient] = [prediction, gradient].map(view_mut::<S>);
        for (m, gradient) in prediction.ok_or(corrupt)?.iter_mut().zip(gradient.ok_or(corrupt)?) {
            *m = m.plus(*gradient);
        }
        Ok(())
    }

    /// Keeps the unconditional output while the conditional one is computed.
    fn keep_unconditional(&mut self) -> Result<(), RunError> {
        let corrupt = RunError::Corrupt { op: self.session.model.ops() };
        let header = self.session.model.header();
        let (Some(from), Some(to)) =
            (self.session.model.tensor(header.prediction), self.session.model.tensor(header.unconditional))
        else {
            return Err(corrupt);
        };
        let [from, to] = self.session.arena.get_disjoint_mut([from.range(), to.range()]).map_err(|_| corrupt)?;
        for (to, &from) in to.iter_mut().zip(&*from) {
            *to = from;
        }
        Ok(())
    }
}
