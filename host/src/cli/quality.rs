//! `quality`.

use std::fmt::{self, Write};
use std::path::PathBuf;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use waft::Guidance;

use super::args::{Backend, Bar, GuideArgs, check_extension, check_seeds, guidance, open_device};
use super::output::{self, print_json, write_whole};
use crate::gpu::Device;
use crate::quality::metrics::Estimate;
use crate::quality::shard::{self, Shard};
use crate::quality::{Figures, Options, Quality, Setup, report};
use crate::schedule::Solver;
use crate::shipped;

/// Measures what quantization costs: Fréchet distance, Inception Score, precision, recall, class accuracy, PSNR, SSIM.
#[derive(clap::Args)]
pub struct Args {
    /// Name of a shipped model, all of whose files are measured, or a .waft file.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Checkpoint that the f32 pictures come from [default: the folder `checkpoint` beside the file].
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Classifier whose features pictures are compared by, as models/judge.py writes it [default: judge.safetensors beside
    /// the file, or pixels].
    #[arg(long, value_name = "F.safetensors")]
    judge: Option<PathBuf>,
    /// Folder of real pictures, PNG files of the model's size [default: the judge's training data].
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// Pictures of each model, 16 to 1000000 [default: 2000, or fewer of large models, at least 500].
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Steps, 1 to 1000, one of the counts that the model carries [default: its first].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Timesteps that the file was exported with, where the checkpoint names others.
    #[arg(long, value_name = "T[,T...]", value_delimiter = ',', conflicts_with = "steps")]
    timesteps: Vec<i64>,
    /// Sampler that the file was exported with, where the checkpoint names another.
    #[arg(long, value_name = "NAME")]
    scheduler: Option<Solver>,
    /// Scale of guidance, by a classifier if one is named, -1000 to 1000.
    #[arg(long, value_name = "G", default_value_t = 1.0, value_parser = guidance)]
    guidance: f32,
    /// Seed of the first picture, 0 to 2^64 - 1; the others count up from it.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    seed: u64,
    #[command(flatten)]
    guide: GuideArgs,
    /// What draws the pictures [default: a GPU if there is one].
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Draw one part of the pictures, `i/n` with `i` from 0, into the file that --out names, for `merge`.
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
pub struct MergeArgs {
    /// All files of `quality --shard`.
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs `merge`.
pub(super) fn merge(args: &MergeArgs) -> anyhow::Result<()> {
    check_extension("--report", args.output.report.as_deref(), &["html"])?;
    if let Some(report) = &args.output.report {
        output::check(&output::all("SHARDS", &args.shards), &[("--report", report)])?;
    }
    let (model, quality) = shard::merge(&args.shards, &Bar::default())?;
    args.output.show(&model, &quality)
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_files(args)?;
    let options = Options {
        checkpoint: args.checkpoint.clone(),
        judge: args.judge.clone(),
        real: args.real.clone(),
        count: args.count,
        steps: args.steps,
        timesteps: args.timesteps.clone(),
        solver: args.scheduler,
        guidance: Guidance::from_f32(args.guidance),
        classifier: args.guide.classifier.clone(),
        unconditional: args.guide.unconditional,
        seed: args.seed,
    };
    let mut device = open_device(args.backend)?;
    let device = device.as_mut().map(|device| &mut **device as &mut dyn Device);
    let setup = Setup::new(&args.model, &options, &Bar::default())?;
    check_seeds(args.seed, setup.count)?;
    if let (Some(shard), Some(path), Some(name)) = (args.shard, &args.out, args.model.to_str()) {
        let range = shard.range(setup.count);
        let pictures = setup.draw(range.clone(), device, &Bar::default())?;
        let bytes = shard::encode(name, &options, &setup, range.start, &pictures)?;
        write_whole(path, &bytes)?;
        let text = format!("{}: pictures {} to {} of {}\n", path.display(), range.start, range.end, setup.count);
        return output::print(&text);
    }
    let pictures = setup.draw(0..setup.count, device, &Bar::default())?;
    args.output.show(&args.model.to_string_lossy(), &setup.evaluate(pictures)?)
}

impl Output {
    fn show(&self, model: &str, quality: &Quality) -> anyhow::Result<()> {
        if let Some(path) = &self.report {
            let page = report::html(quality, model)?;
            write_whole(path, page.as_bytes())?;
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
        let mut text = format!(
            "{model}: {} pictures, {} steps, compared by {}\nvalues with their 95 % intervals over resampled pictures\n",
            quality.count, quality.steps, quality.features
        );
        for figures in std::iter::once(&quality.reference).chain(quality.files.iter().map(|(figures, _)| figures)) {
            write_figures(&mut text, figures)?;
        }
        output::print(&text)
    }
}

fn check_files(args: &Args) -> anyhow::Result<()> {
    check_extension("--report", args.output.report.as_deref(), &["html"])?;
    check_extension("--out", args.out.as_deref(), &["safetensors"])?;
    let model = shipped::sources(&args.model, args.steps.map(|steps| steps as usize));
    let mut inputs = output::all("--model", &model);
    let folder = match args.model.is_file() {
        true => args.model.with_file_name(""),
        false => shipped::models_folder().join(&args.model),
    };
    let [judge, checkpoint] = ["judge.safetensors", "checkpoint"].map(|name| folder.join(name));
    inputs.push(("--judge", args.judge.as_deref().unwrap_or(&judge)));
    inputs.push(("--checkpoint", args.checkpoint.as_deref().unwrap_or(&checkpoint)));
    inputs.extend(args.real.as_deref().map(|path| ("--real", path)));
    inputs.extend(args.guide.classifier.as_deref().map(|path| ("--classifier", path)));
    if args.shard.is_some() {
        let model = [("--model", args.model.as_path())];
        let others = [
            ("--checkpoint", &args.checkpoint),
            ("--judge", &args.judge),
            ("--real", &args.real),
            ("--classifier", &args.guide.classifier),
        ];
        let others = others.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        for (option, path) in model.into_iter().chain(others) {
            let text = path.to_str();
            ensure!(text.is_some(), "{option} {path:?}: a shard holds the names of its inputs as text; rename it");
        }
    }
    let outputs = [("--report", &args.output.report), ("--out", &args.out)];
    let outputs: Vec<output::Named<'_>> =
        outputs.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?))).collect();
    output::check(&inputs, &outputs)
}

fn write_figures(text: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(
        text,
        "\n{} ({}): {} bytes of flash, {} of arena",
        figures.name, figures.arithmetic, figures.flash_bytes, figures.arena_bytes
    )?;
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
            writeln!(text, "  {name:<18} {value:>10.4}  [{low:.4}, {high:.4}]")?;
        }
    }
    Ok(())
}
