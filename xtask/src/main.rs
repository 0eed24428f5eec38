//! waft's command line: a thin layer over `waft-host`.

use clap::{Parser, Subcommand};

mod args;
mod eps;
mod export;
mod inspect;
mod sample;

/// Diffusion models on microcontrollers: export, draw, check.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turns a diffusers checkpoint into a .waft file.
    ExportWeights(export::Args),
    /// Draws pictures with the runtime on this machine.
    Sample(sample::Args),
    /// Runs one network call on given tensors.
    Eps(eps::Args),
    /// Shows what is in a .waft file.
    Inspect(inspect::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::ExportWeights(args) => export::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Eps(args) => eps::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    }
}
