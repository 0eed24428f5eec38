//! Parts of an evaluation that different machines draw, and their whole. A shard is a safetensors file: the samples and
//! bytes of its pictures for each model, and in the metadata what was drawn, so that only what belongs together is merged.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use waft::Guidance;

use super::{Options, Quality, QualityError, Setup};
use crate::progress::Progress;
use crate::sample::{Picture, digest};
use crate::schedule::Solver;

/// Key of the description in the metadata.
const KEY: &str = "waft_quality";

/// One part of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// Its pictures of `count`.
    pub fn range(self, count: usize) -> Range<usize> {
        count * self.index / self.of..count * (self.index + 1) / self.of
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `i/n`, `i` from 0 to `n − 1`: the number that schedulers of job arrays give.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of && of <= 100_000 => Ok(Self { index, of }),
            _ => Err(format!("{text:?}: write i/n with i from 0 to n - 1, as in 0/8")),
        }
    }
}

/// What a shard is a part of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Description {
    model: String,
    checkpoint: Option<PathBuf>,
    judge: Option<PathBuf>,
    real: Option<PathBuf>,
    count: usize,
    steps: u32,
    timesteps: Vec<i64>,
    scheduler: Option<String>,
    guidance_q16: i32,
    classifier: Option<PathBuf>,
    unconditional: bool,
    seed: u64,
    /// SHA-256 of `f32` and of each file.
    models: Vec<String>,
    /// First picture. All else is the same for all shards.
    first: usize,
}

fn description(model: &str, options: &Options, setup: &Setup, first: usize) -> Description {
    let bytes = std::iter::once(&setup.reference).chain(setup.files.iter().map(|file| &file.bytes));
    Description {
        model: model.into(),
        checkpoint: options.checkpoint.clone(),
        judge: options.judge.clone(),
        real: options.real.clone(),
        count: setup.count,
        steps: setup.steps,
        timesteps: options.timesteps.clone(),
        scheduler: options.solver.map(|solver| solver.name().into()),
        guidance_q16: setup.guidance.to_bits(),
        classifier: options.classifier.clone(),
        unconditional: options.unconditional,
        seed: setup.seed,
        models: bytes.map(|bytes| digest([bytes.as_slice()])).collect(),
        first,
    }
}

/// A shard's file.
///
/// # Errors
/// If the description or the tensors cannot be put into a file.
pub fn encode(
    model: &str,
    options: &Options,
    setup: &Setup,
    first: usize,
    pictures: &[Vec<Picture>],
) -> Result<Vec<u8>, QualityError> {
    let fail = |what: String| QualityError::Shard { path: "shard".into(), what };
    let text =
        serde_json::to_string(&description(model, options, setup, first)).map_err(|error| fail(error.to_string()))?;
    let data: Vec<(Vec<f32>, Vec<u8>)> = pictures
        .iter()
        .map(|pictures| {
            let samples = pictures.iter().flat_map(|picture| picture.sample.iter().copied()).collect();
            (samples, pictures.iter().flat_map(|picture| picture.bytes.iter().copied()).collect())
        })
        .collect();
    let count = pictures.first().map_or(0, Vec::len);
    let mut views = vec![];
    for (index, (samples, bytes)) in data.iter().enumerate() {
        let shape = vec![count, bytes.len().checked_div(count).unwrap_or(0)];
        let view = |dtype, data| TensorView::new(dtype, shape.clone(), data).map_err(|error| fail(error.to_string()));
        views.push((format!("samples{index}"), view(Dtype::F32, bytemuck::cast_slice(samples))?));
        views.push((format!("bytes{index}"), view(Dtype::U8, bytes)?));
    }
    safetensors::serialize(views, Some(HashMap::from([(KEY.into(), text)]))).map_err(|error| fail(error.to_string()))
}

/// Reads a shard: its description, and its pictures of each model.
fn decode(path: &Path) -> Result<(Description, Vec<Vec<Picture>>), QualityError> {
    let fail = |what: String| QualityError::Shard { path: path.into(), what };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| fail("not a shard of `quality --shard`".into()))?;
    let description: Description = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
    let get = |name: String, dtype| {
        let view = tensors.tensor(&name).map_err(|error| fail(error.to_string()))?;
        match view.shape() {
            &[count, len] if view.dtype() == dtype && len > 0 => Ok((count, len, view.data())),
            shape => Err(fail(format!("{name} has shape {shape:?} and type {:?}", view.dtype()))),
        }
    };
    let mut all = vec![];
    for index in 0..description.models.len() {
        let (count, len, samples) = get(format!("samples{index}"), Dtype::F32)?;
        let (found, width, bytes) = get(format!("bytes{index}"), Dtype::U8)?;
        if (count, len) != (found, width) {
            return Err(fail(format!("{count} samples of {len}, but {found} pictures of {width} bytes")));
        }
        let pictures = samples.chunks_exact(4 * len).zip(bytes.chunks_exact(len)).map(|(samples, bytes)| Picture {
            bytes: bytes.to_vec(),
            sample: samples.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
            ..Picture::default()
        });
        all.push(pictures.collect::<Vec<_>>());
    }
    Ok((description, all))
}

/// The whole of all shards: what [`super::measure`] gives without them.
///
/// # Errors
/// If a file is no shard, shards are of different evaluations, one is missing or there twice, or the models changed.
pub fn merge(paths: &[PathBuf], progress: &dyn Progress) -> Result<(String, Quality), QualityError> {
    let mut shards = vec![];
    for path in paths {
        let (description, pictures) = decode(path)?;
        shards.push((path, description, pictures));
    }
    shards.sort_by_key(|(_, description, _)| description.first);
    let Some((path, whole, _)) = shards.first().map(|(path, whole, pictures)| (*path, whole.clone(), pictures.len()))
    else {
        return Err(QualityError::Option("name at least one shard".into()));
    };
    let fail = |path: &PathBuf, what: String| QualityError::Shard { path: path.clone(), what };
    let named = |name: &String| {
        let solver = Solver::ALL.iter().copied().find(|solver| solver.name() == name);
        solver.ok_or_else(|| fail(path, format!("{name:?} is no scheduler of this version")))
    };
    let solver = whole.scheduler.as_ref().map(named).transpose()?;
    let options = Options {
        checkpoint: whole.checkpoint.clone(),
        judge: whole.judge.clone(),
        real: whole.real.clone(),
        count: Some(whole.count),
        steps: Some(whole.steps),
        timesteps: whole.timesteps.clone(),
        solver,
        guidance: Guidance::from_bits(whole.guidance_q16),
        classifier: whole.classifier.clone(),
        unconditional: whole.unconditional,
        seed: whole.seed,
    };
    let setup = Setup::new(&whole.model, &options, progress)?;
    if description(&whole.model, &options, &setup, whole.first).models != whole.models {
        return Err(fail(path, "the model files have changed since this shard was drawn".into()));
    }
    let mut pictures: Vec<Vec<Picture>> = vec![vec![]; whole.models.len()];
    for (path, description, part) in shards {
        let same = Description { first: whole.first, ..description.clone() };
        if same != whole {
            return Err(fail(path, format!("a shard of another evaluation than {}", paths[0].display())));
        }
        let drawn = pictures.first().map_or(0, Vec::len);
        if description.first != drawn {
            let what = format!("starts at picture {}, but pictures up to {drawn} are there: ", description.first);
            let hint = if description.first > drawn { "a shard is missing" } else { "a shard is there twice" };
            return Err(fail(path, what + hint));
        }
        for (all, part) in pictures.iter_mut().zip(part) {
            all.extend(part);
        }
    }
    let drawn = pictures.iter().map(Vec::len).min().unwrap_or(0);
    if drawn != whole.count {
        let what = format!("{drawn} of {} pictures are there: a shard is missing", whole.count);
        return Err(QualityError::Option(what));
    }
    Ok((whole.model, setup.evaluate(pictures)?))
}
