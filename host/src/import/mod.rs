//! From a checkpoint to a graph, one file for each architecture.

mod unet2d;

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::graph::Graph;

/// Why a checkpoint cannot be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A tensor is missing or misshapen.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A field of the configuration is not supported.
    #[error("config.json: {field} = {value} is not supported; {expected}")]
    Field {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What is.
        expected: String,
    },
    /// Weights that the configuration does not account for.
    #[error("the checkpoint holds tensors that its configuration does not explain: {}", .keys.join(", "))]
    Unused {
        /// Their keys, at most eight.
        keys: Vec<String>,
    },
}

/// Imports a checkpoint by the class that its configuration names.
///
/// # Errors
/// If the architecture, a field or a tensor is not supported, by name.
pub fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let class = checkpoint.config().get("_class_name").and_then(|value| value.as_str()).unwrap_or("");
    let graph = match class {
        "UNet2DModel" => unet2d::import(checkpoint)?,
        _ => {
            return Err(ImportError::Field {
                field: "_class_name".into(),
                value: format!("{class:?}"),
                expected: "waft imports UNet2DModel".into(),
            });
        }
    };
    let mut keys = checkpoint.unused();
    keys.truncate(8);
    if keys.is_empty() { Ok(graph) } else { Err(ImportError::Unused { keys }) }
}
