//! `predict`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;
use waft::{Model, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::sample::{AlignedBytes, arena, set_input, to_floats};
use waft_host::tensors::{self, to_chw, to_hwc};

use crate::args::{print_json, write_whole};

/// Runs one network call on given tensors: how the importer is held against diffusers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint folder (runs the f32 precision at any timestep), or .waft file (runs its precision at its own timesteps).
    model: PathBuf,
    /// Tensors `sample` (N, C, H, W) f32, `timestep` (N) i64 or f32, and `class_labels` (N) i64 where there are classes.
    #[arg(long)]
    input: PathBuf,
    /// Gets tensor `out` (N, C, H, W) f32.
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
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
        waft_host::export::predictor(&Checkpoint::open(&args.model)?, &timesteps)?
    } else {
        waft_host::shipped::read(&args.model)?
    };
    let model = Model::from_bytes(bytes.as_slice())?;
    let input_shape = model.image_shape();
    let [rows, cols, channels] = input_shape;
    if shape != [count, channels, rows, cols] {
        bail!("{}: sample has shape {shape:?}, expected (N, {channels}, {rows}, {cols})", args.input.display());
    }
    let output = model.tensor(model.header().prediction).context("the model has no output")?;
    let output_shape = [rows, cols, usize::from(output.channels)];
    let samples = to_hwc(&sample, input_shape);
    let weights = waft_host::shipped::weights(&args.model.to_string_lossy(), &model)?;
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
    write_whole(&args.out, |path| Ok(tensors::write(path, "out", &[count, output_shape[2], rows, cols], &values)?))?;
    if args.json {
        print_json(&json!({ "calls": count, "precision": waft_host::export::precision_name(model.precision()) }))?;
    }
    Ok(())
}

/// The list and step of a .waft file that visits a timestep.
fn find_step(model: &Model<'_>, timestep: i64) -> anyhow::Result<(u16, u32)> {
    let mut known = vec![];
    for index in 0..model.schedules() {
        let list = waft_host::shipped::timesteps(model, index);
        if let Some(step) = list.iter().position(|&t| i64::from(t) == timestep) {
            return Ok((index, step as u32));
        }
        known.extend(list);
    }
    known.sort_unstable();
    known.dedup();
    bail!("timestep {timestep} is not in the file, which visits {known:?}; use the checkpoint for others")
}
