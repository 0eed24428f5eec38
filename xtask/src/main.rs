//! What belongs to the repository: tests, firmware, sizes, kernels. The product's commands, those of the binary `waft`, are
//! here too.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use waft_host::cli as args;

mod bench;
mod boards;
mod build;
mod c;
mod cost;
mod counts;
mod emulate;
mod firmware;
mod header;
mod kernels;
mod linux;
mod measure;
mod package;
mod repository;
mod setup;
mod size;
mod test;
mod web;

/// Diffusion models on microcontrollers: export, draw, check.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Product(Box<args::Command>),
    Kernels(kernels::Args),
    Bench(bench::Args),
    Firmware(firmware::Args),
    Size(size::Args),
    Cost(cost::Args),
    Header(header::Args),
    Package(package::Args),
    Web(web::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    args::main(|cli: Cli| match cli.command {
        Command::Product(command) => command.run(),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Firmware(args) => firmware::run(&args),
        Command::Size(args) => size::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Header(args) => header::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Web(args) => web::run(&args),
        Command::Test(args) => test::run(&args),
    })
}
