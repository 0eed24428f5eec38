//! The GPU backend: the same plan, executed for many pictures at once by the kernels of `waft-kernels`, on a GPU
//! ([`cuda`]) or, to hold every kernel against the runtime where there is none, on the host ([`host`]).
//!
//! A [`Program`] is a model as launches: it is made once, and replayed for each step of each batch.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod host;

use std::mem::offset_of;

use thiserror::Error;
use waft::arithmetic::Sample;
use waft::format::{ACTION_BYTES, Op, Precision, Schedule};
use waft::noise::{Noise, Seed};
use waft::{Guidance, Model, Request, RequestError, Rescale, Samples};
use waft_kernels::{
    Kernel, LANES, STATE_BYTES, Space, State, Strides, activate, attention, conv2d, embedding, group_norm, pictures_at,
    sampler, samples_at,
};

use crate::progress::Progress;
use crate::sample::{Batch, Picture, has_noise, to_fixed, to_floats};

/// Why the GPU backend did not do what was asked for.
#[derive(Debug, Error)]
pub enum GpuError {
    /// No driver, or no device.
    #[error("no CUDA device: {0}")]
    NoDevice(String),
    /// The device has too little memory for the batch; [`draw`] halves it and tries again.
    #[error("{device}: no memory for a batch of {batch} pictures; free some, or ask for smaller batches with --batch")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Pictures of the batch.
        batch: u32,
    },
    /// The driver refused the kernels.
    #[error(
        "{device} with driver {driver} refuses the kernels: {what}; waft needs compute capability 7.5 and a driver for CUDA 11.4 or later"
    )]
    Refused {
        /// The device.
        device: String,
        /// The newest CUDA version that the driver knows.
        driver: String,
        /// What the driver says.
        what: String,
    },
    /// A call of the driver failed: the device is lost, or the program has a defect.
    #[error(
        "{device} with driver {driver} failed at {call}: {what}; if the device was lost (see `nvidia-smi`), start again, else please report this"
    )]
    Driver {
        /// The device.
        device: String,
        /// The newest CUDA version that the driver knows.
        driver: String,
        /// Which call.
        call: &'static str,
        /// What the driver says.
        what: String,
    },
    /// The model cannot draw this.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A model or a request that the GPU backend cannot take.
    #[error("{0}")]
    Unfit(String),
}

/// Names of all kernels in PTX.
pub fn kernel_names() -> &'static [&'static str] {
    Kernel::NAMES
}

/// A kernel and where its parameters lie.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Place of its parameters in [`Space::Constants`].
    pub parameters: u32,
}

/// A model as launches.
#[derive(Clone, Debug)]
pub struct Program {
    /// What [`Space::Constants`] holds: the file, repacked weights, parameters.
    pub constants: Vec<u8>,
    /// How far apart pictures lie in arenas and scratch.
    pub strides: Strides,
    /// Elements of the sample.
    len: u32,
    /// Of each operation, for each picture's own class.
    ops: Vec<Vec<Launch>>,
    /// Number of the first operations that are launched once for all steps.
    once: usize,
    /// The operations that differ for the class that means "no class".
    unconditional: Vec<Option<Launch>>,
    noise: Launch,
    keep: Launch,
    measure: Launch,
    update: Launch,
    results: Launch,
    advance: Launch,
}

/// Builds constants and remembers where parameters went.
struct Builder {
    constants: Vec<u8>,
}

impl Builder {
    fn append(&mut self, bytes: &[u8]) -> Result<u32, GpuError> {
        self.constants.resize(self.constants.len().next_multiple_of(16), 0);
        let at = u32::try_from(self.constants.len())
            .map_err(|_| GpuError::Unfit("the model and its repacked weights have more than 4 GiB".into()))?;
        self.constants.extend(bytes);
        Ok(at)
    }

    fn launch(&mut self, kernel: Kernel) -> Result<Launch, GpuError> {
        Ok(Launch { kernel, parameters: self.append(kernel.parameters())? })
    }
}

impl Program {
    /// Of a model and the weights' own file, if it has one.
    ///
    /// # Errors
    /// If the model is too large, or does not sample.
    pub fn new(model: &Model<'_>, weights: &[u8]) -> Result<Self, GpuError> {
        let too_large = || GpuError::Unfit("an operation needs more than 4 GiB for each picture".into());
        let integer = model.precision() == Precision::I8;
        let file = if model.header().weights_bytes > 0 { weights } else { model.bytes() };
        if weights.len() != model.header().weights_bytes as usize {
            let (found, expected) = (weights.len(), model.header().weights_bytes);
            return Err(GpuError::Unfit(format!("{found} bytes of streamed weights, the model has {expected}")));
        }
        let mut builder = Builder { constants: model.bytes().to_vec() };
        // The stride of the scratch is the largest need, known once all operations are.
        let mut strides = Strides { arena: model.header().arena_bytes, scratch: 16 };
        let mut packed = vec![];
        for index in 0..model.ops() {
            let need = match model.op(index).ok_or_else(too_large)? {
                Op::Conv2d(_) => {
                    let weights = if integer {
                        conv2d::i8::pack(model, index, file)
                    } else {
                        conv2d::float::pack(model, index, file)
                    };
                    let at = builder.append(&weights.ok_or_else(too_large)?)?;
                    packed.push(at);
                    conv2d::Parameters::new(model, index, strides, at).ok_or_else(too_large)?.scratch_bytes()
                }
                Op::Attention(_) => {
                    packed.push(0);
                    attention::Parameters::new(model, index, strides).ok_or_else(too_large)?.scratch_bytes()
                }
                Op::GroupNorm(_) | Op::Embed(_) | Op::Linear(_) | Op::Activate(_) | Op::Observe(_) => {
                    packed.push(0);
                    0
                }
            };
            strides.scratch = strides.scratch.max(need.next_multiple_of(16));
        }
        let mut ops = vec![];
        let mut unconditional = vec![];
        for (index, at) in (0..model.ops()).zip(packed) {
            let mut other = None;
            let kernels = match model.op(index).ok_or_else(too_large)? {
                Op::Conv2d(_) => {
                    let parameters = conv2d::Parameters::new(model, index, strides, at).ok_or_else(too_large)?;
                    if integer {
                        vec![
                            Kernel::conv2d_i8_gather(conv2d::i8::GatherKernel(parameters)),
                            Kernel::conv2d_i8_multiply(conv2d::i8::MultiplyKernel(parameters)),
                        ]
                    } else {
                        vec![
                            Kernel::conv2d_float_gather(conv2d::float::GatherKernel(parameters)),
                            Kernel::conv2d_float_multiply(conv2d::float::MultiplyKernel(parameters)),
                        ]
                    }
                }
                Op::GroupNorm(_) => {
                    let parameters = group_norm::Parameters::new(model, index, strides).ok_or_else(too_large)?;
                    if integer {
                        vec![Kernel::group_norm_i8(group_norm::IntegerKernel(parameters))]
                    } else {
                        vec![Kernel::group_norm_float(group_norm::FloatKernel(parameters))]
                    }
                }
                Op::Attention(_) => {
                    let parameters = attention::Parameters::new(model, index, strides).ok_or_else(too_large)?;
                    if integer {
                        vec![
                            Kernel::attention_i8_scores(attention::IntegerScoresKernel(parameters)),
                            Kernel::attention_i8_context(attention::IntegerContextKernel(parameters)),
                        ]
                    } else {
                        vec![
                            Kernel::attention_float_scores(attention::FloatScoresKernel(parameters)),
                            Kernel::attention_float_context(attention::FloatContextKernel(parameters)),
                        ]
                    }
                }
                Op::Embed(_) => {
                    let embed = |unconditional| embedding::EmbedKernel::new(model, index, strides, unconditional);
                    if model.unconditional_class().is_some() {
                        other = Some(builder.launch(Kernel::embed(embed(true).ok_or_else(too_large)?))?);
                    }
                    vec![Kernel::embed(embed(false).ok_or_else(too_large)?)]
                }
                Op::Linear(_) => {
                    vec![Kernel::linear(embedding::LinearKernel::new(model, index, strides).ok_or_else(too_large)?)]
                }
                Op::Activate(_) if integer => {
                    let kernel = activate::IntegerKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::activate_i8(kernel)]
                }
                Op::Activate(_) => {
                    let kernel = activate::FloatKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::activate_float(kernel)]
                }
                Op::Observe(_) => {
                    vec![Kernel::observe(activate::ObserveKernel::new(model, index, strides).ok_or_else(too_large)?)]
                }
            };
            ops.push(kernels.into_iter().map(|kernel| builder.launch(kernel)).collect::<Result<_, _>>()?);
            unconditional.push(other);
        }
        let around = sampler::Parameters::new(model, strides).ok_or_else(|| {
            GpuError::Unfit("the model does not sample: its output is not of the sample's shape".into())
        })?;
        Ok(Self {
            strides,
            len: model.image_shape().iter().product::<usize>() as u32,
            ops,
            once: model.header().once.into(),
            unconditional,
            noise: builder.launch(Kernel::noise(sampler::NoiseKernel(around)))?,
            keep: builder.launch(Kernel::keep(sampler::KeepKernel(around)))?,
            measure: builder.launch(Kernel::measure(sampler::MeasureKernel(around)))?,
            update: builder.launch(Kernel::update(sampler::UpdateKernel(around)))?,
            results: builder.launch(Kernel::results(sampler::ResultsKernel(around)))?,
            advance: builder.launch(Kernel::advance(sampler::AdvanceKernel { steps: 1 }))?,
            constants: builder.constants,
        })
    }

    /// Bytes of [`Space::State`] for a batch.
    pub fn state_bytes(&self, batch: u32) -> usize {
        samples_at(batch, self.len) + 4 * self.len as usize * batch as usize
    }

    /// Most pictures of a batch: kernels number their threads with 32 bits.
    pub fn most_pictures(&self) -> u32 {
        let around = [&self.noise, &self.keep, &self.measure, &self.update, &self.results];
        let launches = self.ops.iter().flatten().chain(around);
        let threads = launches.map(|launch| launch.kernel.warps(1) * LANES as u64).max().unwrap_or(1);
        u32::try_from(u64::from(u32::MAX) / threads.max(1)).unwrap_or(u32::MAX)
    }

    /// Launches of one operation, for each picture's own class.
    pub fn op(&self, index: u16) -> &[Launch] {
        self.ops.get(usize::from(index)).map_or(&[], Vec::as_slice)
    }

    /// Launches of what is computed once for all steps.
    fn once(&self) -> Vec<Launch> {
        self.ops.iter().take(self.once).flatten().copied().collect()
    }

    /// Launches of one step of the sampler.
    fn step(&self, guided: bool, rescales: bool) -> Vec<Launch> {
        let mut launches = vec![];
        if guided {
            for (own, other) in self.ops.iter().zip(&self.unconditional).skip(self.once) {
                match other {
                    Some(other) => launches.push(*other),
                    None => launches.extend(own),
                }
            }
            launches.push(self.keep);
        }
        launches.extend(self.ops.iter().skip(self.once).flatten());
        launches.extend((guided && rescales).then_some(self.measure));
        launches.extend([self.update, self.advance]);
        launches
    }
}

/// What executes launches.
pub trait Device {
    /// Its name, for reports.
    fn name(&self) -> String;

    /// The newest CUDA version that its driver knows, if it has one.
    fn driver(&self) -> Option<String>;

    /// Most pictures of a batch that its memory has room for.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn capacity(&mut self, program: &Program) -> Result<u32, GpuError>;

    /// Sets up the four memories for a program and a batch; what they held is lost.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`] among others.
    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError>;

    /// Copies bytes to a memory.
    ///
    /// # Errors
    /// If the device fails.
    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError>;

    /// Copies bytes from a memory.
    ///
    /// # Errors
    /// If the device fails.
    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError>;

    /// Executes launches in order, the whole list `times` times, for the batch that it was prepared for.
    ///
    /// # Errors
    /// If the device fails.
    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError>;
}

/// Draw 0 of a picture, or what is given in its place.
fn initial_noise(batch: &Batch, index: usize, len: usize) -> Vec<i32> {
    match &batch.latents {
        Some(latents) => to_fixed(&latents[index * len..][..len]),
        None => {
            let mut seed = Seed::new(batch.seed.wrapping_add(index as u64));
            (0..len as u32).filter_map(|element| seed.sample(0, element)).collect()
        }
    }
}

/// The state of a batch at the beginning of a step.
pub fn state(schedule: &Schedule, step: u32, seed: u64, request: &Request) -> State {
    State {
        seed: [seed as u32, (seed >> 32) as u32],
        step,
        guidance: request.guidance_at(step).to_bits(),
        rescale: request.asked_rescale().to_bits(),
        reserved: [0; 3],
        rows: schedule.rows,
        embeddings: schedule.embeddings,
        biases: schedule.biases,
        bias_bytes: schedule.bias_bytes,
    }
}

/// Values of a sample as a precision stores them.
fn in_precision(model: &Model<'_>, values: &[f32]) -> Vec<u8> {
    match model.precision() {
        Precision::I8 => bytemuck::cast_slice(&to_fixed(values)).to_vec(),
        Precision::F16 | Precision::F32 => bytemuck::cast_slice(values).to_vec(),
    }
}

/// What was drawn: a picture's bytes, or a policy's actions and theirs.
fn picture(model: &Model<'_>, bytes: &[u8], samples: Samples<'_>) -> Picture {
    let sample = to_floats(Some(samples));
    let mut drawn = Picture { bytes: bytes.to_vec(), sample, ..Picture::default() };
    if model.has_actions() {
        let [_, _, channels] = model.image_shape();
        let at = |index: usize| model.header().actions as usize + index % channels * ACTION_BYTES;
        match samples {
            Samples::Fixed(values) => {
                let values = values.iter().enumerate().map(|(index, x)| x.to_action(model.bytes(), at(index)));
                drawn.set_actions(Samples::Fixed(&values.collect::<Vec<_>>()));
            }
            Samples::Float(values) => {
                let values = values.iter().enumerate().map(|(index, x)| x.to_action(model.bytes(), at(index)));
                drawn.set_actions(Samples::Float(&values.collect::<Vec<_>>()));
            }
        }
    }
    drawn
}

/// Draws a batch, in order: what [`crate::sample::draw`] draws, and in the `i8` precision the same bytes. `most` bounds the
/// pictures that are drawn at once.
///
/// # Errors
/// If the model cannot draw this, the trajectory is asked for, or the device fails.
pub fn draw(
    device: &mut dyn Device,
    model: &Model<'_>,
    batch: &Batch,
    most: Option<u32>,
    progress: &dyn Progress,
) -> Result<Vec<Picture>, GpuError> {
    let program = Program::new(model, &batch.weights)?;
    let schedule = batch.request.schedule(model)?;
    let classes = (0..batch.count).map(|index| Ok(batch.request(index).resolve(model)?.1.into()));
    let classes: Vec<u32> = classes.collect::<Result<_, RequestError>>()?;
    if batch.trajectory {
        return Err(GpuError::Unfit("the GPU backend keeps no trajectories; draw them on the CPU".into()));
    }
    if batch.original.is_some() || batch.request.first_step() > 0 {
        return Err(GpuError::Unfit("the GPU backend starts from noise alone; draw from a picture on the CPU".into()));
    }
    if batch.to_seed.is_some() {
        return Err(GpuError::Unfit("the GPU backend draws from seeds, not between two; draw on the CPU".into()));
    }
    let len = program.len as usize;
    if let Some(latents) = &batch.latents
        && latents.len() != len * batch.count
    {
        return Err(GpuError::Unfit(format!("{} latents for {} pictures of {len}", latents.len(), batch.count)));
    }
    let guidance = batch.guidance(schedule.steps);
    if !batch.guidance.is_empty() && batch.guidance.len() != guidance.len() {
        let what = format!("guidance for {} steps, the list has {}", batch.guidance.len(), guidance.len());
        return Err(GpuError::Unfit(what));
    }
    if !model.has_guidance() && guidance.iter().any(|&guidance| guidance != Guidance::NONE) {
        return Err(RequestError::GuidanceUnavailable.into());
    }
    if batch.noise.is_some() {
        return Err(GpuError::Unfit(
            "the GPU backend draws the noise of steps from seeds; give noise to the CPU".into(),
        ));
    }
    if batch.latents.is_some() && has_noise(model, &schedule) {
        return Err(GpuError::Unfit(
            "steps with noise (eta > 0) draw it from seeds; given latents are not enough".into(),
        ));
    }
    let sample = model.tensor(model.header().sample).map_or(0, |tensor| tensor.offset as usize);
    let condition = model.condition_shape().and_then(|_| model.tensor(model.header().condition));
    let rescales = batch.request.asked_rescale() != Rescale::NONE;
    let observation = model.observation_len().and_then(|_| model.tensor(model.header().observation));

    progress.begin("drawing", batch.count as u64);
    let mut pictures = Vec::with_capacity(batch.count);
    let mut size = most.unwrap_or(u32::MAX).min(device.capacity(&program)?).clamp(1, program.most_pictures());
    let mut prepared = None;
    while pictures.len() < batch.count {
        let first = pictures.len();
        let count = (size as usize).min(batch.count - first) as u32;
        if prepared != Some(count) {
            match device.prepare(&program, count) {
                Err(GpuError::OutOfMemory { .. }) if count > 1 => {
                    size = count / 2;
                    continue;
                }
                other => other?,
            }
            prepared = Some(count);
        }
        let state = state(&schedule, 0, batch.seed.wrapping_add(first as u64), &batch.request);
        device.write(Space::State, 0, bytemuck::bytes_of(&state))?;
        if let Some(condition) = condition {
            for picture in 0..count as usize {
                let values = batch.conditions.of(first + picture).ok_or(RequestError::ConditionMissing)?;
                let at = picture * program.strides.arena as usize + condition.offset as usize;
                device.write(Space::Arenas, at, &in_precision(model, values))?;
            }
        }
        if let Some(observation) = observation {
            for picture in 0..count as usize {
                let values =
                    batch.conditions.observation_of(first + picture).ok_or(RequestError::ObservationMissing)?;
                let at = picture * program.strides.arena as usize + observation.offset as usize;
                device.write(Space::Arenas, at, &in_precision(model, values))?;
            }
        }
        let chunk = &classes[first..first + count as usize];
        device.write(Space::State, STATE_BYTES, bytemuck::cast_slice(chunk))?;
        if batch.latents.is_none() && schedule.start == 0 {
            device.launch(&[program.noise], 1)?;
        } else {
            for picture in 0..count as usize {
                let noise = initial_noise(batch, first + picture, len);
                let at = picture * program.strides.arena as usize + sample;
                match model.precision() {
                    Precision::I8 => {
                        let started: Vec<i32> = noise.iter().map(|z| z.started(schedule.start)).collect();
                        device.write(Space::Arenas, at, bytemuck::cast_slice(&started))?;
                    }
                    Precision::F16 | Precision::F32 => {
                        let started = noise.iter().map(|&z| f32::from_noise(z).started(schedule.start));
                        device.write(Space::Arenas, at, bytemuck::cast_slice(&started.collect::<Vec<f32>>()))?;
                    }
                }
            }
        }
        device.launch(&program.once(), 1)?;
        for (steps, guidance) in guidance.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0])) {
            device.write(Space::State, offset_of!(State, guidance), &guidance.to_bits().to_le_bytes())?;
            device.launch(&program.step(guidance != Guidance::NONE, rescales), steps as u32)?;
        }
        device.launch(&[program.results], 1)?;
        let mut bytes = vec![0; len * count as usize];
        device.read(Space::State, pictures_at(count), &mut bytes)?;
        let mut words = vec![0i32; len * count as usize];
        device.read(Space::State, samples_at(count, program.len), bytemuck::cast_slice_mut(&mut words))?;
        for (bytes, words) in bytes.chunks_exact(len).zip(words.chunks_exact(len)) {
            let samples = match model.precision() {
                Precision::I8 => Samples::Fixed(words),
                Precision::F16 | Precision::F32 => Samples::Float(bytemuck::cast_slice(words)),
            };
            pictures.push(picture(model, bytes, samples));
        }
        progress.advance(count.into());
    }
    progress.end();
    Ok(pictures)
}
