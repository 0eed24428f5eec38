//! The command line: the binary `waft`, and the product's commands of `cargo xtask`. One file a command; what they share
//! is in `args`, everything that is printed or written goes through [`output`].

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Subcommand};

mod args;
mod compare;
mod export_weights;
mod inspect;
pub mod output;
mod parity;
mod predict;
mod quality;
mod sample;
mod sign;
mod signals;

pub use args::{Backend, Bar, Precision};
pub use output::{print_json, write_whole};

/// The product's commands.
#[derive(Subcommand)]
#[allow(missing_docs)] // A comment here would replace the command's own help.
pub enum Command {
    ExportWeights(export_weights::Args),
    Sample(sample::Args),
    Predict(predict::Args),
    Inspect(inspect::Args),
    Compare(compare::Args),
    Parity(parity::Args),
    Quality(quality::Args),
    Merge(quality::MergeArgs),
    Sign(sign::Args),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// If it fails; everything that it would have written is as it was.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::ExportWeights(args) => export_weights::run(args),
            Self::Sample(args) => sample::run(args),
            Self::Predict(args) => predict::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Compare(args) => compare::run(args),
            Self::Parity(args) => parity::run(args),
            Self::Quality(args) => quality::run(args),
            Self::Merge(args) => quality::merge(args),
            Self::Sign(args) => sign::run(args),
        }
    }
}

/// Parses the command line and runs it: exit code 0 on success, 1 if the command fails, 2 if the command line is not
/// understood, 130 after SIGINT and 143 after SIGTERM.
pub fn main<Cli: CommandFactory + FromArgMatches>(run: impl FnOnce(Cli) -> anyhow::Result<()>) -> ExitCode {
    let result = signals::clean_up_on_signals().and_then(|()| match parse::<Cli>() {
        Ok(cli) => run(cli).map(|()| ExitCode::SUCCESS),
        Err(refusal) if refusal.use_stderr() => {
            output::complain(&refusal.to_string());
            Ok(ExitCode::from(2))
        }
        Err(help) => output::print_styled(&help).map(|()| ExitCode::SUCCESS),
    });
    match result {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("Error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Negative numbers are values everywhere, not options that do not exist.
fn parse<Cli: CommandFactory + FromArgMatches>() -> Result<Cli, clap::Error> {
    fn negative_numbers(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        });
        command.mut_subcommands(negative_numbers)
    }
    let mut command = negative_numbers(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Tells the user what to know about a result, on stderr: defaults that were taken, parts that were left out.
fn print_notes<'n>(notes: impl IntoIterator<Item = &'n str>) {
    for note in notes {
        output::complain(&format!("note: {note}\n"));
    }
}
