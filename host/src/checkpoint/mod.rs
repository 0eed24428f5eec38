//! Reading what diffusers' `save_pretrained` and training scripts write.
//!
//! A checkpoint is a folder with `config.json`, weights, a scheduler's configuration, and optionally waft's own
//! `waft.json`; a pipeline's folder keeps them in `unet/` and `scheduler/`. Weights are safetensors, whole or in shards,
//! or what `torch.save` writes of a state dictionary. They are memory-mapped, and converted to `f32` when they are asked
//! for. What was chosen on the way, or found and not used, is told in [`Checkpoint::notes`].

pub(crate) mod denoising_diffusion;
pub(crate) mod edm;
mod entry;
mod error;
mod folder;
mod note;
mod pickle;
mod pipeline;
mod policy;
mod state_dict;
mod torch;
mod weights;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

pub use error::CheckpointError;
pub use folder::is_weights;
pub use note::Note;
pub use pickle::PickleError;
pub(crate) use state_dict::CLASS_CONDITIONED;

use crate::pointer::is_pointer;
use crate::schedule::SchedulerConfig;
use pipeline::Scheduler;
use weights::Weights;

/// Defaults that travel with a checkpoint in `waft.json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportDefaults {
    /// Name of the model, at most 64 bytes.
    pub name: Option<String>,
    /// Step counts that the file carries.
    pub steps: Option<Vec<usize>>,
    /// Lists of timesteps that the file carries, instead of step counts.
    pub timesteps: Option<Vec<Vec<i64>>>,
    /// The class that means "no class".
    pub unconditional_class: Option<usize>,
    /// Number of classes, for networks that take any number for one.
    pub classes: Option<usize>,
    /// How many of the input's channels, the last ones, are a condition; absent: those that the output does not have.
    pub condition_channels: Option<usize>,
    /// A safetensors file beside this one whose tensor `class_embeddings` (classes, length) f32 has the vector of each class,
    /// for networks that take a vector for one.
    pub class_embeddings: Option<PathBuf>,
    /// Sampler option, see [`crate::schedule::Ddim`].
    pub use_clipped_model_output: bool,
    /// Where it comes from, and its licence.
    pub provenance: Option<String>,
}

/// The vector of each class, for a network that takes a vector for one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassVectors {
    /// Numbers of one vector.
    pub length: usize,
    /// Row-major (classes, length).
    pub values: Vec<f32>,
}

/// A tensor under a name.
#[derive(Clone, Debug)]
pub(crate) struct NamedTensor {
    pub(crate) key: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// How to open a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The scheduler's configuration, or its folder; `None`: where diffusers puts it.
    pub scheduler_config: Option<PathBuf>,
    /// Variant of the weights, as `fp16` of `diffusion_pytorch_model.fp16.safetensors`.
    pub variant: Option<String>,
    /// Height and width to draw, instead of the configuration's `sample_size`.
    pub size: Option<[usize; 2]>,
    /// Number of classes, for a network that takes any number for one, instead of what `waft.json` says.
    pub classes: Option<usize>,
    /// A safetensors file with the vector of each class, see [`ExportDefaults::class_embeddings`], instead of the one that
    /// `waft.json` names.
    pub class_embeddings: Option<PathBuf>,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Map<String, Value>,
    scheduler: Option<Scheduler>,
    defaults: ExportDefaults,
    class_vectors: Option<ClassVectors>,
    /// Classes that calls have, where nobody says how many there are.
    called_classes: Option<usize>,
    decoder: Option<String>,
    weights: Weights,
    notes: Vec<Note>,
}

/// Most classes that a file numbers.
pub(crate) const MOST_CLASSES: usize = 65_534;
/// What diffusers' `EMAModel` adds to a model's configuration, and diffusers ignores when it reads it.
const AVERAGE: [&str; 7] =
    ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"];

/// Bytes of a text at most: the one that names the tensors of a large model's shards has some megabytes.
const MOST_TEXT: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, CheckpointError> {
    let io = |error| CheckpointError::Io { path: path.into(), error };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST_TEXT + 1).read_to_string(&mut text)).map_err(io)?;
    if read as u64 > MOST_TEXT {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, "too long for a text, which ends after 64 MiB at most");
        return Err(CheckpointError::Io { path: path.into(), error });
    }
    // Editors of some systems begin texts with a mark of their byte order.
    if text.starts_with('\u{FEFF}') {
        text.remove(0);
    }
    if is_pointer(text.as_bytes()) {
        return Err(CheckpointError::LargeFilePointer { path: path.into() });
    }
    Ok(text)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_str(&read(path)?).map_err(|error| CheckpointError::Json { path: path.into(), error })
}

impl Checkpoint {
    /// Opens a folder, or a file of weights beside its `config.json`.
    ///
    /// # Errors
    /// If files are missing, malformed or ambiguous, by name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_with(path, &Options::default())
    }

    /// Opens a folder, or a file of weights beside its `config.json`, with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and if an option asks for what is not there.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self, CheckpointError> {
        let found = folder::find(path.as_ref())?;
        let mut notes = vec![];
        let mut config = if found.is_snapshot { Map::new() } else { policy::config(&found.model)? };
        tidy(&mut config, options.size, &mut notes);
        let mut scheduler = pipeline::scheduler(&found, options.scheduler_config.as_deref(), &mut notes)?;
        let decoder = pipeline::decoder(&found, &mut notes)?;
        pipeline::averaged_beside(&found, &mut notes);
        let defaults = folder::first_file([found.top.join("waft.json"), found.model.join("waft.json")])?;
        let (mut defaults, beside): (ExportDefaults, Option<&Path>) = match &defaults {
            Some(path) => (parse(path)?, path.parent()),
            None => Default::default(),
        };
        if let Some(sampling) = policy::sampling(&config)? {
            scheduler.get_or_insert(Scheduler { config: sampling.scheduler, path: None });
            if defaults.timesteps.is_none() && defaults.steps.is_none() {
                defaults.steps = sampling.steps.map(|steps| vec![steps]);
            }
        }
        defaults.classes = options.classes.or(defaults.classes);
        let class_vectors = match (&options.class_embeddings, &defaults.class_embeddings, beside) {
            (Some(path), ..) => Some(class_vectors(path)?),
            (None, Some(file), Some(folder)) => Some(class_vectors_beside(folder, file)?),
            _ => None,
        };
        let weights = folder::weights(&found, options.variant.as_deref(), &mut notes)?;
        let weights = Weights::open(&weights, &mut notes)?;
        state_dict::complete(&mut config, &weights, &mut notes)?;
        if let Some(snapshot) = weights.snapshot() {
            let config = snapshot.complete(&mut config)?;
            defaults.unconditional_class = defaults.unconditional_class.or(snapshot.unconditional_class());
            scheduler.get_or_insert(Scheduler { config, path: None });
        }
        if scheduler.is_none()
            && let Some(found) = denoising_diffusion::scheduler(&config, &weights)?
        {
            scheduler = Some(Scheduler { config: found, path: None });
            // Its sampler derives ε again from the clipped sample.
            defaults.use_clipped_model_output = true;
        }
        let (folder, called_classes) = (found.top, None);
        Ok(Self { folder, config, scheduler, defaults, class_vectors, called_classes, decoder, weights, notes })
    }

    /// Reads a checkpoint from memory: the texts of `config.json` and of the scheduler's configuration, and the bytes of
    /// one file of weights.
    ///
    /// # Errors
    /// If one of them is malformed.
    pub fn from_bytes(config: &str, scheduler: Option<&str>, weights: Vec<u8>) -> Result<Self, CheckpointError> {
        let json = |error| CheckpointError::Json { path: "config.json".into(), error };
        let mut notes = vec![];
        let mut config = serde_json::from_str(config).map_err(json)?;
        tidy(&mut config, None, &mut notes);
        let scheduler = match scheduler {
            Some(text) => Some(Scheduler { config: SchedulerConfig::from_json(text)?, path: None }),
            None => None,
        };
        let weights = Weights::from_bytes(weights, &mut notes)?;
        state_dict::complete(&mut config, &weights, &mut notes)?;
        let scheduler = match weights.snapshot() {
            Some(snapshot) => {
                let config = snapshot.complete(&mut config)?;
                Some(scheduler.unwrap_or(Scheduler { config, path: None }))
            }
            None => scheduler,
        };
        let (folder, defaults) = (PathBuf::new(), ExportDefaults::default());
        Ok(Self {
            folder,
            config,
            scheduler,
            defaults,
            class_vectors: None,
            called_classes: None,
            decoder: None,
            weights,
            notes,
        })
    }

    /// The folder that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The fields of `config.json`.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The noise schedule.
    ///
    /// # Errors
    /// If there is none. A default is right only for a model that was trained with it; the exporter takes one, and says so.
    pub fn scheduler(&self) -> Result<&SchedulerConfig, CheckpointError> {
        match &self.scheduler {
            Some(scheduler) => Ok(&scheduler.config),
            None => {
                let near = pipeline::near_scheduler(&self.folder);
                Err(CheckpointError::NoScheduler { folder: self.folder.clone(), near })
            }
        }
    }

    /// The file that the noise schedule was read from.
    pub fn scheduler_path(&self) -> Option<&Path> {
        self.scheduler.as_ref()?.path.as_deref()
    }

    /// What `waft.json` says.
    pub fn defaults(&self) -> &ExportDefaults {
        &self.defaults
    }

    /// Says how many classes the calls at hand have, for a network that takes any number for one, where nobody says how many
    /// there are.
    pub fn set_called_classes(&mut self, classes: usize) {
        self.called_classes = Some(classes);
    }

    /// How many classes the calls at hand have, if that is known.
    pub fn called_classes(&self) -> Option<usize> {
        self.called_classes
    }

    /// The vectors of the classes, if the user gave any.
    pub fn class_vectors(&self) -> Option<&ClassVectors> {
        self.class_vectors.as_ref()
    }

    /// Gives the vectors of the classes, instead of those that `waft.json` names.
    pub fn set_class_vectors(&mut self, vectors: ClassVectors) {
        self.class_vectors = Some(vectors);
    }

    /// What a user should know: what was chosen, and what was found and not used.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The part of the pipeline that turns what the network draws into pictures, if the network draws latents.
    pub fn decoder(&self) -> Option<&str> {
        self.decoder.as_deref()
    }

    /// Whether there is a tensor of that key.
    pub fn has(&self, key: &str) -> bool {
        self.weights.has(key)
    }

    /// Number of parameters of all tensors.
    pub fn params(&self) -> u64 {
        self.weights.params()
    }

    /// A tensor as `f32`, row-major.
    ///
    /// # Errors
    /// If it is missing, has another shape or type, or holds a value that is not finite.
    pub fn tensor(&self, key: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        self.weights.tensor(key, expected)
    }

    /// The shape of a tensor, if there is one of that key.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.weights.shape(key)
    }

    /// The same checkpoint with other tensors: those of a layout that was brought to other names.
    ///
    /// # Errors
    /// If two have the same key.
    pub(crate) fn with_tensors(&self, tensors: &[NamedTensor]) -> Result<Self, CheckpointError> {
        Ok(Self {
            folder: self.folder.clone(),
            config: self.config.clone(),
            scheduler: None,
            defaults: self.defaults.clone(),
            class_vectors: self.class_vectors.clone(),
            called_classes: self.called_classes,
            decoder: self.decoder.clone(),
            weights: Weights::from_tensors(tensors)?,
            notes: vec![],
        })
    }

    /// Counts a tensor as asked for that says nothing of the network.
    pub(crate) fn ignore(&self, key: &str) {
        self.weights.ignore(key);
    }

    /// Tensors that nothing has asked for: parts of the network that an importer has not understood.
    pub fn unused(&self) -> Vec<String> {
        self.weights.unused()
    }
}

/// Reads the vectors of classes, from a file of the folder that names it; a path that leads elsewhere is not followed.
fn class_vectors_beside(folder: &Path, file: &Path) -> Result<ClassVectors, CheckpointError> {
    let path = folder.join(file);
    if file.file_name().is_none_or(|name| name != file.as_os_str()) {
        return Err(CheckpointError::Weights { path, what: "is outside the folder of waft.json".into() });
    }
    class_vectors(&path)
}

fn class_vectors(path: &Path) -> Result<ClassVectors, CheckpointError> {
    let (shape, values) = crate::tensors::read(path)?.f32("class_embeddings")?;
    match shape[..] {
        [classes, length] if (1..=MOST_CLASSES).contains(&classes) && length > 0 => Ok(ClassVectors { length, values }),
        _ => Err(CheckpointError::ClassVectors { path: path.into(), found: shape }),
    }
}

/// Takes out what does not belong to the network, and sets the size.
fn tidy(config: &mut Map<String, Value>, size: Option<[usize; 2]>, notes: &mut Vec<Note>) {
    let before = config.len();
    config.retain(|field, _| !AVERAGE.contains(&field.as_str()));
    if config.len() < before {
        notes.push(Note::Averaged);
    }
    if let Some(size) = size {
        let configured = config.insert("sample_size".into(), size.to_vec().into());
        let is_same =
            configured == Some(size.to_vec().into()) || size[0] == size[1] && configured == Some(size[0].into());
        if let Some(configured) = configured.filter(|value| !is_same && !value.is_null()) {
            notes.push(Note::Size { size, configured: configured.to_string() });
        }
    }
}
