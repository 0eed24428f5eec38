//! Finding models: by the name of one that the repository ships, or by path.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;
use waft::format::Precision;
use waft::{Model, ModelError};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::export::{ExportError, ExportOptions, export, precision_name};
use crate::pointer::is_pointer;
use crate::progress::Progress;
use crate::sample::AlignedBytes;

/// Why there is no model.
#[derive(Debug, Error)]
pub enum FindError {
    /// Neither a file nor a shipped model.
    #[error("no model {name:?}: neither a file nor one of {known}")]
    Unknown {
        /// What was asked for.
        name: PathBuf,
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
    /// Git LFS left a pointer in its place.
    #[error(
        "{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file"
    )]
    LargeFilePointer {
        /// The file.
        path: PathBuf,
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
    /// What a shipped model is exported from is not on this machine.
    #[error(
        "{name} with {asked} is not among the files inside this program, and its checkpoint, models/{name}/checkpoint of waft's \
         repository, is not here; run this in a clone of the repository, or export the checkpoint and name the file"
    )]
    NoSources {
        /// The model.
        name: String,
        /// The precision and steps asked for.
        asked: String,
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

/// The model files of the folder of shipped models, in order.
pub fn files() -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries(&models_folder()).flat_map(|folder| entries(&folder).collect::<Vec<_>>()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "waft"));
    files.sort();
    files
}

/// Names and bytes of the files inside this program.
fn embedded() -> &'static [(&'static str, &'static [u8])] {
    #[cfg(feature = "embedded-models")]
    {
        &waft_models::FILES
    }
    #[cfg(not(feature = "embedded-models"))]
    {
        &[]
    }
}

/// The names of shipped models: those inside this program, and those of the folder.
pub fn names() -> Vec<String> {
    let folder = fs::read_dir(models_folder()).into_iter().flatten().flatten();
    let mut names: Vec<String> = folder
        .filter(|entry| entry.path().join("checkpoint").is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.extend(embedded().iter().filter_map(|(file, _)| Some(file.rsplit_once('-')?.0.to_string())));
    names.sort();
    names.dedup();
    names
}

/// The name, if a shipped model has it. Only files have names that are no text.
pub(crate) fn known(name: &Path) -> Result<&str, FindError> {
    let known = names();
    let found = name.to_str().filter(|name| known.iter().any(|known| known == name));
    found.ok_or_else(|| FindError::Unknown { name: name.into(), known: known.join(", ") })
}

/// The folder of a shipped model's checkpoint.
///
/// # Errors
/// If there is no such model, or its checkpoint is not on this machine.
pub fn checkpoint(name: impl AsRef<Path>) -> Result<PathBuf, FindError> {
    let name = known(name.as_ref())?;
    let folder = models_folder().join(name).join("checkpoint");
    if !folder.is_dir() {
        return Err(FindError::NoSources { name: name.into(), asked: "its checkpoint".into() });
    }
    Ok(folder)
}

/// The student of a shipped model that draws in that many steps, if there is one (see `models/distill.py`): how its files
/// begin, `NAME-Nstep`, and the folder of its checkpoint, `Nstep` in the model's.
pub fn student(name: &str, steps: Option<usize>) -> Option<(String, PathBuf)> {
    let steps = steps?;
    let (stem, folder) = (format!("{name}-{steps}step"), models_folder().join(name).join(format!("{steps}step")));
    let inside = embedded().iter().any(|(file, _)| file.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('-')));
    (inside || folder.is_dir()).then_some((stem, folder))
}

/// The files and folders that a model is read from, which no output may replace: what is at a path, with its weights' own
/// file, and of a shipped model its exported files, its checkpoint, and that of its student for so many steps.
pub fn sources(name: impl AsRef<Path>, steps: Option<usize>) -> Vec<PathBuf> {
    let path = name.as_ref();
    let mut sources = vec![path.with_extension("weights"), path.into()];
    if let (false, Ok(name)) = (path.is_file(), known(path)) {
        let folder = models_folder().join(name);
        let files = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        sources.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "waft")));
        sources.push(folder.join("checkpoint"));
        sources.extend(student(name, steps).map(|(_, checkpoint)| checkpoint));
    }
    sources
}

/// A file of a shipped model, from inside this program or from the folder.
fn shipped_file(name: &str, stem: &str, precision: Precision) -> Result<Option<AlignedBytes>, FindError> {
    let file = format!("{stem}-{}.waft", precision_name(precision));
    if let Some((_, bytes)) = embedded().iter().find(|(known, _)| *known == file) {
        return Ok(Some(AlignedBytes::copy_of(bytes)));
    }
    let path = models_folder().join(name).join(file);
    if path.is_file() { read(&path).map(Some) } else { Ok(None) }
}

/// Reads and validates a file.
///
/// # Errors
/// If it cannot be read or is not a model.
pub fn read(path: &Path) -> Result<AlignedBytes, FindError> {
    let bytes = read_whole(path)?;
    let bytes = AlignedBytes::copy_of(&bytes);
    Model::from_bytes(bytes.as_slice()).map_err(|error| FindError::Model { path: path.into(), error })?;
    Ok(bytes)
}

fn read_whole(path: &Path) -> Result<Vec<u8>, FindError> {
    let bytes = fs::read(path).map_err(|error| FindError::Io { path: path.into(), error })?;
    if is_pointer(&bytes) {
        return Err(FindError::LargeFilePointer { path: path.into() });
    }
    Ok(bytes)
}

/// A model by path or name. Of a shipped model, a step count that one of its students was made for stands for the student;
/// a precision or step count that no shipped file has is exported from the checkpoint on the spot.
///
/// # Errors
/// If there is none, or it cannot be exported.
pub fn find(
    name: impl AsRef<Path>,
    precision: Option<Precision>,
    steps: Option<usize>,
    progress: &dyn Progress,
) -> Result<AlignedBytes, FindError> {
    let path = name.as_ref();
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
    let name = known(path)?;
    let precision = precision.unwrap_or(Precision::I8);
    let original = || (name.to_string(), models_folder().join(name).join("checkpoint"));
    let (stem, folder) = student(name, steps).unwrap_or_else(original);
    if let Some(bytes) = shipped_file(name, &stem, precision)? {
        let has = |model: &Model<'_>, n: usize| {
            (0..model.schedules()).any(|i| model.schedule(i).is_some_and(|s| s.steps as usize == n))
        };
        let model =
            Model::from_bytes(bytes.as_slice()).map_err(|error| FindError::Model { path: name.into(), error })?;
        if steps.is_none_or(|n| has(&model, n)) {
            return Ok(bytes);
        }
    }
    if !folder.is_dir() {
        let steps = steps.map_or_else(String::new, |steps| format!(" and {steps} steps"));
        let asked = format!("precision {}{steps}", precision_name(precision));
        return Err(FindError::NoSources { name: name.into(), asked });
    }
    let checkpoint = Checkpoint::open(folder)?;
    let mut options = ExportOptions { precision, ..ExportOptions::default() };
    if let Some(steps) = steps {
        options = options.in_steps(steps, checkpoint.defaults());
    }
    Ok(export(&checkpoint, &options, progress)?.bytes)
}

/// The weights' own file of a model, beside it with the extension `weights`; empty if it has none.
///
/// # Errors
/// If it has one that cannot be read or is of another size.
pub fn weights(name: impl AsRef<Path>, model: &Model<'_>) -> Result<Vec<u8>, FindError> {
    let expected = u64::from(model.header().weights_bytes);
    if expected == 0 {
        return Ok(vec![]);
    }
    let path = name.as_ref().with_extension("weights");
    let bytes = read_whole(&path)?;
    let found = bytes.len() as u64;
    if found == expected { Ok(bytes) } else { Err(FindError::Weights { path, found, expected }) }
}
