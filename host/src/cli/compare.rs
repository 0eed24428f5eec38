//! `compare`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;
use waft::Guidance;

use super::args::{
    Backend, Bar, CheckpointArgs, GuideArgs, Precision, check_extension, check_seeds, guidance, open_device,
};
use super::output::{self, print_json, write_whole};
use super::print_notes;
use crate::compare::{Combination, Comparison, Options, Outcome, compare};
use crate::cost::chips::{CHIPS, Chip};
use crate::export::precision_name;
use crate::gpu::Device;
use crate::image::Canvas;
use crate::schedule::Solver;
use crate::shipped;

/// Draws the same seeds with several samplers and step counts, and tells what the pictures are worth and cost.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a checkpoint, or the name of a shipped model (digits, emoji).
    checkpoint: PathBuf,
    /// Samplers [default: the checkpoint's own, and all that take over its noise levels].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME[,NAME...]")]
    scheduler: Vec<Solver>,
    /// Step counts, 1 to 1000 each, at most 16.
    #[arg(long, value_delimiter = ',', value_name = "N[,N...]", default_value = "5,10,20",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Vec<u32>,
    /// How the device computes.
    #[arg(long, value_enum, default_value = "i8")]
    precision: Precision,
    /// Scale of guidance, by a classifier if one is named, -1000 to 1000.
    #[arg(long, value_name = "G", default_value_t = 1.0, value_parser = guidance)]
    guidance: f32,
    /// Pictures of each sampler and step count, 16 to 1000000.
    #[arg(long, value_name = "N", default_value_t = 500)]
    count: usize,
    /// Seed of the first picture, 0 to 2^64 - 1; the others count up from it.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    seed: u64,
    /// Chip whose instructions and seconds are estimated.
    #[arg(long, value_parser = chip, value_name = "NAME", default_value = "RP2350")]
    chip: Chip,
    /// Classifier whose features pictures are compared by, as models/judge.py writes it [default: judge.safetensors in the
    /// checkpoint's folder or beside it, or pixels].
    #[arg(long, value_name = "F.safetensors")]
    judge: Option<PathBuf>,
    /// Folder of real pictures, PNG files of the model's size [default: the judge's training data].
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    #[command(flatten)]
    guide: GuideArgs,
    /// What draws the pictures [default: a GPU if there is one].
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Where to put the first ten pictures of each, one row a line of the table, in its order.
    #[arg(long, value_name = "F.png")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: CheckpointArgs,
}

/// Pictures of a row of the grid.
const SHOWN: usize = 10;
/// Step counts of one call.
const MOST_COUNTS: usize = 16;
/// By how much a distance may be above the least to be good enough.
const TOLERANCE: f64 = 0.1;

fn chip(name: &str) -> Result<Chip, String> {
    let known = CHIPS.iter().map(|chip| chip.name).collect::<Vec<_>>().join(", ");
    let found = CHIPS.iter().find(|chip| chip.name.eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| format!("use one of {known}"))
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_extension("--out", args.out.as_deref(), &["png"])?;
    let folder = match args.checkpoint.is_dir() {
        true => args.checkpoint.clone(),
        false => shipped::checkpoint(&args.checkpoint)?,
    };
    check_files(args, &folder)?;
    check_seeds(args.seed, args.count)?;
    ensure!(args.steps.len() <= MOST_COUNTS, "--steps: {} counts, at most {MOST_COUNTS}", args.steps.len());
    let steps: Vec<usize> = args.steps.iter().map(|&steps| steps as usize).collect();
    for (index, steps) in args.steps.iter().enumerate() {
        ensure!(!args.steps[..index].contains(steps), "--steps: {steps} twice; name each count once");
    }
    let options = Options {
        solvers: args.scheduler.clone(),
        steps,
        precision: args.precision.into(),
        guidance: Guidance::from_f32(args.guidance),
        classifier: args.guide.classifier.clone(),
        unconditional: args.guide.unconditional,
        count: args.count,
        seed: args.seed,
        judge: args.judge.clone(),
        real: args.real.clone(),
        chip: args.chip,
    };
    let mut device = open_device(args.backend)?;
    let device = device.as_mut().map(|device| &mut **device as &mut dyn Device);
    let checkpoint = args.reading.open(&folder)?;
    let comparison = compare(&checkpoint, &options, device, &Bar::default())
        .with_context(|| format!("cannot compare with {}", folder.display()))?;
    print_notes(comparison.notes.iter().map(String::as_str));
    if let Some(path) = &args.out {
        let mut bytes = vec![];
        grid(&comparison).encode_png(&mut bytes)?;
        write_whole(path, &bytes)?;
    }
    let cheapest = comparison.cheapest(TOLERANCE);
    if args.json {
        return print_json(&json!({
            "model": args.checkpoint.to_string_lossy(),
            "precision": precision_name(options.precision),
            "count": options.count,
            "guidance": args.guidance,
            "features": comparison.features,
            "chip": options.chip.name,
            "combinations": comparison.combinations,
            "cheapest": cheapest,
        }));
    }
    output::print(&table(args, &options, &comparison, cheapest)?)
}

fn check_files(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let mut inputs = vec![("CHECKPOINT", folder)];
    inputs.extend(args.judge.as_deref().map(|path| ("--judge", path)));
    inputs.extend(args.real.as_deref().map(|path| ("--real", path)));
    inputs.extend(args.guide.classifier.as_deref().map(|path| ("--classifier", path)));
    inputs.extend(args.reading.inputs());
    let outputs: Vec<output::Named<'_>> = args.out.as_deref().map(|path| ("--out", path)).into_iter().collect();
    output::check(&inputs, &outputs)
}

/// The first pictures of each combination that was drawn.
fn grid(comparison: &Comparison) -> Canvas {
    let drawn = comparison.combinations.iter().filter_map(|combination| match &combination.outcome {
        Outcome::Drawn(figures) => Some(figures),
        Outcome::Refused { .. } => None,
    });
    let pictures = drawn.flat_map(|figures| figures.pictures.iter().take(SHOWN));
    Canvas::grid(pictures.map(|picture| picture.bytes.as_slice()), comparison.shape, SHOWN)
}

fn table(
    args: &Args,
    options: &Options,
    comparison: &Comparison,
    cheapest: Option<usize>,
) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{} in precision {}: {} pictures each, guidance {}, compared by {}\n\n{:<17} {:>5} {:>5} {:>22} {:>9} {:>12} {:>8} {:>9}\n",
        args.checkpoint.display(),
        precision_name(options.precision),
        options.count,
        args.guidance,
        comparison.features,
        "scheduler",
        "steps",
        "calls",
        "distance",
        "accuracy",
        "instructions",
        "seconds",
        "arena"
    );
    for (index, Combination { scheduler, steps, outcome }) in comparison.combinations.iter().enumerate() {
        match outcome {
            Outcome::Drawn(figures) => {
                let [low, high] = figures.distance.interval;
                let distance = format!("{:.3} [{low:.3}, {high:.3}]", figures.distance.value);
                let accuracy = figures.accuracy.map_or_else(|| "-".into(), |share| format!("{:.3}", share.value));
                let instructions = figures.instructions.map_or_else(|| "unknown".into(), |count| count.to_string());
                let seconds = figures.seconds.map_or_else(|| "unknown".into(), |seconds| format!("{seconds:.2}"));
                let mark = if cheapest == Some(index) { " <" } else { "" };
                writeln!(
                    text,
                    "{scheduler:<17} {steps:>5} {:>5} {distance:>22} {accuracy:>9} {instructions:>12} {seconds:>8} {:>9}{mark}",
                    figures.calls, figures.arena_bytes
                )?;
            }
            Outcome::Refused { error } => writeln!(text, "{scheduler:<17} {steps:>5} refused: {error}")?,
        }
    }
    writeln!(
        text,
        "\ndistance: Fréchet, with its 95 % interval over resampled pictures; instructions and seconds of a picture on {}, \
         estimated; <: the fewest network calls within {:.0} % of the least distance",
        options.chip.name,
        100.0 * TOLERANCE
    )?;
    Ok(text)
}
