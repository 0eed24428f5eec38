//! What several commands share.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use waft_host::gpu::Device;
use waft_host::gpu::host::Host;
use waft_host::progress::Progress;

/// How a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// Integers only.
    I8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl From<Precision> for waft::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::I8 => waft::Precision::I8,
            Precision::F16 => waft::Precision::F16,
            Precision::F32 => waft::Precision::F32,
        }
    }
}

/// What runs the kernels of the GPU backend.
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
            Self::Cuda => Ok(Box::new(waft_host::gpu::cuda::Cuda::open(0)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => anyhow::bail!("this build has no CUDA: build xtask with its feature `cuda`"),
        }
    }
}

/// Progress bars on stderr, one for each stage; nothing if that is not a terminal.
pub(crate) struct Bar(Mutex<ProgressBar>);

impl Default for Bar {
    fn default() -> Self {
        Self(Mutex::new(ProgressBar::hidden()))
    }
}

impl Bar {
    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &'static str, total: u64) {
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}").expect("a valid template");
            *self.bar() = ProgressBar::new(total).with_style(style).with_message(stage);
        }
    }

    fn advance(&self, units: u64) {
        self.bar().inc(units);
    }

    fn end(&self) {
        self.bar().finish_and_clear();
    }
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
