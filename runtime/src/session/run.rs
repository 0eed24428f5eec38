//! One picture, from its noise to its bytes.

use core::ops::Range;

use bytemuck::Zeroable;

use super::walk::{Advance, Walk};
use super::{Image, Original, Request, Samples, Session};
use crate::error::{RequestError, RunError};
use crate::format::{ACTION_BYTES, Level, STEP_BYTES, Schedule, Tensor};
use crate::log::debug;
use crate::model::Model;
use crate::noise::Noise;
use crate::ops::{self, Context, view, view_mut};
use crate::precision::{Arithmetic, with_precision};
use crate::sampler::{Guidance, Sample, Step, Terms};
use crate::weights::{Resident, WeightSource};

/// Elements of the sample that one slice draws, updates or converts.
const CHUNK: usize = 512;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress {
    /// Diffusion steps that are complete.
    pub step: u32,
    /// Diffusion steps in all.
    pub steps: u32,
    /// Slices of work that are complete.
    pub slice: u32,
    /// Slices of work in all.
    pub slices: u32,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Drawing the initial sample.
    Noise { chunk: usize },
    /// A network call; the first of two is the unconditional one.
    Network { first_of_two: bool, walk: Walk },
    /// Moving the sample to the next step.
    Update { chunk: usize },
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
    session: Session<'a, W>,
    noise: N,
    schedule: Schedule,
    class: u16,
    guidance: Guidance,
    sample: Tensor,
    original: Option<Original<'a>>,
    first: u32,
    stage: Stage,
    progress: Progress,
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
        let (guidance, first) = (request.guidance, request.first_step());
        let model = session.model;
        // Resolving the request has found the tensor.
        let sample = model.tensor(model.header().sample).unwrap_or(Tensor::zeroed());
        let chunks = sample.len().div_ceil(CHUNK) as u32;
        let slices_of = |range: Range<u16>| -> u32 {
            let ops = range.filter_map(|index| model.op(index));
            ops.fold(0, |sum, op| sum.saturating_add(ops::slices(model, &op)))
        };
        let network = slices_of(model.ops_once()..model.ops());
        let passes = if guidance == Guidance::NONE { 1 } else { 2 };
        let slices = network.saturating_mul(passes).saturating_add(chunks).saturating_mul(schedule.steps - first);
        let slices = slices.saturating_add(slices_of(0..model.ops_once()));
        debug!("waft: {} steps of {} calls", schedule.steps, passes);
        let progress = Progress { step: first, steps: schedule.steps, slice: 0, slices: slices.saturating_add(chunks) };
        let stage = Stage::Noise { chunk: 0 };
        Self { session, noise, schedule, class, guidance, sample, original, first, stage, progress }
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
                if self.is_last(chunk) { self.begin_step() } else { Stage::Noise { chunk: chunk + 1 } }
            }
            Stage::Network { first_of_two, mut walk } => {
                let class = if first_of_two { self.session.model.header().unconditional_class } else { self.class };
                let context =
                    Context { model: self.session.model, schedule: self.schedule, step: self.progress.step, class };
                let advance = walk.advance::<P, W>(&context, self.session.arena, &mut self.session.weights);
                // Weights that came before an error are kept.
                self.stage = Stage::Network { first_of_two, walk };
                match advance? {
                    Advance::Waits => return Ok(Some(self.progress)),
                    Advance::Works => self.stage,
                    Advance::Completes if first_of_two => {
                        self.keep_unconditional()?;
                        Stage::Network { first_of_two: false, walk: Walk::at(self.session.model.ops_once()) }
                    }
                    Advance::Completes => Stage::Update { chunk: 0 },
                }
            }
            Stage::Update { chunk } => {
                self.update::<P::Sample>(chunk)?;
                if !self.is_last(chunk) {
                    Stage::Update { chunk: chunk + 1 }
                } else {
                    self.progress.step += 1;
                    debug!("waft: step {} of {}", self.progress.step, self.progress.steps);
                    if self.progress.step < self.progress.steps { self.begin_step() } else { Stage::Sampled }
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
    /// [`Model::has_actions`].
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

    fn begin_step(&self) -> Stage {
        // What depends on the observation alone is there after the first step.
        let first = if self.progress.step == self.first { 0 } else { self.session.model.ops_once() };
        Stage::Network { first_of_two: self.guidance != Guidance::NONE, walk: Walk::at(first) }
    }

    fn is_last(&self, chunk: usize) -> bool {
        (chunk + 1) * CHUNK >= self.sample.len()
    }

    fn elements(&self, chunk: usize) -> Range<usize> {
        chunk * CHUNK..((chunk + 1) * CHUNK).min(self.sample.len())
    }

    /// Fills part of the sample with draw 0.
    fn draw<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let sample = self.session.arena.get_mut(self.sample.range()).and_then(view_mut::<S>);
        let part = sample.and_then(|sample| sample.get_mut(elements.clone())).ok_or(RunError::Corrupt { op: 0 })?;
        for (x, index) in part.iter_mut().zip(elements) {
            let value = self.noise.sample(0, index as u32).ok_or(RunError::NoiseExhausted { draw: 0 })?;
            let z = S::from_noise(value);
            *x = match self.original {
                // From the first step on a mask alone keeps a part: diffusers starts from noise then.
                Some(original) if cfg!(feature = "original") && (self.first > 0 || original.mask.is_none()) => {
                    noised(self.session.model, &self.schedule, self.first, &original, index, z)?
                }
                _ => z.started(self.schedule.start),
            };
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

    /// Moves part of the sample to the next step.
    fn update<S: Sample>(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let Session { model, arena, .. } = &mut self.session;
        let at = self.schedule.rows as usize + self.progress.step as usize * STEP_BYTES;
        let step = S::Step::read(model.bytes(), at);
        let draw = self.progress.step + 1;
        let next_step = draw;
        let kept = self.original.filter(|original| cfg!(feature = "original") && original.mask.is_some());
        let guided = self.guidance != Guidance::NONE;
        let Update { sample, prediction, unconditional, history } =
            Update::<S>::bind(model, arena, elements.clone(), guided).ok_or(RunError::Corrupt { op: model.ops() })?;
        let mut unconditional = unconditional.iter();
        let is_later_start = cfg!(feature = "original") && self.first > 0 && self.progress.step == self.first;
        let [newer, older] = history;
        let (mut newer, mut older) = (newer.iter_mut(), older.iter_mut());
        for ((x, &prediction), index) in sample.iter_mut().zip(prediction).zip(elements) {
            let m = match unconditional.next() {
                Some(&unconditional) => S::guide(unconditional, prediction, self.guidance),
                None => prediction,
            };
            let z = if step.has_noise() {
                self.noise.sample(draw, index as u32).ok_or(RunError::NoiseExhausted { draw })?
            } else {
                0
            };
            let terms = Terms { x0: step.clean(*x, m), x: *x, m, z: S::from_noise(z) };
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

/// An element of a picture with noise, as it is before a step.
fn noised<S: Sample>(
    model: &Model<'_>,
    schedule: &Schedule,
    step: u32,
    original: &Original<'_>,
    index: usize,
    z: S,
) -> Result<S, RunError> {
    let byte = original.byte(index).ok_or(RunError::Corrupt { op: model.ops() })?;
    let level = Level::read(model.bytes(), schedule.levels as usize + step as usize * size_of::<Level>());
    Ok(S::from_byte(byte).noised(z, level))
}

/// What a part of the sampler's step reads and writes.
struct Update<'a, S> {
    sample: &'a mut [S],
    prediction: &'a [S],
    /// Empty without guidance.
    unconditional: &'a [S],
    /// Clean samples of the step before and of the one before that; empty if the sampler does not look back so far.
    history: [&'a mut [S]; 2],
}

impl<'a, S: Sample> Update<'a, S> {
    fn bind(model: &Model<'_>, arena: &'a mut [u8], elements: Range<usize>, guided: bool) -> Option<Self> {
        let header = model.header();
        let place = |id| model.tensor(id).map(|tensor| tensor.range());
        let unconditional = if guided { place(header.unconditional)? } else { 0..0 };
        let [newer, older] =
            header.history.map(|id| if cfg!(feature = "history") { place(id).unwrap_or(0..0) } else { 0..0 });
        let [sample, prediction, unconditional, newer, older] = arena
            .get_disjoint_mut([place(header.sample)?, place(header.prediction)?, unconditional, newer, older])
            .ok()?;
        let kept = |bytes: &'a mut [u8]| {
            let elements = if bytes.is_empty() { 0..0 } else { elements.clone() };
            view_mut(bytes)?.get_mut(elements)
        };
        Some(Self {
            sample: view_mut(sample)?.get_mut(elements.clone())?,
            prediction: view(prediction)?.get(elements.clone())?,
            unconditional: view(unconditional)?.get(if guided { elements.clone() } else { 0..0 })?,
            history: [kept(newer)?, kept(older)?],
        })
    }
}

/// Turns a sample, whose channels are actions, into the units of these.
fn to_actions<S: Sample>(model: &Model<'_>, channels: usize, sample: &mut [S]) {
    for actions in sample.chunks_exact_mut(channels.max(1)) {
        for (channel, action) in actions.iter_mut().enumerate() {
            let at = model.header().actions as usize + channel * ACTION_BYTES;
            *action = action.to_action(model.bytes(), at);
        }
    }
}

/// Turns the first `len` elements into bytes, in place.
fn to_bytes<S: Sample>(bytes: &mut [u8], len: usize) -> Option<()> {
    for index in 0..len {
        let element: S =
            bytemuck::try_pod_read_unaligned(bytes.get(index * size_of::<S>()..)?.get(..size_of::<S>())?).ok()?;
        // Byte `index` is at or before the element it comes from.
        *bytes.get_mut(index)? = element.to_byte();
    }
    Some(())
}
