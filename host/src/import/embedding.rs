//! What conditions a network: the timestep and the class.

use super::ImportError;
use super::builder::linear;
use super::config::refuse;
use crate::checkpoint::Checkpoint;
use crate::graph::{Activation, ClassEmbedding, Projection, TimeEmbedding};

/// diffusers' `TimestepEmbedding` at `key`: the projected timestep through two layers of `length` outputs.
pub(super) fn timestep(
    checkpoint: &Checkpoint,
    key: &str,
    projection: Projection,
    length: usize,
) -> Result<TimeEmbedding, ImportError> {
    let linear_1 = linear(checkpoint, &format!("{key}.linear_1"), projection.channels(), length)?;
    let linear_2 = linear(checkpoint, &format!("{key}.linear_2"), length, length)?;
    Ok(TimeEmbedding { projection, linear_1, activation: Activation::Silu, linear_2 })
}

/// A row of `length` for each class, from a table.
pub(super) fn class(checkpoint: &Checkpoint, classes: usize, length: usize) -> Result<ClassEmbedding, ImportError> {
    let table = checkpoint.tensor("class_embedding.weight", &[classes, length])?;
    Ok(ClassEmbedding { classes, table, ..Default::default() })
}

/// A row of `length` for each class, from a perceptron over the class's number, which is projected as timesteps are.
pub(super) fn class_as_timestep(
    checkpoint: &Checkpoint,
    projection: Projection,
    classes: usize,
    length: usize,
) -> Result<ClassEmbedding, ImportError> {
    for class in [0.0, classes as f64 - 1.0] {
        if let Some(reason) = projection.missing(class) {
            return Err(refuse(
                "class_embed_type",
                "\"timestep\"",
                format!("class {class} has no embedding: {reason}"),
            ));
        }
    }
    let embedding = timestep(checkpoint, "class_embedding", projection, length)?;
    let table = (0..classes).flat_map(|class| embedding.embed(class as f64)).map(|value| value as f32).collect();
    Ok(ClassEmbedding { classes, table, ..Default::default() })
}

/// A row of `length` for each class, which the user gives.
pub(super) fn class_given(checkpoint: &Checkpoint, length: usize) -> Result<ClassEmbedding, ImportError> {
    let expected = format!(
        "the vectors of the classes are not in the checkpoint: give a safetensors file whose tensor class_embeddings is \
         (classes, {length}) by --class-embeddings, or name it as class_embeddings in waft.json"
    );
    let Some(vectors) = checkpoint.class_vectors() else {
        return Err(refuse("class_embed_type", "\"identity\"", expected));
    };
    if vectors.length != length {
        let value = format!("\"identity\" with vectors of {}", vectors.length);
        return Err(refuse("class_embed_type", value, expected));
    }
    let (classes, table) = (vectors.values.len() / length, vectors.values.clone());
    Ok(ClassEmbedding { classes, table, ..Default::default() })
}
