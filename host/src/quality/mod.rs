//! What quantization costs: pictures of quantized models against those of the `f32` precision from the same noise, and both
//! against the training data.

pub mod judge;
mod judged;
pub mod metrics;
pub mod report;
mod run;
pub mod shard;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;
use waft::format::Precision;
use waft::{Guidance, Model, ModelError, Request};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::export::{ExportError, ExportOptions, export};
use crate::gpu::{self, Device, GpuError};
use crate::progress::Progress;
use crate::sample::{AlignedBytes, Batch, Picture, SampleError, classes_in_turn, draw};
use crate::schedule::Solver;
use crate::shipped::{self, FindError};
use crate::tensors::TensorsError;
pub use judged::{Judged, Seen};
use metrics::Estimate;

/// Why quality was not measured.
#[derive(Debug, Error)]
pub enum QualityError {
    /// The model cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint cannot be exported in the `f32` precision.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The export is not a model: a defect of the exporter.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model cannot draw what is asked for.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The judge's file is not usable.
    #[error(transparent)]
    Judge(#[from] TensorsError),
    /// The GPU backend failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Shards do not make a whole.
    #[error("{path}: {what}")]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An image of the real data is not usable.
    #[error("{path}: {what}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An option that does not fit the model.
    #[error("{0}")]
    Option(String),
}

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder of the checkpoint that the `f32` pictures come from; `None`: `checkpoint` beside the model.
    pub checkpoint: Option<PathBuf>,
    /// The judge's file; `None`: `judge.safetensors` beside the model, or pixels if there is none.
    pub judge: Option<PathBuf>,
    /// Folder of real pictures, PNG; `None`: the judge's training data.
    pub real: Option<PathBuf>,
    /// Pictures; `None`: as many as [`MACS`] allow, at least 500 and at most 2,000.
    pub count: Option<usize>,
    /// Steps; `None`: those of the timesteps, or of the model's first list.
    pub steps: Option<u32>,
    /// Timesteps of the `f32` pictures, where the files have others than the checkpoint; empty: the checkpoint's.
    pub timesteps: Vec<i64>,
    /// Sampler of the `f32` pictures, where the files have another than the checkpoint; `None`: the checkpoint's.
    pub solver: Option<Solver>,
    /// Guidance.
    pub guidance: Guidance,
    /// Folder of a classifier that guides, see [`ExportOptions::classifier`].
    pub classifier: Option<PathBuf>,
    /// See [`ExportOptions::unconditional`].
    pub unconditional: bool,
    /// Seed of the first picture.
    pub seed: u64,
}

/// Multiply-accumulates that the default number of pictures may cost in one precision.
pub const MACS: u64 = 2_000_000_000_000;

/// Figures of one model file. Those that need class probabilities are `None` without a judge.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// File name, or `f32`.
    pub name: String,
    /// How the file computes: `i8`, `f16` or `f32`.
    pub arithmetic: &'static str,
    /// Bytes of the file and, if it has one, of its weights' file.
    pub flash_bytes: u64,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Fréchet distance to the real pictures.
    pub fid: Estimate,
    /// What it has more than `f32`, over the same resampled pictures.
    pub fid_above_f32: Estimate,
    /// Share of pictures among the real ones.
    pub precision: Estimate,
    /// Share of real pictures among those drawn.
    pub recall: Estimate,
    /// Inception Score.
    pub inception_score: Option<Estimate>,
    /// Share of pictures in which the judge sees the class asked for.
    pub class_accuracy: Option<Estimate>,
    /// Median PSNR against `f32`, in decibels.
    pub psnr_median_db: Option<Estimate>,
    /// Mean structural similarity with `f32`.
    pub ssim_mean: Option<Estimate>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Quality {
    /// Number of pictures of each model.
    pub count: usize,
    /// Steps of each.
    pub steps: u32,
    /// Guidance of each.
    pub guidance: f32,
    /// What pictures were compared by.
    pub features: String,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// Figures of `f32`.
    pub reference: Figures,
    /// Pictures of `f32`.
    pub reference_pictures: Vec<Picture>,
    /// Figures and pictures of each file; the first is the default one.
    pub files: Vec<(Figures, Vec<Picture>)>,
}

/// The files that a name or path stands for, the default one first, and their folder.
fn files(path: &Path, stem: Option<&str>) -> Result<(Vec<PathBuf>, PathBuf), QualityError> {
    if path.is_file() {
        return Ok((vec![path.into()], path.parent().unwrap_or(Path::new(".")).into()));
    }
    let model = shipped::known(path)?;
    let stem = stem.unwrap_or(model);
    let folder = shipped::models_folder().join(model);
    if !folder.join("checkpoint").is_dir() {
        let asked = "its checkpoint and judge".into();
        return Err(FindError::NoSources { name: model.into(), asked }.into());
    }
    let kinds = ["i8", "i4", "f16"].map(|kind| folder.join(format!("{stem}-{kind}.waft")));
    Ok((kinds.into_iter().filter(|path| path.is_file()).collect(), folder))
}

/// Draws and compares, on the GPU backend if there is one.
///
/// # Errors
/// If something is missing or does not fit.
pub fn measure(
    model: impl AsRef<Path>,
    options: &Options,
    device: Option<&mut dyn Device>,
    progress: &dyn Progress,
) -> Result<Quality, QualityError> {
    let setup = Setup::new(model, options, progress)?;
    let pictures = setup.draw(0..setup.count, device, progress)?;
    setup.evaluate(pictures)
}

/// A model file with its weights' file.
struct File {
    path: PathBuf,
    bytes: AlignedBytes,
    weights: Vec<u8>,
}

/// Everything that drawing and comparing need.
pub struct Setup {
    /// Number of pictures of each model.
    pub count: usize,
    steps: u32,
    guidance: Guidance,
    seed: u64,
    /// The checkpoint in the `f32` precision.
    reference: AlignedBytes,
    files: Vec<File>,
    judged: Judged,
}

impl Setup {
    /// Finds and reads everything, and exports the checkpoint in the `f32` precision.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn new(model: impl AsRef<Path>, options: &Options, progress: &dyn Progress) -> Result<Self, QualityError> {
        let model = model.as_ref();
        let steps = options.steps.map(|steps| steps as usize);
        let steps = steps.or(Some(options.timesteps.len()).filter(|&count| count > 0));
        let student = model.to_str().and_then(|name| shipped::student(name, steps));
        let (paths, folder) = files(model, student.as_ref().map(|(stem, _)| stem.as_str()))?;
        let mut loaded = vec![];
        for path in paths {
            let bytes = shipped::read(&path)?;
            let weights = shipped::weights(&path, &Model::from_bytes(bytes.as_slice())?)?;
            loaded.push(File { path, bytes, weights });
        }
        let Some(first) = loaded.first() else {
            return Err(QualityError::Option(format!("{} holds no .waft file", folder.display())));
        };
        let first = Model::from_bytes(first.bytes.as_slice())?;
        let shape = first.image_shape();
        for File { path, bytes, .. } in &loaded {
            let is_guided = Model::from_bytes(bytes.as_slice())?.header().gradient != 0;
            if is_guided != options.classifier.is_some() {
                let what = match is_guided {
                    true => "a classifier guides it: name its folder, --classifier",
                    false => "no classifier guides it: leave --classifier out",
                };
                return Err(QualityError::Option(format!("{}: {what}", path.display())));
            }
            let other = Model::from_bytes(bytes.as_slice())?.image_shape();
            if other != shape {
                let text = format!("{other:?} pixels in one model, {shape:?} in another");
                return Err(QualityError::Option(text));
            }
        }

        let checkpoint = options.checkpoint.clone().or(student.map(|(_, checkpoint)| checkpoint));
        let checkpoint = checkpoint.unwrap_or_else(|| folder.join("checkpoint"));
        let checkpoint = Checkpoint::open(checkpoint)?;
        let solver = options.solver.or_else(|| Solver::of(checkpoint.scheduler().ok()?));
        // A file's steps are its network calls, of which a step of the solver may take several.
        let steps = match options.timesteps.as_slice() {
            [] => options.steps.or_else(|| first.schedule(0).map(|list| list.steps)).unwrap_or(0),
            list => solver.map_or(list.len(), |solver| solver.calls(list.len())) as u32,
        };
        let count = options.count.unwrap_or_else(|| {
            let one = first.header().macs * u64::from(steps);
            (MACS / one.max(1)).clamp(500, 2000) as usize
        });
        if !(16..=1_000_000).contains(&count) {
            return Err(QualityError::Option(format!("--count {count}: 16 to 1000000 pictures")));
        }

        let beside = folder.join("judge.safetensors");
        let judge = options.judge.as_deref().or_else(|| beside.is_file().then_some(&beside));
        let judged = Judged::open(judge, options.real.as_deref(), classes_in_turn(&first, count), shape)?;

        let float = ExportOptions {
            precision: Precision::F32,
            solver: options.solver,
            classifier: options.classifier.clone(),
            unconditional: options.unconditional,
            ..ExportOptions::default()
        };
        let float = match options.timesteps.as_slice() {
            [] => {
                let own = solver.map_or(steps as usize, |solver| solver.steps_in(steps as usize));
                float.in_steps(own, checkpoint.defaults())
            }
            list => ExportOptions { timesteps: vec![list.to_vec()], ..float },
        };
        let reference = export(&checkpoint, &float, progress)?.bytes;
        let named = Model::from_bytes(reference.as_slice())?;
        for File { path, bytes, .. } in &loaded {
            run::check(path, &Model::from_bytes(bytes.as_slice())?, &named, steps)?;
        }
        let Options { guidance, seed, .. } = *options;
        Ok(Self { count, steps, guidance, seed, reference, files: loaded, judged })
    }

    /// Draws the pictures of a range of 0 to `count` with `f32`, then with each file: the same whatever the range, as each
    /// picture has its own seed and class.
    ///
    /// # Errors
    /// If a model cannot draw this, or the device fails.
    pub fn draw(
        &self,
        range: Range<usize>,
        mut device: Option<&mut dyn Device>,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Picture>>, QualityError> {
        let reference = (&self.reference, &[] as &[u8]);
        let files = self.files.iter().map(|file| (&file.bytes, file.weights.as_slice()));
        let mut pictures = vec![];
        for (bytes, weights) in std::iter::once(reference).chain(files) {
            let model = Model::from_bytes(bytes.as_slice())?;
            let batch = Batch {
                request: Request::new().steps(self.steps).guidance(self.guidance),
                seed: self.seed.wrapping_add(range.start as u64),
                classes: self.judged.classes().get(range.clone()).unwrap_or(&[]).to_vec(),
                count: range.len(),
                weights: weights.to_vec(),
                ..Batch::default()
            };
            pictures.push(match &mut device {
                Some(device) => gpu::draw(&mut **device, &model, &batch, None, progress)?,
                None => draw(&model, &batch, progress)?,
            });
        }
        Ok(pictures)
    }

    /// Compares all pictures, as [`draw`](Self::draw) gives them.
    ///
    /// # Errors
    /// If a file changed meanwhile.
    pub fn evaluate(self, pictures: Vec<Vec<Picture>>) -> Result<Quality, QualityError> {
        let Self { count, steps, reference, files, judged, .. } = self;
        let features = judged.described();
        let guidance = self.guidance.to_bits() as f32 / 65_536.0;
        let mut pictures = pictures.into_iter();
        let reference_pictures = pictures.next().unwrap_or_default();
        let reference_features = judged.features(&reference_pictures);
        let figures = judged.figures("f32".into(), (&reference, 0), &reference_features, &reference_features, None)?;
        let shape = judged.shape();
        let mut quality =
            Quality { count, steps, guidance, features, shape, reference: figures, reference_pictures, files: vec![] };
        for (File { path, bytes, weights }, pictures) in files.into_iter().zip(pictures) {
            let found = judged.features(&pictures);
            let pairs = Some((pictures.as_slice(), quality.reference_pictures.as_slice()));
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let figures = judged.figures(name, (&bytes, weights.len() as u64), &found, &reference_features, pairs)?;
            quality.files.push((figures, pictures));
        }
        Ok(quality)
    }
}
