//! `predict`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;
use waft::{Model, Precision, Session};

use super::args::{CheckpointArgs, check_extension};
use super::output::{self, print_json, write_whole};
use crate::export::{precision_name, predictor};
use crate::sample::{AlignedBytes, arena, fits_fixed, set_input, to_floats};
use crate::shipped;
use crate::tensors::{self, to_chw, to_hwc};

/// Runs one network call on given tensors: how the importer is held against diffusers.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint folder (runs the f32 precision at any timestep), or .waft file (runs its precision at its own timesteps).
    model: PathBuf,
    /// Tensors `sample` (N, C, H, W) f32, `timestep` (N) i64 or f32, and `class_labels` (N) i64 where there are classes; all
    /// numbers finite.
    #[arg(long, value_name = "F.safetensors")]
    input: PathBuf,
    /// Gets tensor `out` (N, C, H, W) f32.
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: CheckpointArgs,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_extension("--out", Some(&args.out), &["safetensors"])?;
    let model = shipped::sources(&args.model.to_string_lossy(), None);
    let mut inputs = output::all("MODEL", &model);
    inputs.push(("--input", &args.input));
    output::check(&inputs, &[("--out", &args.out)])?;
    let input = tensors::read(&args.input)?;
    let (shape, sample) = input.f32("sample")?;
    let timesteps = input.integers("timestep")?;
    let classes = if input.has("class_labels") { Some(input.integers("class_labels")?) } else { None };
    let Some(&count) = shape.first() else { bail!("{}: sample has no dimensions", args.input.display()) };
    if count == 0 || timesteps.len() != count || classes.as_ref().is_some_and(|c| c.len() != count) {
        bail!("{}: sample, timestep and class_labels must hold the same number of calls", args.input.display());
    }

    let is_checkpoint = args.model.is_dir();
    let bytes: AlignedBytes = if is_checkpoint {
        predictor(&args.reading.open(&args.model)?, &timesteps)?
    } else {
        shipped::read(&args.model)?
    };
    let model = Model::from_bytes(bytes.as_slice())?;
    let input_shape = model.image_shape();
    let [rows, cols, channels] = input_shape;
    if shape != [count, channels, rows, cols] {
        bail!("{}: sample has shape {shape:?}, expected (N, {channels}, {rows}, {cols})", args.input.display());
    }
    if let Some(value) = sample.iter().find(|value| model.precision() == Precision::I8 && !fits_fixed(**value)) {
        bail!("{}: sample holds {value}; the i8 precision takes numbers between -2048 and 2048", args.input.display());
    }
    let output = model.tensor(model.header().prediction).context("the model has no output")?;
    let output_shape = [rows, cols, usize::from(output.channels)];
    let samples = to_hwc(&sample, input_shape);
    let weights = shipped::weights(&args.model.to_string_lossy(), &model)?;
    let mut memory = arena(&model);
    let mut outputs = vec![];
    for (call, sample) in samples.chunks_exact(rows * cols * channels).enumerate() {
        let (schedule, step) = if is_checkpoint { (0, call as u32) } else { find_step(&model, timesteps[call])? };
        let class = match &classes {
            Some(classes) => Some(u16::try_from(classes[call]).with_context(|| format!("class {}", classes[call]))?),
            None => None,
        };
        let mut session = Session::with_weights(&model, memory.as_mut_slice(), weights.as_slice())?;
        set_input(&mut session, sample).context("the model has no input")?;
        let mut prediction = session.predict(schedule, step, class)?;
        while prediction.step()? {}
        outputs.extend(to_floats(prediction.output()));
    }
    let values = to_chw(&outputs, output_shape);
    write_whole(&args.out, &tensors::encode("out", &[count, output_shape[2], rows, cols], &values)?)?;
    let precision = precision_name(model.precision());
    if args.json {
        return print_json(&json!({ "calls": count, "precision": precision }));
    }
    output::print(&format!("{}: {count} calls in precision {precision}\n", args.out.display()))
}

/// The list and step of a .waft file that visits a timestep.
fn find_step(model: &Model<'_>, timestep: i64) -> anyhow::Result<(u16, u32)> {
    let mut known = vec![];
    for index in 0..model.schedules() {
        let list = model.schedule(index).map_or_else(Vec::new, |list| shipped::timesteps(model, &list));
        if let Some(step) = list.iter().position(|&t| i64::from(t) == timestep) {
            return Ok((index, step as u32));
        }
        known.extend(list);
    }
    known.sort_unstable();
    known.dedup();
    bail!("timestep {timestep} is not in the file, which visits {known:?}; use the checkpoint for others")
}
