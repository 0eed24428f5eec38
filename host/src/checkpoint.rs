//! Reading what diffusers' `save_pretrained` writes.
//!
//! A checkpoint is a folder with `config.json` and `diffusion_pytorch_model.safetensors` (or its shards), and
//! optionally `scheduler_config.json` and waft's own `waft.json`; a pipeline folder keeps them in `unet/` and
//! `scheduler/`. Weights are memory-mapped and converted to `f32` when they are asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use thiserror::Error;

use crate::schedule::{ScheduleError, SchedulerConfig};

/// Why a folder is not a checkpoint.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is missing.
    #[error("{folder}: no {file}{hint}")]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A JSON file does not parse.
    #[error("{path}: {error}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// A safetensors file does not parse.
    #[error("{path}: not a safetensors file: {error}; save the model again with save_pretrained")]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: String,
    },
    /// The scheduler's configuration is refused.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A tensor is missing.
    #[error("no tensor {key:?}{}", near.as_ref().map_or(String::new(), |n| format!("; there is {n:?}")))]
    NoTensor {
        /// Its key.
        key: String,
        /// A similar key that exists.
        near: Option<String>,
    },
    /// A tensor has another shape.
    #[error("tensor {key:?} has shape {found:?}, the configuration needs {expected:?}")]
    Shape {
        /// Its key.
        key: String,
        /// What the configuration says.
        expected: Vec<usize>,
        /// What the file says.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not supported.
    #[error("tensor {key:?} has type {dtype}; save the model in float32, float16 or bfloat16")]
    Dtype {
        /// Its key.
        key: String,
        /// Its type.
        dtype: String,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {key:?} holds a value that is not finite; the training diverged or the file is damaged")]
    NotFinite {
        /// Its key.
        key: String,
    },
}

/// Defaults that travel with a checkpoint in `waft.json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportDefaults {
    /// Name of the model, at most 64 bytes.
    pub name: Option<String>,
    /// Step counts that the file carries.
    pub steps: Option<Vec<usize>>,
    /// The class that means "no class".
    pub unconditional_class: Option<usize>,
    /// Sampler option, see [`crate::schedule::Ddim`].
    pub use_clipped_model_output: bool,
    /// Where it comes from, and its licence.
    pub provenance: Option<String>,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: serde_json::Map<String, serde_json::Value>,
    scheduler: SchedulerConfig,
    defaults: ExportDefaults,
    maps: Vec<Mmap>,
    /// The file of each tensor.
    index: BTreeMap<String, usize>,
    used: RefCell<BTreeSet<String>>,
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn read(path: &Path) -> Result<String, CheckpointError> {
    fs::read_to_string(path).map_err(|error| CheckpointError::Io { path: path.into(), error })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_str(&read(path)?).map_err(|error| CheckpointError::Json { path: path.into(), error })
}

impl Checkpoint {
    /// Opens a folder.
    ///
    /// # Errors
    /// If files are missing or malformed, by name.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let top = folder.as_ref();
        let unet = if top.join("unet").join("config.json").is_file() { top.join("unet") } else { top.to_path_buf() };
        if !unet.join("config.json").is_file() {
            let hint = "; give the folder that save_pretrained wrote";
            return Err(CheckpointError::Missing { folder: unet, file: "config.json", hint });
        }
        let config = parse(&unet.join("config.json"))?;
        let scheduler = [top.join("scheduler").join("scheduler_config.json"), unet.join("scheduler_config.json")];
        let scheduler = match scheduler.iter().find(|path| path.is_file()) {
            Some(path) => SchedulerConfig::from_json(&read(path)?)?,
            None => SchedulerConfig::default(),
        };
        let defaults = [top.join("waft.json"), unet.join("waft.json")];
        let defaults = match defaults.iter().find(|path| path.is_file()) {
            Some(path) => parse(path)?,
            None => ExportDefaults::default(),
        };
        let mut maps = vec![];
        let mut index = BTreeMap::new();
        for path in weight_files(&unet)? {
            let io = |error| CheckpointError::Io { path: path.clone(), error };
            let file = fs::File::open(&path).map_err(io)?;
            // SAFETY: as with every memory-mapped file, it must not change while it is open; the parser below bounds
            // every access, so a change could at worst give other weights or end the process.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            let tensors = SafeTensors::deserialize(&map)
                .map_err(|error| CheckpointError::SafeTensors { path: path.clone(), error: error.to_string() })?;
            index.extend(tensors.names().into_iter().map(|name| (name.to_string(), maps.len())));
            maps.push(map);
        }
        let used = RefCell::default();
        Ok(Self { folder: top.to_path_buf(), config, scheduler, defaults, maps, index, used })
    }

    /// The folder that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The fields of `config.json`.
    pub fn config(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.config
    }

    /// The noise schedule.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// What `waft.json` says.
    pub fn defaults(&self) -> &ExportDefaults {
        &self.defaults
    }

    /// Whether there is a tensor of that key.
    pub fn has(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// Number of parameters of all tensors.
    pub fn params(&self) -> u64 {
        let count = |map: &Mmap| {
            let tensors = SafeTensors::deserialize(map).ok();
            tensors.map_or(0, |tensors| {
                tensors.iter().map(|(_, tensor)| tensor.shape().iter().map(|&n| n as u64).product::<u64>()).sum()
            })
        };
        self.maps.iter().map(count).sum()
    }

    /// A tensor as `f32`, row-major.
    ///
    /// # Errors
    /// If it is missing, has another shape or type, or holds a value that is not finite.
    pub fn tensor(&self, key: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let missing = || CheckpointError::NoTensor { key: key.into(), near: self.similar(key) };
        let map = &self.maps[*self.index.get(key).ok_or_else(missing)?];
        let tensors = SafeTensors::deserialize(map)
            .map_err(|error| CheckpointError::SafeTensors { path: self.folder.clone(), error: error.to_string() })?;
        let tensor = tensors.tensor(key).map_err(|_| missing())?;
        if tensor.shape() != expected {
            let found = tensor.shape().to_vec();
            return Err(CheckpointError::Shape { key: key.into(), expected: expected.to_vec(), found });
        }
        let data = tensor.data();
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(CheckpointError::Dtype { key: key.into(), dtype: format!("{other:?}") }),
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(CheckpointError::NotFinite { key: key.into() });
        }
        self.used.borrow_mut().insert(key.into());
        Ok(values)
    }

    /// Tensors that nothing has asked for: parts of the network that an importer has not understood.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.index.keys().filter(|key| !used.contains(*key)).cloned().collect()
    }

    /// The existing key that shares the longest beginning, if it shares at least half.
    fn similar(&self, key: &str) -> Option<String> {
        let common = |other: &str| key.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let best = self.index.keys().max_by_key(|other| common(other))?;
        (2 * common(best) >= key.len()).then(|| best.clone())
    }
}

/// The safetensors files of a folder: one, or the shards that an index names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let single = folder.join(WEIGHTS);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join(format!("{WEIGHTS}.index.json"));
    if index.is_file() {
        let parsed: Index = parse(&index)?;
        let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
        // A shard is a file of this folder; a path that leads elsewhere is not followed.
        if names.iter().all(|name| Path::new(name).file_name().is_some_and(|file| file == name.as_str())) {
            return Ok(names.into_iter().map(|name| folder.join(name)).collect());
        }
        let error = "the index names shards outside the folder".to_string();
        return Err(CheckpointError::SafeTensors { path: index, error });
    }
    let pickled = folder.join("diffusion_pytorch_model.bin").is_file();
    let hint = if pickled {
        "; a pickled diffusion_pytorch_model.bin is not read, save the model with safe_serialization=True"
    } else {
        "; give the folder that save_pretrained wrote"
    };
    Err(CheckpointError::Missing { folder: folder.into(), file: WEIGHTS, hint })
}
