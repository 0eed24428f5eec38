//! diffusers' `UNet2DModel`.

mod blocks;
mod class_channels;
mod config;
mod guided_diffusion;
mod kind;
mod layout;

use blocks::Left;
use class_channels::ClassChannels;
use config::Config;
use kind::{ClassEmbedding, TimeEmbedding};

use serde_json::Value;

use super::ImportError;
use super::builder::{Builder, Window};
use super::config::refuse;
use super::embedding;
use crate::checkpoint::Checkpoint;
use crate::graph::{self, Activation, FrequencyOrder, Graph, Op, Projection, Shape, TensorId};

pub(super) use class_channels::import as import_class_conditioned;
pub(super) use guided_diffusion::import as import_guided_diffusion;

/// Classes of a network that takes any number for one, where nobody says how many there are.
const ASSUMED_CLASSES: usize = 10;

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    build(checkpoint, &Config::read(checkpoint.config())?, None)
}

/// The network of a configuration. `beside`: what the last of its input's channels are instead of a condition, if classes are.
fn build(checkpoint: &Checkpoint, config: &Config, beside: Option<ClassChannels>) -> Result<Graph, ImportError> {
    let first = config.channels[0];
    let embedding = config.time_embedding_dim.unwrap_or(4 * first);
    let projection = match config.time_embedding_type {
        TimeEmbedding::Positional => {
            Projection::sinusoid(first, config.flip_sin_to_cos, config.freq_shift, FrequencyOrder::Product)
        }
        TimeEmbedding::Fourier => Projection::Fourier {
            frequencies: checkpoint.tensor("time_proj.weight", &[first])?,
            of_logarithm: true,
            flip_sin_to_cos: false,
        },
        TimeEmbedding::Learned => {
            // The configuration was read: it names their number.
            let timesteps = config.num_train_timesteps.unwrap_or(0);
            Projection::Learned { table: checkpoint.tensor("time_proj.weight", &[timesteps, first])?, channels: first }
        }
    };
    let [h, w] = config.size;
    let condition = match &beside {
        Some(classes) => classes.width,
        None => condition_channels(checkpoint, config)?,
    };
    let time = embedding::timestep(checkpoint, "time_embedding", projection.clone(), embedding)?;
    let mut graph = Graph::new(Shape::new(h, w, config.in_channels - condition), time);
    graph.activation = config.act_fn;
    graph.classes = classes(checkpoint, config, projection, embedding)?;
    graph.over_timestep = config.time_embedding_type == TimeEmbedding::Fourier;
    graph.params = checkpoint.params();
    graph.condition =
        (condition > 0 && beside.is_none()).then(|| graph.tensor("condition", Shape::new(h, w, condition)));
    let mut builder =
        Builder { checkpoint, graph, embedding, conditioning: config.resnet_time_scale_shift, eps: config.norm_eps };
    let classes = beside.as_ref().map(|classes| classes.map(&mut builder.graph));
    builder.graph.output = network(&mut builder, config, classes)?;
    if let (Some(beside), Some(map)) = (beside, classes) {
        beside.condition(&mut builder.graph, map);
    }
    Ok(builder.graph)
}

/// How many of the input's channels, the last ones, are a condition: what `waft.json` says, or those that the output does not
/// have.
fn condition_channels(checkpoint: &Checkpoint, config: &Config) -> Result<usize, ImportError> {
    match checkpoint.defaults().condition_channels {
        None => Ok(config.in_channels.saturating_sub(config.out_channels)),
        Some(channels) if channels < config.in_channels => Ok(channels),
        Some(channels) => {
            let expected = format!("waft.json has {channels} condition_channels, and the sample needs some as well");
            Err(refuse("in_channels", config.in_channels, expected))
        }
    }
}

/// What a class adds to the time embedding, if there are classes.
fn classes(
    checkpoint: &Checkpoint,
    config: &Config,
    projection: Projection,
    length: usize,
) -> Result<Option<graph::ClassEmbedding>, ImportError> {
    if checkpoint.class_vectors().is_some() && config.class_embed_type != ClassEmbedding::Identity {
        let expected = "its classes are numbers: vectors stand for classes where this is \"identity\"";
        return Err(refuse(
            "class_embed_type",
            checkpoint.config().get("class_embed_type").unwrap_or(&Value::Null),
            expected,
        ));
    }
    let said = checkpoint.defaults().classes;
    if let (Some(classes), true) = (said, config.class_embed_type != ClassEmbedding::Timestep) {
        let expected =
            "the number of classes follows from the checkpoint: leave classes out of waft.json and --classes";
        return Err(refuse("classes", classes, expected));
    }
    Ok(Some(match (config.class_embed_type, config.num_class_embeds) {
        (ClassEmbedding::Table, None) => return Ok(None),
        (ClassEmbedding::Table, Some(classes)) => embedding::class(checkpoint, classes, length)?,
        (ClassEmbedding::Timestep, stated) => {
            // diffusers takes any number, and does not read num_class_embeds here.
            let known = said.or(stated).or(checkpoint.called_classes());
            let classes = known.unwrap_or(ASSUMED_CLASSES);
            let embedding = embedding::class_as_timestep(checkpoint, projection, classes, length)?;
            graph::ClassEmbedding { is_assumed: known.is_none(), ..embedding }
        }
        (ClassEmbedding::Identity, _) => embedding::class_given(checkpoint, length)?,
    }))
}

/// `classes`: the channels of the class, if it has some.
fn network(builder: &mut Builder<'_>, config: &Config, classes: Option<TensorId>) -> Result<TensorId, ImportError> {
    let mut x = builder.graph.input;
    if let Some(beside) = builder.graph.condition.or(classes) {
        x = builder.graph.node("condition (join)", Op::Concat, &[x, beside]);
    }
    if config.center_input_sample {
        x = builder.graph.node("center_input_sample", Op::Affine { gain: 2.0, offset: -1.0 }, &[x]);
    }
    let first = builder.conv("conv_in", x, config.channels[0], Window::SAME)?;
    let mut left = Left { skips: vec![first], sample: x, picture: None };
    x = first;
    for index in 0..config.channels.len() {
        x = builder.down_block(index, config, x, &mut left)?;
    }
    if config.mid_block {
        x = builder.mid_block(config, x)?;
    }
    for index in 0..config.channels.len() {
        x = builder.up_block(index, config, x, &mut left)?;
    }
    x = builder.norm("conv_norm_out", x, config.groups(config.channels[0]))?;
    // Whatever the activation of the blocks.
    x = builder.graph.node("conv_act", Op::Activation(Activation::Silu), &[x]);
    x = builder.conv("conv_out", x, config.out_channels, Window::SAME)?;
    Ok(left.picture.map_or(x, |picture| builder.residual("conv_out", [picture, x], 1.0)))
}
