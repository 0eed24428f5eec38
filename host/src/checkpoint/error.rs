//! Why a checkpoint is refused.

use std::path::PathBuf;

use thiserror::Error;

use super::pickle::PickleError;
use crate::schedule::ScheduleError;
use crate::tensors::TensorsError;

/// Why something is not a checkpoint.
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
    /// What the network predicts is not known.
    #[error(
        "objective in config.json is {found}: neither that nor the weights of the loss among the tensors say what the network \
         predicts; give pred_noise, pred_x0 or pred_v, as it was trained"
    )]
    Objective {
        /// What the configuration says.
        found: String,
    },
    /// There is nothing at the path.
    #[error("{path}: there is no such file or folder; {advice}")]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// What is there is not a file.
    #[error("{path}: {what}, where a file is expected")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there, and what to do.
        what: &'static str,
    },
    /// A file is missing.
    #[error("{folder}: no {file}; {advice}")]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: &'static str,
        /// What to do.
        advice: String,
    },
    /// Several files could be meant.
    #[error("{folder}: {what}: {}", .found.join(", "))]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// What to choose, and how.
        what: &'static str,
        /// The choices.
        found: Vec<String>,
    },
    /// A file that Git LFS left in the place of the real one.
    #[error(
        "{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file"
    )]
    LargeFilePointer {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file does not parse.
    #[error("{path}: {error}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// A YAML file does not parse.
    #[error("{path}: {error}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: Box<serde_saphyr::Error>,
    },
    /// A file of weights does not parse.
    #[error("{path}: {what}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A pickle holds more than tensors, dictionaries and plain values.
    #[error(
        "{path}: not a state dictionary: {error}; save the weights alone, with torch.save(model.state_dict(), …) or \
         save_pretrained"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What was refused.
        error: PickleError,
    },
    /// There is no scheduler's configuration.
    #[error(
        "{folder}: no scheduler_config.json beside the model, in its pipeline's folder or in `scheduler`; the noise \
         schedule of the training decides what is drawn: give the scheduler's configuration{}",
        near.as_ref().map_or(String::new(), |path| format!(" ({} may be it)", path.display()))
    )]
    NoScheduler {
        /// The folder.
        folder: PathBuf,
        /// One that was found elsewhere.
        near: Option<PathBuf>,
    },
    /// A field of the configuration says something else than the tensors.
    #[error("config.json: {field} = {stated}, and the tensors say {told}; correct it or leave it out")]
    Contradiction {
        /// The field.
        field: String,
        /// What the configuration says.
        stated: String,
        /// What the tensors say.
        told: String,
    },
    /// A field of the configuration has a value that is not supported.
    #[error("config.json: {field} = {value} is not supported; {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be.
        expected: &'static str,
    },
    /// A pickled network that is not imported.
    #[error("the snapshot of a network is not supported: {what}")]
    Snapshot {
        /// What it is, and what to do.
        what: String,
    },
    /// A field that the tensors do not tell.
    #[error(
        "config.json: {field} is not stated, and several kinds of blocks have these tensors; give it, as the training had it"
    )]
    Unstated {
        /// The field.
        field: &'static str,
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
    /// The vectors of classes cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The vectors of classes are none.
    #[error("{path}: class_embeddings has shape {found:?}, expected (classes, length) with 1 to 65534 classes")]
    ClassVectors {
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Two tensors of one key.
    #[error("there are two tensors {key:?}; which one is meant is not known")]
    Duplicate {
        /// Their key.
        key: String,
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
