//! From a checkpoint to a graph: a folder for each architecture, and the building blocks that they share.

mod attention;
mod builder;
mod config;
mod embedding;
mod resample;
mod resnet;
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
    /// The network does not predict what a sampler needs.
    #[error(
        "the network reads {inputs} channels and predicts {outputs}; drawing needs as many of one as of the other: \
         channels that condition the network, and learned variances, are not supported (single calls of it are)"
    )]
    Channels {
        /// Channels of its input.
        inputs: usize,
        /// Channels of its output.
        outputs: usize,
    },
    /// The network draws latents.
    #[error(
        "the network draws latents, which the pipeline's {decoder} turns into pictures; decoders are not supported \
         (single calls of the network are)"
    )]
    Latents {
        /// What decodes them.
        decoder: String,
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

/// Imports a checkpoint to draw with: what its network predicts has the shape of what it reads, and is a picture.
///
/// # Errors
/// As [`import`], and if the network does not draw pictures.
pub fn import_for_sampling(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let graph = import(checkpoint)?;
    let (inputs, outputs) = (graph.shape(graph.input).c, graph.shape(graph.output).c);
    if inputs != outputs {
        return Err(ImportError::Channels { inputs, outputs });
    }
    match checkpoint.decoder() {
        Some(decoder) => Err(ImportError::Latents { decoder: decoder.into() }),
        None => Ok(graph),
    }
}
