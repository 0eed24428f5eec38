//! diffusers' `UNet2DModel`.

mod blocks;
mod config;
mod kind;

use config::Config;

use super::ImportError;
use super::builder::{Builder, Window};
use super::embedding::{self, Sinusoid};
use crate::checkpoint::Checkpoint;
use crate::graph::{Graph, Op, Shape, TensorId};

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let config = Config::read(checkpoint.config())?;
    let first = config.channels[0];
    let embedding = config.time_embedding_dim.unwrap_or(4 * first);
    let sinusoid = Sinusoid { channels: first, flip_sin_to_cos: config.flip_sin_to_cos, freq_shift: config.freq_shift };
    let mut graph = Graph {
        tensors: vec![],
        nodes: vec![],
        input: TensorId(0),
        output: TensorId(0),
        time: embedding::time(checkpoint, sinusoid, embedding)?,
        classes: match config.num_class_embeds {
            Some(classes) => Some(embedding::class(checkpoint, classes, embedding)?),
            None => None,
        },
        params: checkpoint.params(),
    };
    graph.input = graph.tensor("sample", Shape::new(config.size[0], config.size[1], config.in_channels));
    let mut builder = Builder { checkpoint, graph, embedding, groups: config.norm_num_groups, eps: config.norm_eps };
    builder.graph.output = network(&mut builder, &config)?;
    Ok(builder.graph)
}

fn network(builder: &mut Builder<'_>, config: &Config) -> Result<TensorId, ImportError> {
    let mut x = builder.graph.input;
    if config.center_input_sample {
        x = builder.graph.node("center_input_sample", Op::Affine { gain: 2.0, offset: -1.0 }, &[x]);
    }
    x = builder.conv("conv_in", x, config.channels[0], Window::SAME)?;
    let mut skips = vec![x];
    for index in 0..config.channels.len() {
        x = builder.down_block(index, config, x, &mut skips)?;
    }
    if config.mid_block {
        x = builder.mid_block(config, x)?;
    }
    for index in 0..config.channels.len() {
        x = builder.up_block(index, config, x, &mut skips)?;
    }
    x = builder.norm("conv_norm_out", x, builder.groups)?;
    x = builder.silu("conv_act".into(), x);
    builder.conv("conv_out", x, config.out_channels, Window::SAME)
}
