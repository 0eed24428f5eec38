//! Drawing pictures on the host with the runtime itself, on all cores.

use crate::progress::Progress;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use thiserror::Error;
use waft::fixed::SAMPLE_BITS;
use waft::noise::Given;
use waft::{
    Model, ModelError, Noise, Request, RequestError, Run, RunError, Samples, SamplesMut, Session, SessionError,
    WeightSource,
};

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
}

/// What to draw.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Class, steps and guidance; its seed is that of the first picture, the others count up from it.
    pub request: Request,
    /// Seed of the first picture.
    pub seed: u64,
    /// Class of each picture; empty for the request's own.
    pub classes: Vec<u16>,
    /// Number of pictures.
    pub count: usize,
    /// Initial samples instead of seeds: `count` of them, (row, column, channel) order.
    pub latents: Option<Vec<f32>>,
    /// Whether to keep the sample after every step.
    pub trajectory: bool,
    /// The weights' own file, of a model that has one.
    pub weights: Vec<u8>,
}

impl Batch {
    /// What to draw as picture `index`.
    pub fn request(&self, index: usize) -> Request {
        let request = self.request.seed(self.seed.wrapping_add(index as u64));
        self.classes.get(index).map_or(request, |&class| request.class(class))
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
    /// The sample before the first step and after every step, if asked for.
    pub trajectory: Vec<Vec<f32>>,
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
    progress.begin("drawing", batch.count as u64);
    let drawn = (0..batch.count).into_par_iter().map_init(
        || arena(model),
        |memory, index| {
            let picture = draw_one(model, memory.as_mut_slice(), batch, index)?;
            progress.advance(1);
            Ok(picture)
        },
    );
    let pictures = drawn.collect();
    progress.end();
    pictures
}

fn draw_one(model: &Model<'_>, arena: &mut [u8], batch: &Batch, index: usize) -> Result<Picture, SampleError> {
    let mut session = Session::with_weights(model, arena, batch.weights.as_slice())?;
    let request = batch.request(index);
    match &batch.latents {
        None => finish(session.sample(request)?, batch.trajectory),
        Some(latents) => {
            let len = latents.len() / batch.count;
            let values = to_fixed(&latents[index * len..(index + 1) * len]);
            finish(session.sample_with(request, Given::new(&values, len as u32))?, batch.trajectory)
        }
    }
}

/// Floats in the runtime's fixed point.
pub fn to_fixed(values: &[f32]) -> Vec<i32> {
    values.iter().map(|v| (f64::from(*v) * f64::from(1 << SAMPLE_BITS)).round() as i32).collect()
}

/// Writes the sample that the network reads, as many values as it has; `None` if the model has none.
pub fn set_input<W: WeightSource>(session: &mut Session<'_, W>, values: &[f32]) -> Option<()> {
    match session.input()? {
        SamplesMut::Fixed(input) => input.copy_from_slice(&to_fixed(values)),
        SamplesMut::Float(input) => input.copy_from_slice(values),
    }
    Some(())
}

/// Values of a precision as floats.
pub fn to_floats(samples: Option<Samples<'_>>) -> Vec<f32> {
    match samples {
        Some(Samples::Float(values)) => values.to_vec(),
        Some(Samples::Fixed(values)) => values.iter().map(|&v| v as f32 / (1 << SAMPLE_BITS) as f32).collect(),
        None => vec![],
    }
}

/// Runs to the end.
///
/// # Errors
/// If the run ends early.
pub fn finish<N: Noise, W: WeightSource>(mut run: Run<'_, '_, N, W>, keep: bool) -> Result<Picture, SampleError> {
    let mut trajectory = vec![];
    let mut step = None;
    loop {
        // The first operation of a step starts from a complete sample.
        if keep && run.starts() == Some(0) && step != Some(run.progress().step) {
            step = Some(run.progress().step);
            trajectory.push(to_floats(run.sample()));
        }
        if run.step()?.is_none() {
            break;
        }
    }
    let sample = to_floats(run.sample());
    if keep {
        trajectory.push(sample.clone());
    }
    let bytes = run.image().map_or_else(Vec::new, |image| image.data().to_vec());
    Ok(Picture { bytes, sample, trajectory })
}

/// SHA-256 over the bytes of all pictures in order, in hexadecimal.
pub fn digest<'p>(pictures: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut hash = Sha256::new();
    pictures.into_iter().for_each(|bytes| hash.update(bytes));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
