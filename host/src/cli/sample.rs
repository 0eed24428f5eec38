//! `sample`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use waft::{Guidance, Model, Request};

use super::args::{Bar, Precision, check_extension, guidance};
use super::output::{self, print_json, write_whole};
use crate::condition::Conditions;
use crate::export::precision_name;
use crate::image::{Canvas, encode_gif, read_png, to_bytes};
use crate::sample::{Batch, Picture, Source, digest, draw, first_step, has_noise};
use crate::shipped;
use crate::tensors::{self, to_chw, to_hwc};

/// Draws pictures with the runtime on this machine.
#[derive(clap::Args)]
pub struct Args {
    /// Name of a shipped model (digits, emoji, reach), or a .waft file.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Class to draw, from 0; required where the model has classes but none that means "no class".
    #[arg(long, value_name = "N")]
    class: Option<u16>,
    /// Seed of the first picture, 0 to 2^64 - 1; the others count up from it [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of pictures, 1 to 1000000.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["latents", "noise"])]
    count: usize,
    /// Steps, 1 to 1000, one of the counts that the model carries [default: its first].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Classifier-free guidance towards the class, -1000 to 1000; other than 1 it doubles the work [default: 1].
    #[arg(long, value_name = "G", value_parser = guidance, requires = "class")]
    guidance: Option<f32>,
    /// Precision of a shipped model [default: i8].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Initial noise instead of seeds: tensor `latents`, (N, C, H, W), f32, between -2048 and 2048.
    #[arg(long, value_name = "F.safetensors")]
    latents: Option<PathBuf>,
    /// Noise of the steps instead of seeds, where the model was exported with eta above 0: tensor `noise`,
    /// (steps, N, C, H, W), f32, between -2048 and 2048; steps that take no noise skip theirs.
    #[arg(long, value_name = "F.safetensors")]
    noise: Option<PathBuf>,
    /// Picture to start from instead of noise alone: a PNG of the model's size and channels (diffusers' image-to-image).
    #[arg(long, value_name = "F.png")]
    init: Option<PathBuf>,
    /// How much of the way from noise is taken, above 0, at most 1: of N steps the last N·S, rounded down [default: 0.8, or
    /// 1 with --mask].
    #[arg(long, value_name = "S", value_parser = strength, requires = "init")]
    strength: Option<f64>,
    /// Draw only the pixels that are 128 or more in this grey PNG, and keep the rest of --init (inpainting).
    #[arg(long, value_name = "F.png", requires = "init")]
    mask: Option<PathBuf>,
    /// What a model reads beside the sample: a .png, whose bytes become -1 to 1, or tensor `condition`, (N, C, H, W), f32;
    /// pictures take turns.
    #[arg(long, value_name = "F.png|F.safetensors")]
    condition: Option<PathBuf>,
    /// What a policy acts on: tensor `observation`, (N, D), f32, in the units of its training data, the oldest step first; runs
    /// take turns.
    #[arg(long, value_name = "F.safetensors")]
    observation: Option<PathBuf>,
    /// Where to put the pictures: .png (scaled up, in a grid), .gif (from noise to picture) or .safetensors (tensor
    /// `sample`, (N, C, H, W), f32, -1 to 1; of a policy `actions`, (N, steps, actions), f32, in the units of its training data).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show every step in the PNG, one row a picture.
    #[arg(long, requires = "out")]
    trajectory: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Most pictures of one call; their samples are kept in memory.
const MAX_COUNT: usize = 1_000_000;

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((1..=MAX_COUNT).contains(&args.count), "--count {}: draw 1 to {MAX_COUNT} pictures", args.count);
    check_extension("--out", args.out.as_deref(), &["png", "gif", "safetensors"])?;
    check_extension("--condition", args.condition.as_deref(), &["png", "safetensors"])?;
    check_extension("--observation", args.observation.as_deref(), &["safetensors"])?;
    let kind = args.out.as_deref().and_then(|path| path.extension()?.to_str()).unwrap_or_default().to_lowercase();
    ensure!(!args.trajectory || kind == "png", "--trajectory shows the steps in a .png; leave it out for a .{kind}");
    check_files(args)?;

    let steps = args.steps.map(|steps| steps as usize);
    let bytes = shipped::find(&args.model, args.precision.map(Into::into), steps, &Bar::default())?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let mut request = Request::new();
    if let Some(class) = args.class {
        request = request.class(class);
    }
    if let Some(steps) = args.steps {
        request = request.steps(steps);
    }
    if let Some(guidance) = args.guidance {
        request = request.guidance(Guidance::from_f32(guidance));
    }
    ensure!(args.class.is_none() || model.classes() > 0, "--class: the model has no classes; leave it out");
    let shape = model.image_shape();
    let schedule = request.schedule(&model)?;
    let original = args.init.as_deref().map(|path| read_original(path, args.mask.as_deref(), shape)).transpose()?;
    if let Some(original) = &original {
        let strength = args.strength.unwrap_or(if original.mask.is_some() { 1.0 } else { 0.8 });
        let first = first_step(&model, &schedule, strength);
        request = request.start(first.with_context(|| format!("--strength {strength}: takes no step; ask for more"))?);
    }
    let noisy = has_noise(&model, &schedule);
    ensure!(args.noise.is_none() || noisy, "--noise: no step of the model takes noise; export it with --eta above 0");
    // What is added to a picture is drawn like the initial noise.
    let from_seed = args.latents.is_none() || (noisy && args.noise.is_none());
    ensure!(args.seed.is_none() || from_seed, "--seed has no effect: all noise comes from files; leave it out");
    let latents = args.latents.as_deref().map(|path| read_latents(path, shape)).transpose()?;
    let noise = args.noise.as_deref().map(|path| read_noise(path, schedule.steps as usize, shape)).transpose()?;
    let count = match (&latents, &noise) {
        (Some((_, latents)), Some((_, noise))) if latents != noise => {
            bail!("--latents holds {latents} pictures, --noise {noise}; give both the same number")
        }
        (Some((_, count)), _) | (None, Some((_, count))) => *count,
        (None, None) => args.count,
    };
    ensure!(
        !model.has_actions() || kind.is_empty() || kind == "safetensors",
        "--out: the model draws actions, not pictures; give a .safetensors file"
    );
    let conditions = match (&args.condition, model.condition_shape()) {
        (None, None) => observations(args.observation.as_deref(), &model)?,
        (Some(path), Some(shape)) => Conditions::read(path, shape)?,
        (Some(_), None) => bail!("--condition: the model reads none; leave it out"),
        (None, Some([rows, columns, channels])) => {
            bail!(
                "the model reads a condition of {rows}x{columns} pixels of {channels} channels: give it with --condition"
            )
        }
    };
    let batch = Batch {
        request,
        seed: args.seed.unwrap_or(0),
        count,
        latents: latents.map(|(values, _)| values),
        noise: noise.map(|(values, _)| values),
        original,
        conditions,
        trajectory: args.trajectory || kind == "gif",
        weights: shipped::weights(&args.model, &model)?,
        ..Batch::default()
    };
    let pictures = draw(&model, &batch, &Bar::default())?;
    if let Some(path) = &args.out {
        write_whole(path, &encode(&kind, &pictures, shape, args.trajectory)?)?;
    }
    let digest = digest(pictures.iter().map(|picture| picture.bytes.as_slice()));
    if args.json {
        return print_json(&json!({
            "digest": digest,
            "count": count,
            "height": shape[0],
            "width": shape[1],
            "channels": shape[2],
            "precision": precision_name(model.precision()),
        }));
    }
    output::print(&format!("{count} pictures, SHA-256 {digest}\n"))
}

fn check_files(args: &Args) -> anyhow::Result<()> {
    let model = shipped::sources(&args.model, args.steps.map(|steps| steps as usize));
    let mut inputs = output::all("--model", &model);
    inputs.extend(args.latents.as_deref().map(|path| ("--latents", path)));
    inputs.extend(args.init.as_deref().map(|path| ("--init", path)));
    inputs.extend(args.mask.as_deref().map(|path| ("--mask", path)));
    inputs.extend(args.noise.as_deref().map(|path| ("--noise", path)));
    inputs.extend(args.condition.as_deref().map(|path| ("--condition", path)));
    inputs.extend(args.observation.as_deref().map(|path| ("--observation", path)));
    let outputs: Vec<output::Named<'_>> = args.out.as_deref().map(|path| ("--out", path)).into_iter().collect();
    output::check(&inputs, &outputs)
}

/// The observations that a policy acts on; none for another model.
fn observations(path: Option<&Path>, model: &Model<'_>) -> anyhow::Result<Conditions> {
    match (path, model.observation_len()) {
        (None, None) => Ok(Conditions::default()),
        (Some(path), Some(len)) => Ok(Conditions::read_observations(path, len)?),
        (Some(_), None) => bail!("--observation: the model acts on none; leave it out"),
        (None, Some(len)) => bail!("the model acts on an observation of {len} values: give it with --observation"),
    }
}

fn encode(kind: &str, pictures: &[Picture], shape: [usize; 3], trajectory: bool) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![];
    match kind {
        "gif" => encode_gif(&mut bytes, &frames(pictures, shape))?,
        "png" => canvas(pictures, shape, trajectory).encode_png(&mut bytes)?,
        _ if pictures.iter().any(|picture| !picture.actions.is_empty()) => {
            let [rows, cols, channels] = shape;
            let actions: Vec<f32> = pictures.iter().flat_map(|picture| &picture.actions).copied().collect();
            bytes = tensors::encode("actions", &[pictures.len(), rows * cols, channels], &actions)?;
        }
        _ => {
            let [rows, cols, channels] = shape;
            let flat: Vec<f32> = pictures.iter().flat_map(|p| &p.sample).map(|v| v.clamp(-1.0, 1.0)).collect();
            bytes = tensors::encode("sample", &[pictures.len(), channels, rows, cols], &to_chw(&flat, shape))?;
        }
    }
    Ok(bytes)
}

fn columns(count: usize) -> usize {
    (1..=count).find(|n| n * n >= count).unwrap_or(1)
}

fn canvas(pictures: &[Picture], shape: [usize; 3], trajectory: bool) -> Canvas {
    if !trajectory {
        return Canvas::grid(pictures.iter().map(|p| p.bytes.as_slice()), shape, columns(pictures.len()));
    }
    let cells: Vec<Vec<u8>> = pictures.iter().flat_map(|p| &p.trajectory).map(|sample| to_bytes(sample)).collect();
    let columns = pictures.first().map_or(1, |p| p.trajectory.len());
    Canvas::grid(cells.iter().map(Vec::as_slice), shape, columns)
}

fn frames(pictures: &[Picture], shape: [usize; 3]) -> Vec<Canvas> {
    let count = pictures.first().map_or(0, |p| p.trajectory.len());
    (0..count)
        .map(|step| {
            let cells: Vec<Vec<u8>> = pictures.iter().map(|p| to_bytes(&p.trajectory[step])).collect();
            Canvas::grid(cells.iter().map(Vec::as_slice), shape, columns(pictures.len()))
        })
        .collect()
}

fn strength(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(strength) if strength > 0.0 && strength <= 1.0 => Ok(strength),
        _ => Err("strength is a number above 0, at most 1".into()),
    }
}

/// Reads the picture to start from, and its mask.
fn read_original(image: &Path, mask: Option<&Path>, shape: [usize; 3]) -> anyhow::Result<Source> {
    let read = |path: &Path, shape| read_png(path, shape).with_context(|| format!("cannot use {}", path.display()));
    let mask = mask.map(|path| read(path, [shape[0], shape[1], 1])).transpose()?;
    Ok(Source { image: read(image, shape)?, mask })
}

/// Reads `latents` and brings it from (N, C, H, W) to pictures in (row, column, channel) order.
fn read_latents(path: &Path, [rows, cols, channels]: [usize; 3]) -> anyhow::Result<(Vec<f32>, usize)> {
    let (found, values) = tensors::read(path)?.f32("latents")?;
    match *found.as_slice() {
        [count, c, h, w] if [c, h, w] == [channels, rows, cols] && (1..=MAX_COUNT).contains(&count) => {
            Ok((to_hwc(&values, [rows, cols, channels]), count))
        }
        _ => bail!("{}: latents has shape {found:?}, expected (N, {channels}, {rows}, {cols})", path.display()),
    }
}

/// Reads `noise` and brings it from (steps, N, C, H, W) to the order of [`Batch::noise`].
fn read_noise(path: &Path, steps: usize, [rows, cols, channels]: [usize; 3]) -> anyhow::Result<(Vec<f32>, usize)> {
    let (found, values) = tensors::read(path)?.f32("noise")?;
    match *found.as_slice() {
        [s, count, c, h, w] if [s, c, h, w] == [steps, channels, rows, cols] && (1..=MAX_COUNT).contains(&count) => {
            Ok((to_hwc(&values, [rows, cols, channels]), count))
        }
        _ => {
            bail!("{}: noise has shape {found:?}, expected ({steps}, N, {channels}, {rows}, {cols})", path.display())
        }
    }
}
