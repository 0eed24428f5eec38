//! What conditions a network: the timestep and the class.

use super::ImportError;
use super::builder::linear;
use crate::checkpoint::Checkpoint;
use crate::graph::{ClassEmbedding, TimeEmbedding};

/// How the timestep becomes a vector of sines and cosines.
pub(super) struct Sinusoid {
    /// Its length, even.
    pub(super) channels: usize,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f64,
}

/// diffusers' `Timesteps` and `TimestepEmbedding`: the sinusoidal vector through two layers of `length` outputs.
pub(super) fn time(checkpoint: &Checkpoint, sinusoid: Sinusoid, length: usize) -> Result<TimeEmbedding, ImportError> {
    let Sinusoid { channels, flip_sin_to_cos, freq_shift } = sinusoid;
    Ok(TimeEmbedding {
        channels,
        flip_sin_to_cos,
        freq_shift,
        linear_1: linear(checkpoint, "time_embedding.linear_1", channels, length)?,
        linear_2: linear(checkpoint, "time_embedding.linear_2", length, length)?,
    })
}

/// A row of `length` for each class.
pub(super) fn class(checkpoint: &Checkpoint, classes: usize, length: usize) -> Result<ClassEmbedding, ImportError> {
    let table = checkpoint.tensor("class_embedding.weight", &[classes, length])?;
    Ok(ClassEmbedding { classes, table })
}
