//! Running a model: one session, one picture at a time, in bounded steps.

use bytemuck::Pod;

use crate::error::{RequestError, RunError, SessionError};
use crate::format::{ALIGN, FixedStep, FloatStep, NONE, Op, Precision, STEP_BYTES, Schedule, Tensor};
use crate::log::debug;
use crate::model::Model;
use crate::noise::{Noise, Seed};
use crate::ops::{self, Context, view, view_mut};
use crate::sampler::{Guidance, byte_fixed, guide_fixed};
#[cfg(any(feature = "f16", feature = "f32"))]
use crate::sampler::{byte_float, guide_float, to_float};
use crate::weights::{Loading, Resident, WeightSource};

/// Elements of the sample that one slice draws, updates or converts.
const CHUNK: usize = 512;

/// A model, the memory it runs in, and where its weights come from if the model file does not carry them.
#[derive(Debug)]
pub struct Session<'a, W = Resident> {
    model: &'a Model<'a>,
    arena: &'a mut [u8],
    weights: W,
}

/// What to draw. Starts from seed 0, no class, the first step list of the model, guidance 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Request {
    class: Option<u16>,
    seed: u64,
    steps: Option<u32>,
    guidance: Guidance,
}

impl Request {
    /// Seed 0, no class, the first step list of the model, guidance 1.
    pub const fn new() -> Self {
        Self { class: None, seed: 0, steps: None, guidance: Guidance::NONE }
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

    /// Strengthens the class; other than 1 it costs two network calls a step.
    pub const fn guidance(self, guidance: Guidance) -> Self {
        Self { guidance, ..self }
    }

    /// The guidance asked for.
    pub const fn asked_guidance(&self) -> Guidance {
        self.guidance
    }

    /// The model's step list of the length asked for.
    #[doc(hidden)]
    pub fn schedule(&self, model: &Model<'_>) -> Result<Schedule, RequestError> {
        (0..model.schedules())
            .filter_map(|index| model.schedule(index))
            .find(|schedule| self.steps.is_none_or(|steps| schedule.steps == steps))
            .ok_or(RequestError::Steps { asked: self.steps.unwrap_or(0) })
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
        Ok((schedule, class))
    }
}

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

/// Values of a sample or a model output, in the precision's own type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Samples<'a> {
    /// `i8` precision: 20 fractional bits.
    Fixed(&'a [i32]),
    /// Float precisions.
    Float(&'a [f32]),
}

/// Values to write, in the precision's own type.
#[derive(Debug, PartialEq)]
pub enum SamplesMut<'a> {
    /// `i8` precision: 20 fractional bits.
    Fixed(&'a mut [i32]),
    /// Float precisions.
    Float(&'a mut [f32]),
}

/// A picture: bytes in (row, column, channel) order, 0 for −1, 255 for 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    shape: [usize; 3],
    data: &'a [u8],
}

impl<'a> Image<'a> {
    /// Rows.
    pub const fn height(&self) -> usize {
        self.shape[0]
    }

    /// Columns.
    pub const fn width(&self) -> usize {
        self.shape[1]
    }

    /// Channels of a pixel.
    pub const fn channels(&self) -> usize {
        self.shape[2]
    }

    /// The bytes, row by row.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
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
        if !ops::has_precision(model.precision()) {
            return Err(SessionError::PrecisionDisabled { precision: model.precision() });
        }
        let mut ops = (0..model.ops()).filter_map(|index| model.op(index));
        if let Some(feature) = ops.find_map(|op| ops::missing_feature(&op)) {
            return Err(SessionError::OperationDisabled { feature });
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
        Ok(Self { model, arena, weights })
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
    pub fn sample(&mut self, request: Request) -> Result<Run<'_, 'a, Seed, W>, RequestError> {
        self.sample_with(request, Seed::new(request.seed))
    }

    /// Starts a picture from the caller's noise; the request's seed is ignored.
    ///
    /// # Errors
    /// If the model cannot draw what is asked for.
    pub fn sample_with<N: Noise>(&mut self, request: Request, noise: N) -> Result<Run<'_, 'a, N, W>, RequestError> {
        let model = self.model;
        let (schedule, class) = request.resolve(model)?;
        let sample = model.tensor(model.header().sample).ok_or(RequestError::NotASampler)?;
        let guided = request.guidance != Guidance::NONE;
        let chunks = sample.len().div_ceil(CHUNK) as u32;
        let network: u32 = (0..model.ops())
            .filter_map(|index| model.op(index))
            .fold(0, |sum, op| sum.saturating_add(ops::slices(model, &op)));
        let passes = if guided { 2 } else { 1 };
        let slices = network.saturating_mul(passes).saturating_add(chunks).saturating_mul(schedule.steps);
        debug!("waft: {} steps of {} calls", schedule.steps, passes);
        Ok(Run {
            session: self,
            noise,
            schedule,
            class,
            guidance: request.guidance,
            sample,
            stage: Stage::Noise { chunk: 0 },
            progress: Progress { step: 0, steps: schedule.steps, slice: 0, slices: slices.saturating_add(chunks) },
        })
    }

    /// Starts one network call at step `step` of the model's step list number `schedule`, on the sample that
    /// [`input`](Self::input) holds: for samplers of your own.
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
        let class = check_class(self.model, class)?;
        Ok(Prediction { session: self, walk: Walk::default(), schedule, step, class })
    }

    /// The sample that the network reads, to be written before [`predict`](Self::predict).
    pub fn input(&mut self) -> Option<SamplesMut<'_>> {
        let tensor = self.model.tensor(self.model.header().sample)?;
        let bytes = self.arena.get_mut(tensor.range())?;
        match self.model.precision() {
            Precision::I8 => view_mut(bytes).map(SamplesMut::Fixed),
            Precision::F16 | Precision::F32 => view_mut(bytes).map(SamplesMut::Float),
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
        let mut walk = Walk { op: index, ..Walk::default() };
        while walk.op == index {
            walk.advance(&context, self.arena, &mut self.weights)?;
        }
        Ok(())
    }

    fn samples(&self, id: u16) -> Option<Samples<'_>> {
        let bytes = self.tensor_bytes(id)?;
        match self.model.precision() {
            Precision::I8 => view(bytes).map(Samples::Fixed),
            Precision::F16 | Precision::F32 => view(bytes).map(Samples::Float),
        }
    }
}

/// The class to draw: a model that knows "no class" can draw without being told one.
fn check_class(model: &Model<'_>, class: Option<u16>) -> Result<u16, RequestError> {
    let classes = model.classes();
    match class {
        Some(_) if classes == 0 => Err(RequestError::Unconditional),
        Some(asked) if asked >= classes => Err(RequestError::Class { asked, classes }),
        Some(class) => Ok(class),
        None if classes > 0 => model.unconditional_class().ok_or(RequestError::ClassMissing),
        None => Ok(NONE),
    }
}

/// Position in the operations of one network call.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    op: u16,
    slice: u32,
    loading: Loading,
}

/// What an advance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advance {
    /// Weights have not arrived yet.
    Waits,
    /// A slice was executed.
    Works,
    /// The last slice of the call was executed.
    Completes,
}

impl Walk {
    /// Executes one slice, or brings its weights nearer.
    fn advance<W: WeightSource>(
        &mut self,
        context: &Context<'_>,
        arena: &mut [u8],
        weights: &mut W,
    ) -> Result<Advance, RunError> {
        let corrupt = RunError::Corrupt { op: self.op };
        let op: Op = context.model.op(self.op).ok_or(corrupt)?;
        if W::STREAMS
            && let Op::Conv2d(op) = &op
            && op.window != NONE
            && !self.loading.advance(context, self.op, op, self.slice, arena, weights)?
        {
            return Ok(Advance::Waits);
        }
        ops::run(context, &op, self.slice, arena).ok_or(corrupt)?;
        self.slice += 1;
        if self.slice >= ops::slices(context.model, &op) {
            *self = Walk { op: self.op + 1, ..Walk::default() };
        }
        Ok(if self.op >= context.model.ops() { Advance::Completes } else { Advance::Works })
    }
}

/// One network call in progress. Dropping it abandons the call.
#[derive(Debug)]
pub struct Prediction<'s, 'a, W = Resident> {
    session: &'s mut Session<'a, W>,
    walk: Walk,
    schedule: Schedule,
    step: u32,
    class: u16,
}

impl<W: WeightSource> Prediction<'_, '_, W> {
    /// Does a bounded slice of work; `false` when there was none left.
    ///
    /// # Errors
    /// [`RunError::Corrupt`] if the model's bytes changed.
    pub fn step(&mut self) -> Result<bool, RunError> {
        if self.walk.op >= self.session.model.ops() {
            return Ok(false);
        }
        let context =
            Context { model: self.session.model, schedule: self.schedule, step: self.step, class: self.class };
        self.walk.advance(&context, self.session.arena, &mut self.session.weights)?;
        Ok(true)
    }

    /// The operation that the next [`step`](Self::step) starts, if it starts one.
    #[doc(hidden)]
    pub fn starts(&self) -> Option<u16> {
        (self.walk.slice == 0 && self.walk.op < self.session.model.ops()).then_some(self.walk.op)
    }

    /// A tensor's bytes as the plan stands now, for calibration and parity tests.
    #[doc(hidden)]
    pub fn tensor_bytes(&self, id: u16) -> Option<&[u8]> {
        self.session.tensor_bytes(id)
    }

    /// The model output, once the call is complete.
    pub fn output(&self) -> Option<Samples<'_>> {
        if self.walk.op < self.session.model.ops() {
            return None;
        }
        self.session.samples(self.session.model.header().prediction)
    }
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
}

/// A picture in progress. Dropping it abandons the picture; the session is ready for the next.
#[derive(Debug)]
pub struct Run<'s, 'a, N, W = Resident> {
    session: &'s mut Session<'a, W>,
    noise: N,
    schedule: Schedule,
    class: u16,
    guidance: Guidance,
    sample: Tensor,
    stage: Stage,
    progress: Progress,
}

impl<N: Noise, W: WeightSource> Run<'_, '_, N, W> {
    /// Does a bounded slice of work: part of one row of one layer, or some elements of the sample; or reads a piece of
    /// streamed weights. `None` when the picture is complete.
    ///
    /// # Errors
    /// [`RunError::NoiseExhausted`] if the caller's noise ends; [`RunError::Corrupt`] if the model's bytes changed;
    /// [`RunError::WeightsUnreadable`] and [`RunError::WeightsDamaged`] for streamed weights, after which another step
    /// tries again.
    pub fn step(&mut self) -> Result<Option<Progress>, RunError> {
        self.stage = match self.stage {
            Stage::Noise { chunk } => {
                self.draw(chunk)?;
                if self.is_last(chunk) { self.begin_step() } else { Stage::Noise { chunk: chunk + 1 } }
            }
            Stage::Network { first_of_two, mut walk } => {
                let class = if first_of_two { self.session.model.header().unconditional_class } else { self.class };
                let context =
                    Context { model: self.session.model, schedule: self.schedule, step: self.progress.step, class };
                let advance = walk.advance(&context, self.session.arena, &mut self.session.weights);
                // Weights that came before an error are kept.
                self.stage = Stage::Network { first_of_two, walk };
                match advance? {
                    Advance::Waits => return Ok(Some(self.progress)),
                    Advance::Works => self.stage,
                    Advance::Completes if first_of_two => {
                        self.keep_unconditional()?;
                        Stage::Network { first_of_two: false, walk: Walk::default() }
                    }
                    Advance::Completes => Stage::Update { chunk: 0 },
                }
            }
            Stage::Update { chunk } => {
                self.update(chunk)?;
                if !self.is_last(chunk) {
                    Stage::Update { chunk: chunk + 1 }
                } else {
                    self.progress.step += 1;
                    debug!("waft: step {} of {}", self.progress.step, self.progress.steps);
                    if self.progress.step < self.progress.steps { self.begin_step() } else { Stage::Sampled }
                }
            }
            Stage::Sampled | Stage::Converted => return Ok(None),
        };
        self.progress.slice = self.progress.slice.saturating_add(1);
        Ok(Some(self.progress))
    }

    /// How far the run is.
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The sample: noise at first, the picture at the end. `None` once [`image`](Self::image) has replaced it.
    pub fn sample(&self) -> Option<Samples<'_>> {
        if matches!(self.stage, Stage::Converted) {
            return None;
        }
        self.session.samples(self.session.model.header().sample)
    }

    /// The picture, once complete. The first call turns the sample into bytes, in place.
    pub fn image(&mut self) -> Option<Image<'_>> {
        let bytes = self.session.arena.get_mut(self.sample.range())?;
        if matches!(self.stage, Stage::Sampled) {
            let fixed = self.session.model.precision() == Precision::I8;
            for index in 0..self.sample.len() {
                let word: [u8; 4] = *bytes.get(4 * index..)?.first_chunk()?;
                // Byte `index` is at or before the word it comes from.
                *bytes.get_mut(index)? = if fixed { byte_fixed(i32::from_le_bytes(word)) } else { byte_word(word) };
            }
            self.stage = Stage::Converted;
        }
        if !matches!(self.stage, Stage::Converted) {
            return None;
        }
        let data = bytes.get(..self.sample.len())?;
        Some(Image { shape: self.session.model.image_shape(), data })
    }

    /// The operation that the next [`step`](Self::step) starts, if it starts one.
    #[doc(hidden)]
    pub fn starts(&self) -> Option<u16> {
        match self.stage {
            Stage::Network { walk, .. } if walk.slice == 0 => Some(walk.op),
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
        Stage::Network { first_of_two: self.guidance != Guidance::NONE, walk: Walk::default() }
    }

    fn is_last(&self, chunk: usize) -> bool {
        (chunk + 1) * CHUNK >= self.sample.len()
    }

    fn elements(&self, chunk: usize) -> core::ops::Range<usize> {
        chunk * CHUNK..((chunk + 1) * CHUNK).min(self.sample.len())
    }

    /// Fills part of the sample with draw 0.
    fn draw(&mut self, chunk: usize) -> Result<(), RunError> {
        let elements = self.elements(chunk);
        let corrupt = RunError::Corrupt { op: 0 };
        let fixed = self.session.model.precision() == Precision::I8;
        let bytes = self.session.arena.get_mut(self.sample.range()).ok_or(corrupt)?;
        let words: &mut [u32] = view_mut(bytes).ok_or(corrupt)?;
        for index in elements {
            let value = self.noise.sample(0, index as u32).ok_or(RunError::NoiseExhausted { draw: 0 })?;
            *words.get_mut(index).ok_or(corrupt)? = if fixed { value as u32 } else { float_word(value) };
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
    fn update(&mut self, chunk: usize) -> Result<(), RunError> {
        let corrupt = RunError::Corrupt { op: self.session.model.ops() };
        let step = self.progress.step;
        let at = self.schedule.rows as usize + step as usize * STEP_BYTES;
        let bytes = self.session.model.bytes();
        match self.session.model.precision() {
            Precision::I8 => {
                let coefficients = FixedStep::read(bytes, at);
                let noisy = coefficients.has_noise();
                self.update_elements::<i32>(chunk, corrupt, noisy, guide_fixed, |x, m, z| coefficients.apply(x, m, z))
            }
            #[cfg(any(feature = "f16", feature = "f32"))]
            Precision::F16 | Precision::F32 => {
                let coefficients = FloatStep::read(bytes, at);
                let noisy = coefficients.has_noise();
                self.update_elements::<f32>(chunk, corrupt, noisy, guide_float, |x, m, z| {
                    coefficients.apply(x, m, f32::from_bits(float_word(z)))
                })
            }
            #[cfg(not(any(feature = "f16", feature = "f32")))]
            Precision::F16 | Precision::F32 => Err(corrupt),
        }
    }

    fn update_elements<T: Pod>(
        &mut self,
        chunk: usize,
        corrupt: RunError,
        noisy: bool,
        guide: impl Fn(T, T, Guidance) -> T,
        apply: impl Fn(T, T, i32) -> T,
    ) -> Result<(), RunError> {
        let draw = self.progress.step + 1;
        let elements = self.elements(chunk);
        let model = self.session.model;
        let header = model.header();
        let guided = self.guidance != Guidance::NONE;
        let prediction = model.tensor(header.prediction).ok_or(corrupt)?.range();
        let unconditional = model.tensor(header.unconditional).filter(|_| guided).map_or(0..0, |t| t.range());
        let [sample, prediction, unconditional] = self
            .session
            .arena
            .get_disjoint_mut([self.sample.range(), prediction, unconditional])
            .map_err(|_| corrupt)?;
        let sample: &mut [T] = view_mut(sample).ok_or(corrupt)?;
        let prediction: &[T] = view(prediction).ok_or(corrupt)?;
        let unconditional: &[T] = view(unconditional).ok_or(corrupt)?;
        for index in elements {
            let x = sample.get_mut(index).ok_or(corrupt)?;
            let mut m = *prediction.get(index).ok_or(corrupt)?;
            if guided {
                m = guide(*unconditional.get(index).ok_or(corrupt)?, m, self.guidance);
            }
            let z = if noisy {
                self.noise.sample(draw, index as u32).ok_or(RunError::NoiseExhausted { draw })?
            } else {
                0
            };
            *x = apply(*x, m, z);
        }
        Ok(())
    }
}

/// Bits of a fixed-point value as a float.
#[cfg(any(feature = "f16", feature = "f32"))]
fn float_word(value: i32) -> u32 {
    to_float(value).to_bits()
}

/// Without a float precision no session of one exists.
#[cfg(not(any(feature = "f16", feature = "f32")))]
fn float_word(value: i32) -> u32 {
    value as u32
}

/// The byte of a float's bits.
#[cfg(any(feature = "f16", feature = "f32"))]
fn byte_word(word: [u8; 4]) -> u8 {
    byte_float(f32::from_le_bytes(word))
}

/// Without a float precision no session of one exists.
#[cfg(not(any(feature = "f16", feature = "f32")))]
fn byte_word(word: [u8; 4]) -> u8 {
    word[0]
}
