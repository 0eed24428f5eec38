//! waft's command line: a thin layer over `waft-host`.

use clap::{Parser, Subcommand};

mod args;
#[cfg(feature = "cuda")]
mod bench;
mod boards;
mod build;
mod c;
mod counts;
mod emulate;
mod export;
mod firmware;
mod header;
mod inspect;
mod kernels;
mod measure;
mod parity;
mod predict;
mod quality;
mod repository;
mod sample;
mod setup;
mod sign;
mod size;
mod test;

/// Diffusion models on microcontrollers: export, draw, check.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    ExportWeights(export::Args),
    Sample(sample::Args),
    Predict(predict::Args),
    Inspect(inspect::Args),
    Kernels(kernels::Args),
    Parity(parity::Args),
    #[cfg(feature = "cuda")]
    Bench(bench::Args),
    Quality(quality::Args),
    Merge(quality::MergeArgs),
    Firmware(firmware::Args),
    Size(size::Args),
    Sign(sign::Args),
    Header(header::Args),
    Test(test::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::ExportWeights(args) => export::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Parity(args) => parity::run(&args),
        #[cfg(feature = "cuda")]
        Command::Bench(args) => bench::run(&args),
        Command::Quality(args) => quality::run(&args),
        Command::Merge(args) => quality::merge(&args),
        Command::Firmware(args) => firmware::run(&args),
        Command::Size(args) => size::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Header(args) => header::run(&args),
        Command::Test(args) => test::run(&args),
    }
}
