//! `sample`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use waft::{Guidance, Model, Request, Rescale};

use super::args::{Bar, Precision, check_extension, check_seeds, guidance, tell_unread};
use super::output::{self, print_json, write_whole};
use super::print_notes;
use crate::condition::Conditions;
use crate::export::precision_name;
use crate::image::{Canvas, encode_gif, read_png, to_bytes};
use crate::sample::{Batch, Picture, Source, digest, draw, first_step, has_noise, leads_to_noise};
use crate::shipped;
use crate::tensors::{self, to_chw, to_hwc};

/// Draws pictures with the runtime on this machine.
#[derive(clap::Args)]
pub struct Args {
    /// Name of a shipped model (digits, emoji, reach), or a .waft file.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Class to draw, from 0; required where the model has classes but none that means "no class".
    #[arg(long, value_name = "N")]
    class: Option<u16>,
    /// Seed of the first picture, 0 to 2^64 - 1; the others count up from it [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Lead from --seed to this seed, the noise of each picture a step further (spherical interpolation); --count says how many
    /// pictures.
    #[arg(long, value_name = "N", conflicts_with_all = ["latents", "noise"])]
    to_seed: Option<u64>,
    /// Number of pictures, 1 to 1000000.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["latents", "noise"])]
    count: usize,
    /// Steps, 1 to 1000, one of the counts that the model carries [default: its first].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Classifier-free guidance towards the class, -1000 to 1000, or a value for each step of the list; other than 1 it doubles
    /// the work of a step [default: 1].
    #[arg(long, value_name = "G[,G...]", value_parser = guidance, value_delimiter = ',', requires = "class")]
    guidance: Vec<f32>,
    /// Guide only the steps between these fractions of the list, 0 to 1, as START and STOP of diffusers' guiders; the others
    /// take one network call [default: 0,1].
    #[arg(long, value_name = "START,STOP", value_parser = fraction, value_delimiter = ',', num_args = 1.., requires = "guidance")]
    guidance_interval: Vec<f64>,
    /// Bring guided predictions back to the contrast of those without, 0 (not at all) to 1 (Lin et al., 2023) [default: 0].
    #[arg(long, value_name = "PHI", value_parser = fraction, requires = "guidance")]
    guidance_rescale: Option<f64>,
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
    /// Take each part of so many steps so often, with noise leading back in between (RePaint): what is drawn comes to fit what
    /// is kept.
    #[arg(long, value_name = "STEPS,TIMES", value_delimiter = ',', num_args = 1.., requires = "mask", conflicts_with = "noise")]
    resample: Vec<u32>,
    /// What a model reads beside the sample: a .png, whose bytes become -1 to 1, or tensor `condition`, (N, C, H, W), f32;
    /// pictures take turns.
    #[arg(long, value_name = "F.png|F.safetensors")]
    condition: Option<PathBuf>,
    /// What a policy acts on: tensor `observation`, (N, D), f32, in the units of its training data, the oldest step first; runs
    /// take turns.
    #[arg(long, value_name = "F.safetensors")]
    observation: Option<PathBuf>,
    /// Where to put the pictures: .png (scaled up, in a grid), .gif (from noise to picture) or .safetensors (tensor
    /// `sample`, (N, C, H, W), f32, -1 to 1; of a model that leads from a picture to its noise tensor `latents`, unbounded, which
    /// --latents reads; of a policy `actions`, (N, steps, actions), f32, in the units of its training data).
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
    ensure!(args.class.is_none() || model.classes() > 0, "--class: the model has no classes; leave it out");
    let shape = model.image_shape();
    let schedule = request.schedule(&model)?;
    let guidance;
    (request, guidance) = guided(args, request, schedule.steps)?;
    let is_inverse = leads_to_noise(&model, &schedule);
    ensure!(
        !is_inverse || (args.init.is_some() && args.mask.is_none()),
        "the model's steps lead from a picture to its noise: give one with --init, without --mask"
    );
    let mut original = args.init.as_deref().map(|path| read_original(path, args.mask.as_deref(), shape)).transpose()?;
    if let Some(original) = &mut original {
        original.resampling = match args.resample[..] {
            [] => None,
            [jump, times] => Some([jump, times]),
            _ => bail!("--resample: give two numbers, as 5,3"),
        };
    }
    if let Some(original) = &original {
        let strength = args.strength.unwrap_or(if original.mask.is_some() || is_inverse { 1.0 } else { 0.8 });
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
    ensure!(
        args.observation.is_none() || model.observation_len().is_some(),
        "--observation: the model acts on none; leave it out"
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
    let seed = args.seed.unwrap_or(0);
    if from_seed && args.to_seed.is_none() {
        check_seeds(seed, count)?;
    }
    let has_gradient = model.header().gradient != 0;
    let mut notes = without_effect(args, &request, (schedule.steps, has_gradient), [conditions.len(), count]);
    if has_gradient && !args.guidance_interval.is_empty() {
        notes.extend(scale_outside(&request, schedule.steps));
    }
    print_notes(notes.iter().map(String::as_str));
    let batch = Batch {
        request,
        seed,
        to_seed: args.to_seed,
        count,
        guidance,
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
        write_whole(path, &encode(&kind, &pictures, shape, args.trajectory, is_inverse)?)?;
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
    let what = if pictures.iter().any(|picture| !picture.actions.is_empty()) { "action sequence" } else { "picture" };
    let ending = if count == 1 { "" } else { "s" };
    output::print(&format!("{count} {what}{ending}, SHA-256 {digest}\n"))
}

/// The request with its guidance, and that of each step if there are several.
fn guided(args: &Args, request: Request, steps: u32) -> anyhow::Result<(Request, Vec<Guidance>)> {
    let scales: Vec<Guidance> = args.guidance.iter().copied().map(Guidance::from_f32).collect();
    let several = if scales.len() > 1 { scales.clone() } else { vec![] };
    ensure!(
        several.is_empty() || several.len() == steps as usize,
        "--guidance: {} values for {steps} steps; give one, or one for each step",
        several.len()
    );
    // The request's is what the model must have room for.
    let asked = scales.iter().copied().find(|&scale| scale != Guidance::NONE).unwrap_or_default();
    let mut request = request.guidance(asked);
    match args.guidance_interval[..] {
        [] => {}
        [start, stop] if start <= stop => {
            let step = |fraction: f64| (fraction * f64::from(steps)) as u32;
            request = request.guidance_interval(step(start), step(stop));
        }
        _ => bail!("--guidance-interval: give two fractions, the first not above the second, as 0.2,0.8"),
    }
    if let Some(share) = args.guidance_rescale {
        request = request.guidance_rescale(Rescale::from_f32(share as f32));
    }
    Ok((request, several))
}

/// What was asked for and changes nothing.
fn without_effect(
    args: &Args,
    request: &Request,
    (steps, has_gradient): (u32, bool),
    [given, count]: [usize; 2],
) -> Vec<String> {
    let mut notes = vec![];
    let is_guided = (0..steps).any(|step| request.guidance_at(step) != Guidance::NONE);
    for (option, is_given) in [
        // A classifier guides at scale 1 too.
        ("--guidance-interval", !args.guidance_interval.is_empty() && !has_gradient),
        ("--guidance-rescale", args.guidance_rescale.is_some()),
    ] {
        if is_given && !is_guided {
            notes.push(format!("{option} has no effect: no step is guided"));
        }
    }
    if args.to_seed.is_some() && count == 1 {
        notes.push("--to-seed has no effect on one picture: --count says how many".into());
    }
    if given > count {
        notes.push(format!("the first {count} of {given} conditions or observations are used: --count draws more"));
    }
    notes
}

/// Without guidance a classifier's gradient has scale 1, so that an interval does not leave it out.
fn scale_outside(request: &Request, steps: u32) -> Option<String> {
    let nothing = request.guidance(Guidance::from_ratio(0, 1));
    (0..steps).any(|step| nothing.guidance_at(step) == Guidance::NONE).then(|| {
        "outside of --guidance-interval the classifier's gradient has scale 1: for none, give --guidance a scale for each step, \
         with 0 there"
            .into()
    })
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
        (Some(path), Some(len)) => Ok(Conditions::read_observations(path, len)?),
        (_, None) => Ok(Conditions::default()),
        (None, Some(len)) => bail!("the model acts on an observation of {len} values: give it with --observation"),
    }
}

fn encode(
    kind: &str,
    pictures: &[Picture],
    shape: [usize; 3],
    trajectory: bool,
    is_noise: bool,
) -> anyhow::Result<Vec<u8>> {
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
            // Noise is what --latents reads, and leaves the range of pictures.
            let (name, bound) = if is_noise { ("latents", f32::INFINITY) } else { ("sample", 1.0) };
            let flat: Vec<f32> = pictures.iter().flat_map(|p| &p.sample).map(|v| v.clamp(-bound, bound)).collect();
            bytes = tensors::encode(name, &[pictures.len(), channels, rows, cols], &to_chw(&flat, shape))?;
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

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("a fraction is a number from 0 to 1".into()),
    }
}

/// Reads the picture to start from, and its mask.
fn read_original(image: &Path, mask: Option<&Path>, shape: [usize; 3]) -> anyhow::Result<Source> {
    let read = |path: &Path, shape| read_png(path, shape).with_context(|| format!("cannot use {}", path.display()));
    let mask = mask.map(|path| read(path, [shape[0], shape[1], 1])).transpose()?;
    Ok(Source { image: read(image, shape)?, mask, resampling: None })
}

/// Reads `latents` and brings it from (N, C, H, W) to pictures in (row, column, channel) order.
fn read_latents(path: &Path, [rows, cols, channels]: [usize; 3]) -> anyhow::Result<(Vec<f32>, usize)> {
    let tensors = tensors::read(path)?;
    // One file may hold both.
    tell_unread(path, &tensors, &["latents", "noise"]);
    let (found, values) = tensors.f32("latents")?;
    match *found.as_slice() {
        [count, c, h, w] if [c, h, w] == [channels, rows, cols] && (1..=MAX_COUNT).contains(&count) => {
            Ok((to_hwc(&values, [rows, cols, channels]), count))
        }
        _ => bail!("{}: latents has shape {found:?}, expected (N, {channels}, {rows}, {cols})", path.display()),
    }
}

/// Reads `noise` and brings it from (steps, N, C, H, W) to the order of [`Batch::noise`].
fn read_noise(path: &Path, steps: usize, [rows, cols, channels]: [usize; 3]) -> anyhow::Result<(Vec<f32>, usize)> {
    let tensors = tensors::read(path)?;
    tell_unread(path, &tensors, &["latents", "noise"]);
    let (found, values) = tensors.f32("noise")?;
    match *found.as_slice() {
        [s, count, c, h, w] if [s, c, h, w] == [steps, channels, rows, cols] && (1..=MAX_COUNT).contains(&count) => {
            Ok((to_hwc(&values, [rows, cols, channels]), count))
        }
        _ => {
            bail!("{}: noise has shape {found:?}, expected ({steps}, N, {channels}, {rows}, {cols})", path.display())
        }
    }
}
