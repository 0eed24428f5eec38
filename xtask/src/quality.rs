//! `quality`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Map, Value, json};
use waft::Guidance;
use waft_host::gpu::Device;
use waft_host::quality::metrics::Estimate;
use waft_host::quality::shard::{self, Shard};
use waft_host::quality::{Figures, Options, Quality, Setup, report};

use crate::args::{Backend, Bar, check_report, print_json, write_whole};

/// Measures what quantization costs: Fréchet distance, Inception Score, precision, recall, class accuracy, PSNR, SSIM.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of a shipped model, all of whose files are measured, or a .waft file.
    #[arg(long)]
    model: String,
    /// Checkpoint that the f32 pictures come from [default: the folder `checkpoint` beside the file].
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Classifier whose features pictures are compared by, as models/judge.py writes it [default: judge.safetensors beside
    /// the file, or pixels].
    #[arg(long)]
    judge: Option<PathBuf>,
    /// Folder of real pictures, PNG files of the model's size [default: the judge's training data].
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// Pictures of each model, 16 to 1000000 [default: 2000, or fewer of large models, at least 500].
    #[arg(long)]
    count: Option<usize>,
    /// Steps [default: the first list of the model].
    #[arg(long)]
    steps: Option<u32>,
    /// Classifier-free guidance.
    #[arg(long, default_value_t = 1.0)]
    guidance: f32,
    /// Seed of the first picture; the others count up from it.
    #[arg(long, default_value_t = 20_000)]
    seed: u64,
    /// What draws the pictures [default: a GPU if there is one].
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Draw one part of the pictures, `i/n` with `i` from 0, into the file that --out names, for `cargo xtask merge`.
    #[arg(long, value_name = "i/n", requires = "out", conflicts_with_all = ["report", "json"])]
    shard: Option<Shard>,
    /// File of the shard.
    #[arg(long, value_name = "F.safetensors", requires = "shard")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// How figures are shown.
#[derive(clap::Args)]
struct Output {
    /// A page with the figures and pictures side by side, the worst first.
    #[arg(long, value_name = "F.html")]
    report: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Puts the shards of an evaluation together and prints what `quality` prints for the whole.
#[derive(clap::Args)]
pub(crate) struct MergeArgs {
    /// All files of `quality --shard`.
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs `merge`.
pub(crate) fn merge(args: &MergeArgs) -> anyhow::Result<()> {
    check_report(args.output.report.as_deref())?;
    let (model, quality) = shard::merge(&args.shards, &Bar::default())?;
    args.output.show(&model, &quality)
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !(-1000.0..=1000.0).contains(&args.guidance) {
        bail!("--guidance {}: between -1000 and 1000", args.guidance);
    }
    check_report(args.output.report.as_deref())?;
    let options = Options {
        checkpoint: args.checkpoint.clone(),
        judge: args.judge.clone(),
        real: args.real.clone(),
        count: args.count,
        steps: args.steps,
        guidance: Guidance::from_f32(args.guidance),
        seed: args.seed,
    };
    let mut device: Option<Box<dyn Device>> = match args.backend {
        Some(Backend::Cpu) => None,
        Some(Backend::Cuda) => Some(Backend::Cuda.open()?),
        None => Backend::Cuda.open().ok(),
    };
    let device = device.as_mut().map(|device| &mut **device as &mut dyn Device);
    let setup = Setup::new(&args.model, &options, &Bar::default())?;
    if let (Some(shard), Some(path)) = (args.shard, &args.out) {
        let range = shard.range(setup.count);
        let pictures = setup.draw(range.clone(), device, &Bar::default())?;
        let bytes = shard::encode(&args.model, &options, &setup, range.start, &pictures)?;
        write_whole(path, |path| Ok(std::fs::write(path, bytes)?))?;
        println!("{}: pictures {} to {} of {}", path.display(), range.start, range.end, setup.count);
        return Ok(());
    }
    let pictures = setup.draw(0..setup.count, device, &Bar::default())?;
    args.output.show(&args.model, &setup.evaluate(pictures)?)
}

impl Output {
    fn show(&self, model: &str, quality: &Quality) -> anyhow::Result<()> {
        if let Some(path) = &self.report {
            let page = report::html(quality, model)?;
            write_whole(path, |path: &Path| Ok(std::fs::write(path, page)?))?;
        }
        let Some((default, _)) = quality.files.first() else { return Ok(()) };
        if self.json {
            let value = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.value);
            let files: Map<String, Value> = quality
                .files
                .iter()
                .map(|(figures, _)| Ok((figures.name.clone(), serde_json::to_value(figures)?)))
                .collect::<anyhow::Result<_>>()?;
            return print_json(&json!({
                "model": model,
                "count": quality.count,
                "steps": quality.steps,
                "guidance": quality.guidance,
                "features": quality.features,
                "fid_f32": quality.reference.fid.value,
                "fid": default.fid.value,
                "precision": default.precision.value,
                "recall": default.recall.value,
                "inception_score": value(default.inception_score),
                "class_accuracy": value(default.class_accuracy),
                "psnr_median_db": value(default.psnr_median_db),
                "f32": serde_json::to_value(&quality.reference)?,
                "files": files,
            }));
        }
        println!("{model}: {} pictures, {} steps, compared by {}", quality.count, quality.steps, quality.features);
        println!("values with their 95 % intervals over resampled pictures");
        print_figures(&quality.reference);
        quality.files.iter().for_each(|(figures, _)| print_figures(figures));
        Ok(())
    }
}

fn print_figures(figures: &Figures) {
    println!(
        "\n{} ({}): {} bytes of flash, {} of arena",
        figures.name, figures.arithmetic, figures.flash_bytes, figures.arena_bytes
    );
    for (name, estimate) in [
        ("Fréchet distance", Some(figures.fid)),
        ("  above f32", Some(figures.fid_above_f32)),
        ("precision", Some(figures.precision)),
        ("recall", Some(figures.recall)),
        ("Inception Score", figures.inception_score),
        ("class accuracy", figures.class_accuracy),
        ("median PSNR, dB", figures.psnr_median_db),
        ("mean SSIM", figures.ssim_mean),
    ] {
        if let Some(Estimate { value, interval: [low, high] }) = estimate {
            println!("  {name:<18} {value:>10.4}  [{low:.4}, {high:.4}]");
        }
    }
}
