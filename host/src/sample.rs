//! Drawing pictures on the host with the runtime itself, on all cores.

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use thiserror::Error;
use waft::arithmetic::Step;
use waft::format::{Level, Precision, Schedule};
use waft::noise::{Between, Given, Seed};
use waft::{
    Accelerator, Guidance, Model, ModelError, Noise, Original, Request, RequestError, Run, RunError, Samples,
    SamplesMut, Session, SessionError, WeightSource,
};

use crate::condition::Conditions;
use crate::fixed::{fits_fixed, to_fixed, to_floats};
use crate::progress::Progress;
use crate::threads::together;

/// Bytes whose address is a multiple of 16.
#[derive(Clone, Debug)]
pub struct AlignedBytes {
    words: Vec<u128>,
    len: usize,
}

impl AlignedBytes {
    /// Zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(16)], len }
    }

    /// A copy.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// Memory for a session of `model`.
pub fn arena(model: &Model<'_>) -> AlignedBytes {
    AlignedBytes::zeroed(model.arena_bytes())
}

/// Why no pictures were drawn.
#[derive(Debug, Error)]
pub enum SampleError {
    /// The file is not a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model cannot run here.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The model cannot draw this.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The run ended early.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Initial noise of another size.
    #[error("latents hold {found} values for {count} pictures, the model needs {expected} for each")]
    Latents {
        /// Values given.
        found: usize,
        /// Pictures asked for.
        count: usize,
        /// Values of one picture.
        expected: usize,
    },
    /// Guidance of another number of steps.
    #[error("guidance for {found} steps, the list has {expected}")]
    Guidance {
        /// Scales given.
        found: usize,
        /// Steps of the list.
        expected: u32,
    },
    /// Noise of the steps of another size.
    #[error(
        "noise holds {found} values for {count} pictures, the model needs {expected} for each, in all steps together"
    )]
    Noise {
        /// Values given.
        found: usize,
        /// Pictures asked for.
        count: usize,
        /// Values of one picture in all steps.
        expected: usize,
    },
    /// A sample, or noise, that is not a number or leaves the runtime's fixed point.
    #[error("latents or noise hold {value}; they must be numbers between -2048 and 2048")]
    Range {
        /// The first of them.
        value: f32,
    },
}

/// A picture to start from, see [`Original`].
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Bytes in (row, column, channel) order.
    pub image: Vec<u8>,
    /// A byte a pixel: 128 or more is drawn anew, the rest is kept. `None`: the whole picture is only a start.
    pub mask: Option<Vec<u8>>,
    /// Steps of a part and how often each is taken, see [`Original::resample`].
    pub resampling: Option<[u32; 2]>,
}

impl Source {
    fn original(&self) -> Original<'_> {
        let original = Original::new(&self.image);
        let original = self.mask.as_ref().map_or(original, |mask| original.mask(mask));
        self.resampling.map_or(original, |[jump, times]| original.resample(jump, times))
    }
}

/// What to draw.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Class, steps and guidance; its seed is that of the first picture, the others count up from it.
    pub request: Request,
    /// Seed of the first picture.
    pub seed: u64,
    /// Seed to which the pictures lead from the first seed, the noise of each a step further, see [`Between`]; they do not count
    /// up then.
    pub to_seed: Option<u64>,
    /// Class of each picture; empty for the request's own.
    pub classes: Vec<u16>,
    /// Number of pictures.
    pub count: usize,
    /// Initial samples instead of seeds: `count` of them, (row, column, channel) order. Steps with noise draw it from seeds
    /// all the same, unless `noise` is given.
    pub latents: Option<Vec<f32>>,
    /// Standard Gaussian noise of the steps instead of seeds: (step, picture, row, column, channel) order, with a place for
    /// each step of the list, those that take no noise included.
    pub noise: Option<Vec<f32>>,
    /// A picture that all start from, at the request's first step.
    pub original: Option<Source>,
    /// Guidance of each step of the list instead of the request's; empty for that. The request's interval and rescaling hold
    /// all the same.
    pub guidance: Vec<Guidance>,
    /// Conditions of the pictures in turn, for a model that reads one.
    pub conditions: Conditions,
    /// Whether to keep the sample after every step.
    pub trajectory: bool,
    /// The weights' own file, of a model that has one.
    pub weights: Vec<u8>,
}

impl Batch {
    /// What to draw as picture `index`.
    pub fn request(&self, index: usize) -> Request {
        let request = self.request.seed(self.seed_of(index));
        self.classes.get(index).map_or(request, |&class| request.class(class))
    }

    /// The seed of picture `index`.
    fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// The noise of picture `index`.
    fn noise_of(&self, index: usize) -> Seeds {
        match self.to_seed {
            None => Seeds::One(Seed::new(self.seed_of(index))),
            Some(to) => {
                let t = (index as f64 / self.count.saturating_sub(1).max(1) as f64 * 65_536.0).round() as u32;
                Seeds::Two(Between::new(self.seed, to, t))
            }
        }
    }

    /// The guidance of each step of a list.
    pub fn guidance(&self, steps: u32) -> Vec<Guidance> {
        let at = |step| match self.guidance.get(step as usize) {
            Some(&guidance) => self.request.guidance(guidance).guidance_at(step),
            None => self.request.guidance_at(step),
        };
        (0..steps).map(at).collect()
    }
}

/// A class for each of `count` pictures: all but the one that means "no class" take turns. Empty without classes.
pub fn classes_in_turn(model: &Model<'_>, count: usize) -> Vec<u16> {
    let classes = (0..model.classes()).filter(|&class| Some(class) != model.unconditional_class());
    classes.cycle().take(if model.classes() > 0 { count } else { 0 }).collect()
}

/// One picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Bytes in (row, column, channel) order.
    pub bytes: Vec<u8>,
    /// The sample that they come from, about −1 to 1.
    pub sample: Vec<f32>,
    /// The actions that it stands for, of a policy, in the units of its training data; their bytes in the precision's own type
    /// are then `bytes`.
    pub actions: Vec<f32>,
    /// The sample before the first step and after every step, if asked for.
    pub trajectory: Vec<Vec<f32>>,
}

impl Picture {
    /// Takes a policy's actions for the result.
    pub fn set_actions(&mut self, actions: Samples<'_>) {
        self.actions = to_floats(Some(actions));
        self.bytes = match actions {
            Samples::Fixed(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Samples::Float(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
    }
}

/// Draws a batch on all cores, in order.
///
/// # Errors
/// If the model cannot draw what is asked for.
pub fn draw(model: &Model<'_>, batch: &Batch, progress: &dyn Progress) -> Result<Vec<Picture>, SampleError> {
    let expected: usize = model.image_shape().iter().product();
    if let Some(latents) = &batch.latents
        && latents.len() != expected * batch.count
    {
        return Err(SampleError::Latents { found: latents.len(), count: batch.count, expected });
    }
    if let Some(noise) = &batch.noise {
        let expected = expected * batch.request.schedule(model)?.steps as usize;
        if noise.len() != expected * batch.count {
            return Err(SampleError::Noise { found: noise.len(), count: batch.count, expected });
        }
    }
    let steps = batch.request.schedule(model)?.steps;
    if !batch.guidance.is_empty() && batch.guidance.len() != steps as usize {
        return Err(SampleError::Guidance { found: batch.guidance.len(), expected: steps });
    }
    let mut given = [&batch.latents, &batch.noise].into_iter().flatten().flatten();
    if let Some(&value) = given.find(|value| !fits_fixed(**value)) {
        return Err(SampleError::Range { value });
    }
    progress.begin("drawing", batch.count as u64);
    let mut accelerator = Accelerator::new(model);
    if batch.count < rayon::current_num_threads() {
        accelerator = together(accelerator);
    }
    let drawn = (0..batch.count).into_par_iter().map_init(
        || (arena(model), accelerator.clone()),
        |(memory, accelerator), index| {
            let session = Session::with_weights(model, memory.as_mut_slice(), batch.weights.as_slice())?;
            let picture = draw_one(session.accelerated(accelerator), batch, index)?;
            progress.advance(1);
            Ok(picture)
        },
    );
    let pictures = drawn.collect();
    progress.end();
    pictures
}

fn draw_one(mut session: Session<'_, &[u8]>, batch: &Batch, index: usize) -> Result<Picture, SampleError> {
    let model = session.model();
    batch.conditions.give(&mut session, index);
    let request = batch.request(index);
    let original = batch.original.as_ref().map(Source::original);
    let len: usize = model.image_shape().iter().product();
    let noise = Mixed {
        seeds: batch.noise_of(index),
        latents: batch.latents.as_ref().map(|latents| to_fixed(&latents[index * len..(index + 1) * len])),
        steps: batch.noise.as_ref().map(|noise| {
            noise.chunks_exact(len).skip(index).step_by(batch.count).flat_map(to_fixed).collect::<Vec<i32>>()
        }),
        len: len as u32,
    };
    let run = match original {
        Some(original) => session.sample_from_with(request, original, noise)?,
        None => session.sample_with(request, noise)?,
    };
    let mut set = None;
    finish_with(run, batch.trajectory, |run| {
        // A step that has begun keeps its guidance: the next one's can be set.
        let next = run.next_step();
        if next != set
            && let Some(&guidance) = next.and_then(|step| batch.guidance.get(step as usize))
        {
            run.set_guidance(guidance)?;
        }
        set = next;
        Ok(())
    })
}

/// The noise of one seed, or between two.
enum Seeds {
    One(Seed),
    Two(Between),
}

impl Noise for Seeds {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        match self {
            Self::One(seed) => seed.sample(draw, index),
            Self::Two(between) => between.sample(draw, index),
        }
    }
}

/// What is given, and the seeds' numbers for the rest.
struct Mixed {
    seeds: Seeds,
    latents: Option<Vec<i32>>,
    steps: Option<Vec<i32>>,
    len: u32,
}

impl Noise for Mixed {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        let (given, at) = match draw {
            0 => (&self.latents, 0),
            draw => (&self.steps, draw - 1),
        };
        match given {
            Some(values) => Given::new(values, self.len).sample(at, index),
            None => self.seeds.sample(draw, index),
        }
    }
}

/// Whether some step of a list asks for noise.
pub fn has_noise(model: &Model<'_>, schedule: &Schedule) -> bool {
    match model.precision() {
        Precision::I8 => model.fixed_steps(schedule).any(|step| Step::<i32>::has_noise(&step)),
        Precision::F16 | Precision::F32 => model.float_steps(schedule).any(|step| Step::<f32>::has_noise(&step)),
    }
}

/// The first step of a list that a strength from 0 to 1 takes, as diffusers' image-to-image pipelines choose it; `None` if it
/// takes none.
pub fn first_step(model: &Model<'_>, schedule: &Schedule, strength: f64) -> Option<u32> {
    let timesteps = timesteps(model, schedule);
    // Heun's list visits each timestep but the first twice, in the second call of a step and the first of the next.
    let (pairs, rest) = timesteps.get(1..)?.as_chunks::<2>();
    let is_heun = !pairs.is_empty() && rest.is_empty() && pairs.iter().all(|[correct, predict]| correct == predict);
    let (order, steps) = if is_heun { (2, pairs.len() as u32 + 1) } else { (1, schedule.steps) };
    let taken = (f64::from(steps) * strength) as u32;
    (taken > 0).then(|| (steps - taken.min(steps)) * order)
}

/// The timesteps of a model's step list, rounded.
pub fn timesteps(model: &Model<'_>, list: &Schedule) -> Vec<i32> {
    match model.precision() {
        Precision::I8 => model.fixed_steps(list).map(|step| step.timestep).collect(),
        Precision::F16 | Precision::F32 => model.float_steps(list).map(|step| step.timestep).collect(),
    }
}

/// Whether a list leads from a picture to its noise, as DDIM backwards does.
pub fn leads_to_noise(model: &Model<'_>, schedule: &Schedule) -> bool {
    schedule.levels != 0 && Level::read(model.bytes(), schedule.levels as usize).noise == 0
}

/// Writes the sample that the network reads, as many values as it has; `None` if the model has none.
pub fn set_input<W: WeightSource>(session: &mut Session<'_, W>, values: &[f32]) -> Option<()> {
    match session.input()? {
        SamplesMut::Fixed(input) => input.copy_from_slice(&to_fixed(values)),
        SamplesMut::Float(input) => input.copy_from_slice(values),
    }
    Some(())
}

/// Runs to the end.
///
/// # Errors
/// If the run ends early.
pub fn finish<N: Noise, W: WeightSource>(run: Run<'_, N, W>, keep: bool) -> Result<Picture, SampleError> {
    finish_with(run, keep, |_| Ok(()))
}

/// The same with something to do before each slice.
fn finish_with<'r, N: Noise, W: WeightSource>(
    mut run: Run<'r, N, W>,
    keep: bool,
    mut before_slice: impl FnMut(&mut Run<'r, N, W>) -> Result<(), SampleError>,
) -> Result<Picture, SampleError> {
    let mut trajectory = vec![];
    let mut step = None;
    loop {
        // The first operation of a step starts from a complete sample.
        if keep && run.starts().is_some() && step != Some(run.progress().step) {
            step = Some(run.progress().step);
            trajectory.push(to_floats(run.sample()));
        }
        before_slice(&mut run)?;
        if run.step()?.is_none() {
            break;
        }
    }
    let sample = to_floats(run.sample());
    if keep {
        trajectory.push(sample.clone());
    }
    let mut picture = Picture { sample, trajectory, ..Picture::default() };
    match run.actions() {
        Some(actions) => picture.set_actions(actions),
        None => picture.bytes = run.image().map_or_else(Vec::new, |image| image.data().to_vec()),
    }
    Ok(picture)
}

/// SHA-256 over the bytes of all pictures in order, in hexadecimal.
pub fn digest<'p>(pictures: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut hash = Sha256::new();
    pictures.into_iter().for_each(|bytes| hash.update(bytes));
    hex::encode(hash.finalize())
}
