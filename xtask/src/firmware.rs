//! `firmware`: builds the bare-metal image, runs it under QEMU and measures it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use waft::Model;
use waft_host::condition::Conditions;
use waft_host::image::read_png;
use waft_host::shipped;

use crate::args::{Bar, Precision, print_json};
use crate::boards;
use crate::build::Contents;
use crate::c;
use crate::counts;
use crate::emulate::Request;
use crate::measure::Firmware;

/// Builds the firmware for a bare-metal target and draws a picture with it under QEMU.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple, with `/core` where several cores share it, or `all`.
    #[arg(long, default_value = "thumbv7em-none-eabihf")]
    target: String,
    /// Name of a shipped model, or a .waft file.
    #[arg(long, required_unless_present = "record")]
    model: Option<String>,
    /// Precision of a shipped model [default: i8].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Steps [default: the first list of the model].
    #[arg(long)]
    steps: Option<u32>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Class to draw.
    #[arg(long)]
    class: Option<u16>,
    /// Classifier-free guidance.
    #[arg(long)]
    guidance: Option<f32>,
    /// Picture to start from, as `waft sample` takes it.
    #[arg(long, value_name = "F.png")]
    init: Option<PathBuf>,
    /// First step of the list that is taken, from 0, with --init.
    #[arg(long, value_name = "K", requires = "init", default_value_t = 0)]
    start: u32,
    /// Draw only the pixels that are 128 or more in this grey PNG.
    #[arg(long, value_name = "F.png", requires = "init")]
    mask: Option<PathBuf>,
    /// What a policy acts on, as `waft sample` takes it: the first observation of the file.
    #[arg(long, value_name = "F.safetensors", conflicts_with = "c")]
    observation: Option<PathBuf>,
    /// Draw through the C interface, on the targets that have a C firmware.
    #[arg(long)]
    c: bool,
    /// Print one JSON object a target.
    #[arg(long)]
    json: bool,
    /// Measure digits on all targets and record what it costs in tests/firmware/counts.json, which the tests compare.
    #[arg(long, exclusive = true)]
    record: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.record {
        return counts::record();
    }
    let steps = args.steps.map(|steps| steps as usize);
    let model = args.model.as_deref().context("--model: which model?")?;
    let bytes = shipped::find(model, args.precision.map(Into::into), steps, &Bar::default())?;
    let weights = shipped::weights(model, &Model::from_bytes(bytes.as_slice())?)?;
    let parsed = Model::from_bytes(bytes.as_slice())?;
    let (original, start) = original(args, &parsed)?;
    let observation = observation(args, &parsed)?;
    let request = Request { steps: args.steps, seed: args.seed, class: args.class, guidance: args.guidance, start };
    let contents =
        Contents { model: bytes.as_slice(), weights: &weights, original: &original, observation: &observation };
    if args.c {
        return run_c(args, contents, &request);
    }
    let boards = boards::find(&args.target)?;
    if !args.json {
        println!(
            "{:<37} {:<11} {:>13} {:>9} {:>7} {:>6} {:>6} {:>10}  SHA-256",
            "target", "core", "instructions", "max step", "text", "ram+", "stack", "panic-free"
        );
    }
    for board in boards {
        let report = Firmware::build(board, contents)?.draw(&request)?;
        if args.json {
            print_json(&serde_json::to_value(&report)?)?;
            continue;
        }
        let count = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
        println!(
            "{:<37} {:<11} {:>13} {:>9} {:>7} {:>6} {:>6} {:>10}  {}",
            report.target,
            report.core,
            count(report.instructions),
            count(report.max_step_instructions),
            report.text_bytes,
            report.data_bss_bytes,
            report.stack_bytes,
            report.panic_free,
            report.digest
        );
    }
    Ok(())
}

/// The bytes of a picture to start from and of its mask, and the first step.
fn original(args: &Args, model: &Model<'_>) -> anyhow::Result<(Vec<u8>, u32)> {
    let Some(init) = &args.init else { return Ok((vec![], 0)) };
    let shape = model.image_shape();
    let mut bytes = read_png(init, shape)?;
    if let Some(mask) = &args.mask {
        bytes.extend(read_png(mask, [shape[0], shape[1], 1])?);
    }
    Ok((bytes, args.start))
}

/// The bytes of what a policy acts on.
fn observation(args: &Args, model: &Model<'_>) -> anyhow::Result<Vec<u8>> {
    match (&args.observation, model.observation_len()) {
        (None, None) => Ok(vec![]),
        (Some(path), Some(len)) => Ok(Conditions::read_observations(path, len)?.observation_bytes(model, 0)),
        (Some(_), None) => bail!("--observation: the model acts on none; leave it out"),
        (None, Some(len)) => bail!("the model acts on an observation of {len} values: give it with --observation"),
    }
}

fn run_c(args: &Args, contents: Contents<'_>, request: &Request) -> anyhow::Result<()> {
    let targets: Vec<&str> = if args.target == "all" { c::targets().collect() } else { vec![&args.target] };
    for target in targets {
        let digest = c::draw(target, contents, c::Profile::Release, request)?;
        if args.json {
            print_json(&serde_json::json!({ "target": target, "language": "c", "digest": digest }))?;
        } else {
            println!("{target:<37} C           {digest}");
        }
    }
    Ok(())
}
