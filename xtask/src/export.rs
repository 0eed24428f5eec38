//! `export-weights`.

use std::path::PathBuf;

use anyhow::Context;
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportOptions, Ranges, Recipe, ResidualWidth, Rounding, Shortcuts, WeightWidth, export};

use crate::args::{Bar, Precision, print_json, write_whole};

/// Turns a diffusers checkpoint into a .waft file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder that diffusers' `save_pretrained` wrote: a model, or a pipeline with unet/ and scheduler/.
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// How the device computes.
    #[arg(long, value_enum, default_value = "i8")]
    precision: Precision,
    /// Width of weights in the i8 precision.
    #[arg(long, value_enum, default_value = "i8")]
    weights: Weights,
    /// Step counts whose lists the file carries, the default one first [default: the checkpoint's waft.json, or 10].
    #[arg(long, value_delimiter = ',', value_name = "N[,N...]")]
    steps: Vec<usize>,
    /// Sampler.
    #[arg(long, value_enum, default_value = "ddim")]
    scheduler: Scheduler,
    /// Noise of DDIM: 0 is deterministic, 1 has DDPM's variance.
    #[arg(long, default_value_t = 0.0)]
    eta: f64,
    /// Guidance that the model will be used with: 1 keeps no room for it [default: room if the model knows "no class"].
    #[arg(long)]
    guidance: Option<f32>,
    /// Derive epsilon from the clipped sample, which keeps guidance stable [default: as waft.json says, or false].
    #[arg(long)]
    use_clipped_model_output: Option<bool>,
    /// Pictures to calibrate the i8 precision with; they take turns over the step lists.
    #[arg(long, default_value_t = ExportOptions::default().calibration_images, value_name = "N")]
    calib: usize,
    /// Width of the residual stream and skips in the i8 precision.
    #[arg(long, value_enum, default_value = "auto")]
    residual: Residual,
    /// How weights become integers in the i8 precision.
    #[arg(long, value_enum, default_value = "gptq")]
    rounding: RoundingArg,
    /// How ranges of 8-bit activations follow from calibration.
    #[arg(long, value_enum, default_value = "mse")]
    ranges: RangesArg,
    /// Take the mean error that rounded weights cause out of the biases of the i8 precision (Nagel et al., 2019).
    #[arg(long, default_value_t = ExportOptions::default().recipe.bias_correction, action = clap::ArgAction::Set)]
    bias_correction: bool,
    /// Give the 8-bit inputs of convolutions that come through a normalization scales for each step.
    #[arg(long, default_value_t = ExportOptions::default().recipe.step_scales, action = clap::ArgAction::Set)]
    step_scales: bool,
    /// How the two inputs of a shortcut over a skip join share a ring in the i8 precision.
    #[arg(long, value_enum, default_value = "split")]
    shortcuts: ShortcutsArg,
    /// Scale each step's prediction by the factor that brings the i8 precision nearest to f32 (He et al., 2023).
    #[arg(long, default_value_t = ExportOptions::default().output_correction, action = clap::ArgAction::Set)]
    output_correction: bool,
    /// Most bytes of the arena in the i8 precision: activations get 16 bits as long as they fit.
    #[arg(long, value_name = "BYTES", conflicts_with = "residual")]
    budget_ram: Option<u64>,
    /// Most bytes of the file in the i8 precision: weights of convolutions get four bits until it fits, those first that lose
    /// least by it.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["weights", "stream"])]
    budget_flash: Option<u64>,
    /// Keep the weights of convolutions in a file of their own beside OUT, with the extension `weights`, for devices that
    /// cannot address them; they pass through a window of the arena of at most this many bytes.
    #[arg(long, value_name = "BYTES")]
    stream: Option<u64>,
    /// Name in the file [default: as waft.json says, or the folder's].
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
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

#[derive(Clone, Copy, clap::ValueEnum)]
enum Scheduler {
    /// Song et al., 2020.
    Ddim,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Residual {
    /// 16 bits where they cost no arena, and everywhere if the arena stays small.
    Auto,
    /// 8 bits.
    I8,
    /// 16 bits.
    I16,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Scheduler::Ddim = args.scheduler;
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let options = ExportOptions {
        precision: args.precision.into(),
        steps: args.steps.clone(),
        eta: args.eta,
        guidance: args.guidance,
        use_clipped_model_output: args.use_clipped_model_output,
        calibration_images: args.calib,
        residual: match args.residual {
            Residual::Auto => ResidualWidth::Auto,
            Residual::I8 => ResidualWidth::Narrow,
            Residual::I16 => ResidualWidth::Wide,
        },
        weights: match args.weights {
            Weights::I8 => WeightWidth::Eight,
            Weights::I4 => WeightWidth::Four,
        },
        recipe: Recipe {
            rounding: match args.rounding {
                RoundingArg::Nearest => Rounding::Nearest,
                RoundingArg::Gptq => Rounding::Gptq,
            },
            ranges: match args.ranges {
                RangesArg::Minmax => Ranges::MinMax,
                RangesArg::Percentile => Ranges::Percentile,
                RangesArg::Mse => Ranges::Mse,
            },
            bias_correction: args.bias_correction,
            step_scales: args.step_scales,
            shortcuts: match args.shortcuts {
                ShortcutsArg::Joint => Shortcuts::Joint,
                ShortcutsArg::Split => Shortcuts::Split,
            },
        },
        output_correction: args.output_correction,
        budget_ram: args.budget_ram,
        budget_flash: args.budget_flash,
        name: args.name.clone(),
        stream: args.stream,
        ..ExportOptions::default()
    };
    let exported = export(&checkpoint, &options, &Bar::default())
        .with_context(|| format!("cannot export {}", args.checkpoint.display()))?;
    if let Some(weights) = &exported.weights {
        write_whole(&args.out.with_extension("weights"), |path| Ok(std::fs::write(path, weights)?))?;
    }
    write_whole(&args.out, |path| Ok(std::fs::write(path, exported.bytes.as_slice())?))?;
    let report = &exported.report;
    if args.json {
        return print_json(&serde_json::to_value(report)?);
    }
    if !report.tensors.is_empty() {
        println!("{:<52} {:>7} {:>9}", "activation", "element", "SQNR dB");
        for tensor in &report.tensors {
            println!("{:<52} {:>7} {:>9.1}", tensor.name, tensor.element, tensor.sqnr_db);
        }
        println!();
    }
    let percent = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
    println!("{} in precision {}, steps {:?}", args.out.display(), report.precision, report.step_lists);
    println!("  flash        {:>12} bytes", report.flash_bytes);
    if report.weights_bytes > 0 {
        println!(
            "  weights      {:>12} bytes in {}",
            report.weights_bytes,
            args.out.with_extension("weights").display()
        );
    }
    println!("  arena        {:>12} bytes", report.arena_bytes);
    println!(
        "  lower bound  {:>12} bytes ({:.1} %)",
        report.arena_lower_bound_bytes,
        percent(report.arena_bytes, report.arena_lower_bound_bytes)
    );
    println!(
        "  materialized {:>12} bytes ({:.1} % of the 8-bit graph with every result in a buffer)",
        report.arena_materialized_bytes,
        percent(report.arena_bytes, report.arena_materialized_bytes)
    );
    println!("  MACs a step  {:>12}", report.macs_per_step);
    println!("  parameters   {:>12}", report.params);
    Ok(())
}
