//! `export-weights`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::builder::PossibleValue;

use super::args::{Bar, CheckpointArgs, GuideArgs, Precision, guidance};
use super::output::{self, print_json, write_files};
use super::print_notes;
use crate::cost::{Core, chips};
use crate::export::{ExportOptions, ExportReport, Ranges, ResidualWidth, Rounding, Shortcuts, WeightWidth, export};
use crate::schedule::Solver;
use crate::target_core;
use crate::text::visible;

/// Turns a diffusers checkpoint into a .waft file.
#[derive(clap::Args)]
pub struct Args {
    /// Folder that diffusers' `save_pretrained` wrote: a model, or a pipeline with unet/ and scheduler/.
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "F.waft")]
    out: PathBuf,
    /// How the device computes.
    #[arg(long, value_enum, default_value = "i8")]
    precision: Precision,
    /// Step counts whose lists the file carries, 1 to 1000 each, at most 64, the default one first [default: the
    /// checkpoint's waft.json, or 10].
    #[arg(long, value_delimiter = ',', value_name = "N[,N...]")]
    steps: Vec<usize>,
    /// Timesteps instead of step counts, falling, each step leading to the next one; several lists by several options, the
    /// default one first [default: the checkpoint's waft.json].
    #[arg(long, value_name = "T[,T...]", conflicts_with = "steps")]
    timesteps: Vec<List<i64>>,
    /// Noise levels instead, falling; with euler the last is where the last step ends, with flow-match-euler where it
    /// starts. Several lists by several options.
    #[arg(long, value_name = "S[,S...]", conflicts_with_all = ["steps", "timesteps"])]
    sigmas: Vec<List<f64>>,
    /// Sampler [default: that of the checkpoint's scheduler_config.json]. Another takes over its noise levels, where both
    /// follow from betas.
    #[arg(long, value_enum)]
    scheduler: Option<Solver>,
    /// Noise of DDIM, 0 to 1: 0 is deterministic, 1 has DDPM's variance.
    #[arg(long, value_name = "ETA", default_value_t = 0.0)]
    eta: f64,
    /// Guidance that the model will be used with, -1000 to 1000: 1 keeps no room for it [default: room if the model knows
    /// "no class"].
    #[arg(long, value_name = "G", value_parser = guidance)]
    guidance: Option<f32>,
    #[command(flatten)]
    guide: GuideArgs,
    /// Derive epsilon from the clipped sample, which keeps guidance stable [default: as waft.json says, or false].
    #[arg(long, value_name = "BOOL")]
    use_clipped_model_output: Option<bool>,
    /// Lead each step of DDIM to the next timestep of its list. diffusers leads to t - T // N, which misses it for many counts.
    #[arg(long)]
    corrected: bool,
    /// Keep the weights of convolutions in a file of their own beside OUT, with the extension `weights`, for devices that
    /// cannot address them; they pass through a window of the arena of at most this many bytes, 1 or more.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    stream: Option<u64>,
    /// Name in the file, at most 64 bytes [default: as waft.json says, or the folder's].
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: CheckpointArgs,
    #[command(flatten)]
    integers: IntegerArgs,
}

/// What only the i8 precision has. Nothing has a default here, so that an option that is given is known from one that is not.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of the i8 precision")]
struct IntegerArgs {
    /// Width of weights [default: i8].
    #[arg(long, value_enum)]
    weights: Option<Weights>,
    /// Pictures to calibrate with, 1 to 100000; they take turns over the step lists [default: 24].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calib: Option<u32>,
    /// Conditions to calibrate with, for a network that reads one beside the sample: tensor `condition`, (N, C, H, W), f32, or
    /// a .png, whose bytes become -1 to 1; pictures take turns.
    #[arg(long, value_name = "F.png|F.safetensors")]
    condition: Option<PathBuf>,
    /// Observations to calibrate with, for a policy: tensor `observation`, (N, D), f32, in the units of its training data; runs
    /// take turns.
    #[arg(long, value_name = "F.safetensors")]
    observation: Option<PathBuf>,
    /// Width of the residual stream and skips [default: auto].
    #[arg(long, value_enum)]
    residual: Option<Residual>,
    /// How weights become integers [default: gptq].
    #[arg(long, value_enum)]
    rounding: Option<RoundingArg>,
    /// How ranges of 8-bit activations follow from calibration [default: mse].
    #[arg(long, value_enum)]
    ranges: Option<RangesArg>,
    /// Take the mean error that rounded weights cause out of the biases (Nagel et al., 2019) [default: true].
    #[arg(long, value_name = "BOOL")]
    bias_correction: Option<bool>,
    /// Give the 8-bit inputs of convolutions that come through a normalization scales for each step [default: false].
    #[arg(long, value_name = "BOOL")]
    step_scales: Option<bool>,
    /// How the two inputs of a shortcut over a skip join share a ring [default: split].
    #[arg(long, value_enum)]
    shortcuts: Option<ShortcutsArg>,
    /// Scale each step's prediction by the factor that brings it nearest to f32 (He et al., 2023) [default: false].
    #[arg(long, value_name = "BOOL")]
    output_correction: Option<bool>,
    /// Most bytes of the arena: activations get 16 bits as long as they fit [default: as --residual says].
    #[arg(long, value_name = "BYTES", conflicts_with = "residual", value_parser = clap::value_parser!(u64).range(1..))]
    budget_ram: Option<u64>,
    /// Most bytes of the file: weights of convolutions get four bits until it fits, those first that lose least by it; what is
    /// left is spent on weights that are stored transformed, where that saves the most instructions for each byte [default: as
    /// --weights says, and nothing is stored transformed].
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["weights", "stream"], value_parser = clap::value_parser!(u64).range(1..))]
    budget_flash: Option<u64>,
    /// Core by whose instructions the fastest way to compute each convolution is chosen that there is memory for: Cortex-M0+, -M3,
    /// -M4, -M4F, -M7, -M33, -M55 or -A53, RV32IMC or RV32IMAC, or the target of one. All cores run the file and draw the same
    /// from it; files for different cores draw the same where inputs of convolutions have 8 bits [default: Cortex-M4].
    #[arg(long, value_name = "CORE", value_parser = target_core::find)]
    core: Option<&'static Core>,
}

impl IntegerArgs {
    /// The options that are given.
    fn given(&self) -> Vec<&'static str> {
        [
            ("--weights", self.weights.is_some()),
            ("--calib", self.calib.is_some()),
            ("--condition", self.condition.is_some()),
            ("--observation", self.observation.is_some()),
            ("--residual", self.residual.is_some()),
            ("--rounding", self.rounding.is_some()),
            ("--ranges", self.ranges.is_some()),
            ("--bias-correction", self.bias_correction.is_some()),
            ("--step-scales", self.step_scales.is_some()),
            ("--shortcuts", self.shortcuts.is_some()),
            ("--output-correction", self.output_correction.is_some()),
            ("--budget-ram", self.budget_ram.is_some()),
            ("--budget-flash", self.budget_flash.is_some()),
            ("--core", self.core.is_some()),
        ]
        .into_iter()
        .filter_map(|(option, given)| given.then_some(option))
        .collect()
    }

    /// Puts them in the place of defaults.
    fn apply(&self, options: &mut ExportOptions) {
        match self.weights {
            Some(Weights::I8) => options.weights = WeightWidth::Eight,
            Some(Weights::I4) => options.weights = WeightWidth::Four,
            None => {}
        }
        match self.residual {
            Some(Residual::Auto) => options.residual = ResidualWidth::Auto,
            Some(Residual::I8) => options.residual = ResidualWidth::Narrow,
            Some(Residual::I16) => options.residual = ResidualWidth::Wide,
            None => {}
        }
        let recipe = &mut options.recipe;
        match self.rounding {
            Some(RoundingArg::Nearest) => recipe.rounding = Rounding::Nearest,
            Some(RoundingArg::Gptq) => recipe.rounding = Rounding::Gptq,
            None => {}
        }
        match self.ranges {
            Some(RangesArg::Minmax) => recipe.ranges = Ranges::MinMax,
            Some(RangesArg::Percentile) => recipe.ranges = Ranges::Percentile,
            Some(RangesArg::Mse) => recipe.ranges = Ranges::Mse,
            None => {}
        }
        match self.shortcuts {
            Some(ShortcutsArg::Joint) => recipe.shortcuts = Shortcuts::Joint,
            Some(ShortcutsArg::Split) => recipe.shortcuts = Shortcuts::Split,
            None => {}
        }
        recipe.bias_correction = self.bias_correction.unwrap_or(recipe.bias_correction);
        recipe.step_scales = self.step_scales.unwrap_or(recipe.step_scales);
        options.output_correction = self.output_correction.unwrap_or(options.output_correction);
        options.calibration_images = self.calib.map_or(options.calibration_images, |images| images as usize);
        options.conditions.clone_from(&self.condition);
        options.observations.clone_from(&self.observation);
        options.budget_ram = self.budget_ram;
        options.budget_flash = self.budget_flash;
        options.core = self.core.unwrap_or(options.core);
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Weights {
    /// Eight bits, one scale per output channel.
    I8,
    /// Four bits but for the first and the last convolution, one scale per output channel.
    I4,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoundingArg {
    /// Each to the nearest, in the scale of least squared error.
    Nearest,
    /// So that the network's activations change least (Frantar et al., 2022).
    Gptq,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RangesArg {
    /// From the smallest to the largest value.
    Minmax,
    /// Without the 0.01 % at each end.
    Percentile,
    /// The range of least squared error.
    Mse,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ShortcutsArg {
    /// In 8 bits, by one scale for both.
    Joint,
    /// In 16 bits, in which each keeps the resolution of its own scale (Li et al., 2023, run two convolutions instead).
    Split,
}

impl clap::ValueEnum for Solver {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.summary()))
    }
}

/// A list that one option holds.
#[derive(Clone)]
struct List<T>(Vec<T>);

impl<T: std::str::FromStr> std::str::FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|value| value.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Residual {
    /// 16 bits where they cost little arena, and everywhere if it stays small.
    Auto,
    /// 8 bits.
    I8,
    /// 16 bits.
    I16,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let given = args.integers.given();
    ensure!(
        args.precision == Precision::I8 || given.is_empty(),
        "{}: only the i8 precision has that; leave it out, or export with --precision i8",
        given.join(", ")
    );
    let weights_file = args.stream.map(|_| args.out.with_extension("weights"));
    let mut outputs: Vec<output::Named<'_>> = vec![("--out", &args.out)];
    outputs.extend(weights_file.as_deref().map(|path| ("the weights of --stream,", path)));
    let mut inputs: Vec<output::Named<'_>> = vec![("CHECKPOINT", &args.checkpoint)];
    inputs.extend(args.guide.classifier.as_deref().map(|path| ("--classifier", path)));
    inputs.extend(args.integers.condition.as_deref().map(|path| ("--condition", path)));
    inputs.extend(args.integers.observation.as_deref().map(|path| ("--observation", path)));
    inputs.extend(args.reading.inputs());
    output::check(&inputs, &outputs)?;

    let checkpoint = args.reading.open(&args.checkpoint)?;
    let mut options = ExportOptions {
        precision: args.precision.into(),
        steps: args.steps.clone(),
        timesteps: args.timesteps.iter().map(|list| list.0.clone()).collect(),
        sigmas: args.sigmas.iter().map(|list| list.0.clone()).collect(),
        solver: args.scheduler,
        eta: args.eta,
        guidance: args.guidance,
        classifier: args.guide.classifier.clone(),
        unconditional: args.guide.unconditional,
        use_clipped_model_output: args.use_clipped_model_output,
        corrected: args.corrected,
        name: args.name.clone(),
        stream: args.stream,
        ..ExportOptions::default()
    };
    args.integers.apply(&mut options);
    let exported = export(&checkpoint, &options, &Bar::default())
        .with_context(|| format!("cannot export {}", args.checkpoint.display()))?;
    print_notes(exported.report.notes.iter().map(String::as_str));
    let mut files = vec![];
    if let (Some(path), Some(weights)) = (&weights_file, &exported.weights) {
        files.push((path.as_path(), weights.as_slice()));
    }
    files.push((&args.out, exported.bytes.as_slice()));
    write_files(&files)?;
    if args.json {
        return print_json(&exported.report);
    }
    output::print(&table(args, &exported.report)?)
}

fn table(args: &Args, report: &ExportReport) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if !report.tensors.is_empty() {
        writeln!(text, "{:<52} {:>7} {:>9}", "activation", "element", "SQNR dB")?;
        for tensor in &report.tensors {
            writeln!(text, "{:<52} {:>7} {:>9.1}", visible(&tensor.name), tensor.element, tensor.sqnr_db)?;
        }
        text.push('\n');
    }
    let percent = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
    writeln!(text, "{} in precision {}, steps {:?}", args.out.display(), report.precision, report.step_lists)?;
    writeln!(text, "  flash        {:>12} bytes", report.flash_bytes)?;
    if report.weights_bytes > 0 {
        let file = args.out.with_extension("weights");
        writeln!(text, "  weights      {:>12} bytes in {}", report.weights_bytes, file.display())?;
    }
    writeln!(text, "  arena        {:>12} bytes", report.arena_bytes)?;
    writeln!(
        text,
        "  lower bound  {:>12} bytes ({:.1} %)",
        report.arena_lower_bound_bytes,
        percent(report.arena_bytes, report.arena_lower_bound_bytes)
    )?;
    writeln!(
        text,
        "  materialized {:>12} bytes ({:.1} % of the 8-bit graph with every result in a buffer)",
        report.arena_materialized_bytes,
        percent(report.arena_bytes, report.arena_materialized_bytes)
    )?;
    writeln!(text, "  MACs a step  {:>12}", report.macs_per_step)?;
    writeln!(text, "  parameters   {:>12}", report.params)?;
    text.push('\n');
    text += &chips::table(&report.chips, report.steps as u32);
    Ok(text)
}
