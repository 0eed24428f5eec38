//! What several commands share.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use waft_host::twin::Device;
use waft_host::twin::host::Host;

/// How a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lane {
    /// Integers only.
    I8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl From<Lane> for waft::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::I8 => waft::Lane::I8,
            Lane::F16 => waft::Lane::F16,
            Lane::F32 => waft::Lane::F32,
        }
    }
}

/// What runs the kernels of the twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// This machine's processor.
    Cpu,
    /// A CUDA GPU, the first that the driver lists (`CUDA_VISIBLE_DEVICES` chooses).
    Cuda,
}

impl Backend {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Opens the device.
    pub(crate) fn open(self) -> anyhow::Result<Box<dyn Device>> {
        match self {
            Self::Cpu => Ok(Box::new(Host::default())),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Box::new(waft_host::twin::cuda::Cuda::open(0)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => anyhow::bail!("this build has no CUDA: build xtask with its feature `cuda`"),
        }
    }
}

/// A progress bar on stderr, or a silent one if that is not a terminal.
pub(crate) fn progress(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}").expect("a valid template");
    ProgressBar::no_length().with_style(style).with_message(what)
}

/// Refuses a report that is not named as a page, before any work.
pub(crate) fn check_report(report: Option<&Path>) -> anyhow::Result<()> {
    match report {
        Some(path) if path.extension().is_none_or(|extension| extension != "html") => {
            anyhow::bail!("--report {}: end it in .html", path.display())
        }
        _ => Ok(()),
    }
}

/// Writes a file completely or not at all: into a sibling first, then renamed.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{}: not a file name", path.display()))?;
    let partial = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let result = write(&partial).and_then(|()| Ok(std::fs::rename(&partial, path)?));
    if result.is_err() {
        // The error that matters is the one above; a partial file that was never created is no second one.
        let _ = std::fs::remove_file(&partial);
    }
    result.with_context(|| format!("cannot write {}", path.display()))
}

/// Prints one JSON object on stdout.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}")?;
    Ok(())
}
