//! The binary `waft`: the command line of `waft-host`.

use std::process::ExitCode;

use clap::Parser;
use waft_host::cli::{self, Command};

/// Diffusion models on microcontrollers: export, draw, check.
#[derive(Parser)]
#[command(name = "waft", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    cli::main(|cli: Cli| cli.command.run())
}
