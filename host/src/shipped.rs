//! Finding models: by the name of one that the repository ships, or by path.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;
use waft::format::Precision;
use waft::{Model, ModelError};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::export::{ExportError, ExportOptions, export, precision_name};
use crate::progress::Progress;
use crate::sample::AlignedBytes;

/// Why there is no model.
#[derive(Debug, Error)]
pub enum FindError {
    /// Neither a file nor a shipped model.
    #[error("no model {name:?}: neither a file nor one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What exists.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is not a model.
    #[error("{path}: {error}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ModelError,
    },
    /// The file has another precision than was asked for.
    #[error("{path} is an {found} model; export the checkpoint with --precision {asked}")]
    Precision {
        /// The file.
        path: PathBuf,
        /// Its precision.
        found: &'static str,
        /// The precision asked for.
        asked: &'static str,
    },
    /// The weights' own file is not the model's.
    #[error("{path} has {found} bytes, the model expects {expected}: export both again")]
    Weights {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Bytes that the model expects.
        expected: u64,
    },
    /// The checkpoint cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The folder of shipped models: of the sources that this was built from, or, if the program was copied elsewhere, the
/// folder `models` beside it or in the current folder.
pub fn models_folder() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    let program = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    let folders = sources.clone().into_iter().chain(program).chain([PathBuf::from(".")]);
    let found = folders.map(|folder| folder.join("models")).find(|folder| folder.is_dir());
    found.unwrap_or_else(|| sources.unwrap_or_default().join("models"))
}

/// The names of shipped models.
pub fn names() -> Vec<String> {
    let folder = fs::read_dir(models_folder()).into_iter().flatten().flatten();
    let mut names: Vec<String> = folder
        .filter(|entry| entry.path().join("checkpoint").is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Reads and validates a file.
///
/// # Errors
/// If it cannot be read or is not a model.
pub fn read(path: &Path) -> Result<AlignedBytes, FindError> {
    let bytes = fs::read(path).map_err(|error| FindError::Io { path: path.into(), error })?;
    let bytes = AlignedBytes::copy_of(&bytes);
    Model::from_bytes(bytes.as_slice()).map_err(|error| FindError::Model { path: path.into(), error })?;
    Ok(bytes)
}

/// A model by path or name. Of a shipped model, a precision or step count that no shipped file has is exported from its
/// checkpoint on the spot.
///
/// # Errors
/// If there is none, or it cannot be exported.
pub fn find(
    name: &str,
    precision: Option<Precision>,
    steps: Option<usize>,
    progress: &dyn Progress,
) -> Result<AlignedBytes, FindError> {
    let path = Path::new(name);
    if path.is_file() {
        let bytes = read(path)?;
        let model =
            Model::from_bytes(bytes.as_slice()).map_err(|error| FindError::Model { path: path.into(), error })?;
        return match precision {
            Some(asked) if asked != model.precision() => Err(FindError::Precision {
                path: path.into(),
                found: precision_name(model.precision()),
                asked: precision_name(asked),
            }),
            _ => Ok(bytes),
        };
    }
    if !names().iter().any(|known| known == name) {
        return Err(FindError::Unknown { name: name.into(), known: names().join(", ") });
    }
    let folder = models_folder().join(name);
    let precision = precision.unwrap_or(Precision::I8);
    let file = folder.join(format!("{name}-{}.waft", precision_name(precision)));
    if file.is_file() {
        let bytes = read(&file)?;
        let has = |model: &Model<'_>, n: usize| {
            (0..model.schedules()).any(|i| model.schedule(i).is_some_and(|s| s.steps as usize == n))
        };
        let model = Model::from_bytes(bytes.as_slice()).map_err(|error| FindError::Model { path: file, error })?;
        if steps.is_none_or(|n| has(&model, n)) {
            return Ok(bytes);
        }
    }
    let checkpoint = Checkpoint::open(folder.join("checkpoint"))?;
    let options = ExportOptions { precision, steps: steps.into_iter().collect(), ..ExportOptions::default() };
    Ok(export(&checkpoint, &options, progress)?.bytes)
}

/// The weights' own file of a model, beside it with the extension `weights`; empty if it has none.
///
/// # Errors
/// If it has one that cannot be read or is of another size.
pub fn weights(name: &str, model: &Model<'_>) -> Result<Vec<u8>, FindError> {
    let expected = u64::from(model.header().weights_bytes);
    if expected == 0 {
        return Ok(vec![]);
    }
    let path = Path::new(name).with_extension("weights");
    let bytes = fs::read(&path).map_err(|error| FindError::Io { path: path.clone(), error })?;
    let found = bytes.len() as u64;
    if found == expected { Ok(bytes) } else { Err(FindError::Weights { path, found, expected }) }
}

/// The timesteps of a model's step list.
pub fn timesteps(model: &Model<'_>, schedule: u16) -> Vec<i32> {
    let Some(list) = model.schedule(schedule) else { return vec![] };
    match model.precision() {
        Precision::I8 => model.fixed_steps(&list).map(|step| step.timestep).collect(),
        Precision::F16 | Precision::F32 => model.float_steps(&list).map(|step| step.timestep).collect(),
    }
}
