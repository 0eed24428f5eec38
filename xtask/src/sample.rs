//! `sample`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;
use waft::{Guidance, Model, Request};
use waft_host::image::{Canvas, to_bytes, write_gif};
use waft_host::sample::{Batch, Picture, digest, draw};
use waft_host::shipped;

use crate::args::{Bar, Precision, print_json, write_whole};

/// Draws pictures with the runtime on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of a shipped model, or a .waft file.
    #[arg(long)]
    model: String,
    /// Class to draw; required where the model has classes but none that means "no class".
    #[arg(long)]
    class: Option<u16>,
    /// Seed of the first picture; the others count up from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of pictures.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Steps [default: the first list of the model].
    #[arg(long)]
    steps: Option<u32>,
    /// Classifier-free guidance; other than 1 it doubles the work.
    #[arg(long)]
    guidance: Option<f32>,
    /// Precision of a shipped model [default: i8].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Initial noise instead of seeds: tensor `latents`, (N, C, H, W), f32.
    #[arg(long, value_name = "F.safetensors")]
    latents: Option<PathBuf>,
    /// Where to put the pictures: .png, .gif (a film from noise to picture) or .safetensors.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A PNG shows every step, one row a picture.
    #[arg(long)]
    trajectory: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Most pictures of one call; their samples are kept in memory.
const MAX_COUNT: usize = 1_000_000;

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.count == 0 || args.count > MAX_COUNT {
        bail!("--count {}: draw 1 to {MAX_COUNT} pictures", args.count);
    }
    let kind = args.out.as_deref().map(|path| path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase());
    if let (Some(kind), Some(path)) = (&kind, &args.out)
        && !["png", "gif", "safetensors"].contains(&kind.as_str())
    {
        bail!("--out {}: end it in .png, .gif or .safetensors", path.display());
    }
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
        if !(-1000.0..=1000.0).contains(&guidance) {
            bail!("--guidance {guidance}: between -1000 and 1000");
        }
        request = request.guidance(Guidance::from_f32(guidance));
    }
    let shape = model.image_shape();
    let (latents, count) = match &args.latents {
        None => (None, args.count),
        Some(path) => {
            let (latents, count) = read_latents(path, shape)?;
            (Some(latents), count)
        }
    };
    let film = kind.as_deref() == Some("gif");
    let weights = shipped::weights(&args.model, &model)?;
    let trajectory = args.trajectory || film;
    let batch = Batch { request, seed: args.seed, count, latents, trajectory, weights, ..Batch::default() };
    let pictures = draw(&model, &batch, &Bar::default())?;
    if let (Some(path), Some(kind)) = (&args.out, &kind) {
        write_whole(path, |path| match kind.as_str() {
            "gif" => Ok(write_gif(path, &frames(&pictures, shape))?),
            "png" => Ok(canvas(&pictures, shape, args.trajectory).write_png(path)?),
            _ => write_samples(path, &pictures, shape),
        })?;
    }
    let digest = digest(pictures.iter().map(|picture| picture.bytes.as_slice()));
    if args.json {
        return print_json(&json!({
            "digest": digest,
            "count": count,
            "height": shape[0],
            "width": shape[1],
            "channels": shape[2],
            "precision": waft_host::export::precision_name(model.precision()),
        }));
    }
    println!("{count} pictures, SHA-256 {digest}");
    Ok(())
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

/// Reads `latents` and brings it from (N, C, H, W) to pictures in (row, column, channel) order.
fn read_latents(path: &Path, [rows, cols, channels]: [usize; 3]) -> anyhow::Result<(Vec<f32>, usize)> {
    let tensors = waft_host::tensors::read(path)?;
    let (found, values) = tensors.f32("latents")?;
    let &[count, c, h, w] = found.as_slice() else {
        bail!("{}: latents has shape {found:?}, expected (N, {channels}, {rows}, {cols})", path.display());
    };
    if [c, h, w] != [channels, rows, cols] || count == 0 || count > MAX_COUNT {
        bail!("{}: latents has shape {found:?}, expected (N, {channels}, {rows}, {cols})", path.display());
    }
    Ok((waft_host::tensors::to_hwc(&values, [rows, cols, channels]), count))
}

/// Writes `sample`, (N, C, H, W), clamped to [−1, 1].
fn write_samples(path: &Path, pictures: &[Picture], [rows, cols, channels]: [usize; 3]) -> anyhow::Result<()> {
    let flat: Vec<f32> = pictures.iter().flat_map(|p| &p.sample).map(|v| v.clamp(-1.0, 1.0)).collect();
    let values = waft_host::tensors::to_chw(&flat, [rows, cols, channels]);
    waft_host::tensors::write(path, "sample", &[pictures.len(), channels, rows, cols], &values)
        .with_context(|| path.display().to_string())
}
