//! From a checkpoint to a graph: a folder for each architecture, and the building blocks that they share.

mod attention;
mod builder;
mod classifier;
mod conditional_unet1d;
mod config;
mod denoising_diffusion;
mod edm;
mod embedding;
mod resample;
mod resnet;
mod row;
mod unet1d;
mod unet2d;

use thiserror::Error;

pub use self::classifier::{ClassifierError, add_classifier};

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
        "the network's sample has {inputs} channels and its output {outputs}; drawing needs as many, or twice as many where \
         it learned variances: if some of its input are a condition, say how many as \
         condition_channels in waft.json"
    )]
    Channels {
        /// Channels of its sample.
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
    /// Tensors whose names are not those of the architecture.
    #[error("the tensors are not laid out as in guided-diffusion's UNetModel: {what}")]
    Layout {
        /// Where they differ.
        what: String,
    },
    /// A network of EDM that is none, or none that can be imported.
    #[error("the network is not one of EDM's that can be imported: {what}")]
    Edm {
        /// What is wrong.
        what: String,
    },
    /// A table of classes that is none.
    #[error("{what}, with fewer channels than the network's {inputs} inputs")]
    ClassTable {
        /// What was found.
        what: String,
        /// Channels of the network's input.
        inputs: usize,
    },
    /// A policy without statistics.
    #[error(
        "the checkpoint has no normalization statistics: {key} is missing; a policy without them acts on other numbers \
         than it learned from, so save the state dictionary of the whole policy, statistics included"
    )]
    Statistics {
        /// The first tensor that is missing.
        key: String,
    },
    /// A policy whose tensors and configuration do not go together.
    #[error("the checkpoint is not a policy that can be imported: {what}")]
    Policy {
        /// What is wrong.
        what: String,
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
    let text = |field: &str| checkpoint.config().get(field).and_then(|value| value.as_str());
    let class = text("_class_name").unwrap_or("");
    let graph = match class {
        "" if text("type") == Some("diffusion") => {
            refuse_what_pictures_have(checkpoint)?;
            conditional_unet1d::import_lerobot(checkpoint)?
        }
        "" if checkpoint.config().contains_key("policy") => {
            refuse_what_pictures_have(checkpoint)?;
            conditional_unet1d::import_diffusion_policy(checkpoint)?
        }
        "UNet1DModel" => {
            refuse_what_pictures_have(checkpoint)?;
            unet1d::import(checkpoint)?
        }
        "UNet2DModel" => unet2d::import(checkpoint)?,
        "ClassConditionedUnet" => unet2d::import_class_conditioned(checkpoint)?,
        crate::checkpoint::denoising_diffusion::CLASS => denoising_diffusion::import(checkpoint)?,
        crate::checkpoint::edm::SONG => edm::import(checkpoint, edm::SONG)?,
        crate::checkpoint::edm::DHARIWAL => edm::import(checkpoint, edm::DHARIWAL)?,
        "guided_diffusion.UNetModel" => unet2d::import_guided_diffusion(checkpoint)?,
        _ => {
            return Err(ImportError::Field {
                field: "_class_name".into(),
                value: format!("{class:?}"),
                expected:
                    "waft imports UNet1DModel, UNet2DModel, ClassConditionedUnet, guided_diffusion.UNetModel, denoising_diffusion_pytorch.Unet, edm.SongUNet, edm.DhariwalUNet, LeRobot's policies of type diffusion, and \
                           diffusion_policy's DiffusionUnetLowdimPolicy"
                        .into(),
            });
        }
    };
    refuse_unused(checkpoint)?;
    Ok(graph)
}

/// Refuses what the user says of a policy and only networks of pictures have.
fn refuse_what_pictures_have(checkpoint: &Checkpoint) -> Result<(), ImportError> {
    let defaults = checkpoint.defaults();
    let said = [
        ("classes", defaults.classes.is_some()),
        ("class_embeddings", checkpoint.class_vectors().is_some()),
        ("condition_channels", defaults.condition_channels.is_some()),
    ];
    match said.iter().find(|(_, is_said)| *is_said) {
        Some(&(field, _)) => {
            let expected =
                "only networks of pictures have them; leave it out of waft.json and of the command line".into();
            Err(ImportError::Field { field: field.into(), value: "stated".into(), expected })
        }
        None => Ok(()),
    }
}

/// Refuses tensors that nothing has asked for.
fn refuse_unused(checkpoint: &Checkpoint) -> Result<(), ImportError> {
    let mut keys = checkpoint.unused();
    keys.truncate(8);
    if keys.is_empty() { Ok(()) } else { Err(ImportError::Unused { keys }) }
}

/// Imports a checkpoint to draw with: what its network predicts has the shape of the sample, and is a picture. Where it also
/// predicts variances (Nichol and Dhariwal, 2021, arXiv:2102.09672), as many channels again, these are
/// [an activation of their own](Graph::variance).
///
/// # Errors
/// As [`import`], and if the network does not draw pictures.
pub fn import_for_sampling(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let mut graph = import(checkpoint)?;
    let (inputs, outputs) = (graph.shape(graph.input).c, graph.shape(graph.output).c);
    if outputs == 2 * inputs {
        graph.split_variance();
    } else if inputs != outputs {
        return Err(ImportError::Channels { inputs, outputs });
    }
    match checkpoint.decoder() {
        Some(decoder) => Err(ImportError::Latents { decoder: decoder.into() }),
        None => Ok(graph),
    }
}
