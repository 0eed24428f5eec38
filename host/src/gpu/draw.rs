//! Drawing a batch on a device.

use std::mem::offset_of;

use waft::arithmetic::Sample;
use waft::format::{ACTION_BYTES, Precision, Schedule};
use waft::noise::{Noise, Seed};
use waft::{Guidance, Model, Request, RequestError, Rescale, Samples};
use waft_kernels::{STATE_BYTES, Space, State, pictures_at, samples_at};

use super::{Device, GpuError, Program};
use crate::fixed::{to_fixed, to_floats};
use crate::progress::Progress;
use crate::sample::{Batch, Picture, has_noise};

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
pub fn state(model: &Model<'_>, schedule: &Schedule, step: u32, seed: u64, request: &Request) -> State {
    State {
        seed: [seed as u32, (seed >> 32) as u32],
        step,
        guidance: request.guidance_at(step).to_bits(),
        rescale: request.asked_rescale().to_bits(),
        threshold: schedule.threshold,
        variances: if model.header().variance == 0 { 0 } else { schedule.variances() as u32 },
        reserved: 0,
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
        let state = state(model, &schedule, 0, batch.seed.wrapping_add(first as u64), &batch.request);
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
            device
                .launch(&program.step(guidance != Guidance::NONE, rescales, schedule.threshold != 0), steps as u32)?;
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
