//! What several commands share.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::ensure;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Named;
use super::print_notes;
use crate::checkpoint::{self, Checkpoint, MOST_CLASSES};
use crate::gpu::Device;
use crate::gpu::host::Host;
use crate::progress::Progress;
use crate::tensors::Tensors;
use crate::text::visible;

/// How a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Integers only.
    I8,
    /// Half precision, for cores with an FPU: three times the instructions of i8 there.
    F16,
    /// Single precision: the reference.
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
pub enum Backend {
    /// This machine's processor.
    Cpu,
    /// A CUDA GPU, the first that the driver lists (`CUDA_VISIBLE_DEVICES` chooses).
    Cuda,
}

impl Backend {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If there is none, or this build has no part for it.
    pub fn open(self) -> anyhow::Result<Box<dyn Device>> {
        match self {
            Self::Cpu => Ok(Box::new(Host::default())),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Box::new(crate::gpu::cuda::Cuda::open(0)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => anyhow::bail!("this build has no CUDA: build it with the feature `cuda`"),
        }
    }
}

/// What draws many pictures: the backend that is asked for, or a GPU if there is one; `None` is this machine's processor.
pub(super) fn open_device(backend: Option<Backend>) -> anyhow::Result<Option<Box<dyn Device>>> {
    match backend {
        Some(Backend::Cpu) => Ok(None),
        Some(Backend::Cuda) => Backend::Cuda.open().map(Some),
        None => match Backend::Cuda.open() {
            Ok(device) => Ok(Some(device)),
            Err(error) => {
                print_notes([format!("drawing on the CPU: {error:#}").as_str()]);
                Ok(None)
            }
        },
    }
}

/// Progress bars on stderr, one for each stage; nothing if that is not a terminal.
pub struct Bar(Mutex<ProgressBar>);

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

/// Refuses a file name without one of the extensions that a command writes, before any work.
pub(super) fn check_extension(option: &str, path: Option<&Path>, known: &[&str]) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
    ensure!(known.contains(&extension.as_str()), "{option} {}: end it in .{}", path.display(), known.join(" or ."));
    Ok(())
}

/// Tells which tensors of a file nothing reads: what somebody put there may have been meant to count.
pub(super) fn tell_unread(path: &Path, tensors: &Tensors, read: &[&str]) {
    let others = tensors.others(read);
    if !others.is_empty() {
        let (path, names) = (path.display().to_string(), visible(&others.join(", ")).into_owned());
        print_notes([format!("{path}: not read: {names}").as_str()]);
    }
}

/// A classifier that guides.
#[derive(clap::Args)]
pub(super) struct GuideArgs {
    /// Folder of a noise-aware classifier whose gradient guides instead of a second network call without the class (Dhariwal and
    /// Nichol, 2021): config.json and classifier.safetensors, as models/digits/train_classifier.py writes them.
    #[arg(long, value_name = "FOLDER")]
    pub(super) classifier: Option<PathBuf>,
    /// With --classifier: draw with the class that means "no class", so that the classifier alone says which.
    #[arg(long, requires = "classifier")]
    pub(super) unconditional: bool,
}

/// Parses the scale of guidance.
pub(super) fn guidance(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(guidance) if (-1000.0..=1000.0).contains(&guidance) => Ok(guidance),
        _ => Err("guidance is a number between -1000 and 1000".into()),
    }
}

/// Which files of a checkpoint are read.
#[derive(clap::Args)]
#[command(next_help_heading = "Reading the checkpoint")]
pub(super) struct CheckpointArgs {
    /// The scheduler's configuration, or its folder [default: where diffusers puts it].
    #[arg(long, value_name = "PATH")]
    scheduler_config: Option<PathBuf>,
    /// Variant of the weights, as fp16 [default: the plain ones, or the only variant there is].
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Height and width to draw, for a configuration whose sample_size is null [default: the configuration's].
    #[arg(long, value_name = "H,W", value_delimiter = ',', num_args = 1..=2)]
    size: Option<Vec<usize>>,
    /// Number of classes, for a network that takes any number for one (class_embed_type timestep), 1 to 65534 [default: as
    /// waft.json says, or 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_CLASSES as i64))]
    classes: Option<u32>,
    /// The vector of each class, for a network that takes a vector for one (class_embed_type identity): tensor
    /// `class_embeddings`, (classes, D), f32 [default: the file that waft.json names].
    #[arg(long, value_name = "F.safetensors")]
    class_embeddings: Option<PathBuf>,
}

impl CheckpointArgs {
    /// The files besides the checkpoint itself that are read.
    pub(super) fn inputs(&self) -> impl Iterator<Item = Named<'_>> {
        let scheduler = self.scheduler_config.as_deref().map(|path| ("--scheduler-config", path));
        scheduler.into_iter().chain(self.class_embeddings.as_deref().map(|path| ("--class-embeddings", path)))
    }

    /// Opens a checkpoint, and tells what was chosen on the way.
    pub(super) fn open(&self, path: &Path) -> anyhow::Result<Checkpoint> {
        let size = match self.size.as_deref() {
            None => None,
            Some(&[side]) => Some([side, side]),
            Some(&[height, width]) => Some([height, width]),
            Some(other) => anyhow::bail!("--size {other:?}: give one side, or height and width"),
        };
        let options = checkpoint::Options {
            scheduler_config: self.scheduler_config.clone(),
            variant: self.variant.clone(),
            size,
            classes: self.classes.map(|classes| classes as usize),
            class_embeddings: self.class_embeddings.clone(),
        };
        let checkpoint = Checkpoint::open_with(path, &options)?;
        let notes: Vec<String> = checkpoint.notes().iter().map(ToString::to_string).collect();
        print_notes(notes.iter().map(String::as_str));
        Ok(checkpoint)
    }
}

/// Refuses seeds that would begin again at 0.
pub(super) fn check_seeds(seed: u64, count: usize) -> anyhow::Result<()> {
    let last = seed.checked_add(count.saturating_sub(1) as u64);
    ensure!(last.is_some(), "--seed {seed}: the seeds of {count} pictures count up beyond 2^64 - 1");
    Ok(())
}
