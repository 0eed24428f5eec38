//! diffusers' `UNet1DModel`: of sound (Dance Diffusion), whose blocks resample by cubic filters with reflected ends, and of
//! trajectories (Janner et al., 2022, Diffuser, arXiv:2205.09991), whose residual blocks are those of policies.

mod blocks;
mod config;

use config::{Config, Down, Middle, Up};

use super::ImportError;
use super::builder::{Builder, Conditioning, linear};
use super::config::refuse;
use crate::checkpoint::Checkpoint;
use crate::graph::{Activation, Conv2d, FrequencyOrder, Graph, Linear, Op, Projection, Shape, TensorId, TimeEmbedding};

/// Epsilon of normalizations, PyTorch's default.
const EPS: f64 = 1e-5;

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let config = Config::read(checkpoint.config())?;
    let projection = if config.is_fourier {
        Projection::Fourier {
            frequencies: checkpoint.tensor("time_proj.weight", &[config.time / 2])?,
            of_logarithm: false,
            flip_sin_to_cos: config.flip_sin_to_cos,
        }
    } else {
        Projection::sinusoid(config.time, config.flip_sin_to_cos, config.freq_shift, FrequencyOrder::Product)
    };
    let first = config.channels[0];
    let (time, activation) = match config.perceptron {
        Some(activation) => {
            let linear_1 = linear(checkpoint, "time_mlp.linear_1", config.time, 4 * first)?;
            let linear_2 = linear(checkpoint, "time_mlp.linear_2", 4 * first, first)?;
            // Of the projections of residual blocks.
            (TimeEmbedding { projection, linear_1, activation, linear_2 }, Activation::Mish)
        }
        None => (halves(projection), Activation::Relu),
    };
    let embedding = time.linear_2.outputs;
    let mut graph = Graph::new(Shape::new(1, config.steps, config.in_channels), time);
    graph.activation = activation;
    graph.params = checkpoint.params();
    let mut builder = Builder { checkpoint, graph, embedding, conditioning: Conditioning::Add, eps: EPS };
    builder.graph.output = network(&mut builder, &config)?;
    Ok(builder.graph)
}

/// An embedding that is the projected timestep `v` as two halves without a sign, relu(v) and relu(−v), whose difference it is.
fn halves(projection: Projection) -> TimeEmbedding {
    let (inputs, outputs) = (projection.channels(), 2 * projection.channels());
    let of = |inputs: usize, value: &dyn Fn(usize, usize) -> f32| Linear {
        inputs,
        outputs,
        weight: (0..outputs * inputs).map(|at| value(at / inputs, at % inputs)).collect(),
        bias: vec![0.0; outputs],
    };
    let linear_1 = of(inputs, &|row, column| match row % inputs == column {
        false => 0.0,
        true => {
            if row < inputs {
                1.0
            } else {
                -1.0
            }
        }
    });
    let linear_2 = of(outputs, &|row, column| f32::from(u8::from(row == column)));
    TimeEmbedding { projection, linear_1, activation: Activation::Relu, linear_2 }
}

/// The projected timestep as channels of a map. They are more than the bias of the convolution that reads them: at the row's ends it
/// sees zeros instead.
fn time_map(graph: &mut Graph, channels: usize) -> TensorId {
    let inputs = graph.shape(graph.input).c;
    let (weight, bias) = (vec![0.0; inputs * channels], vec![0.0; channels]);
    let nothing = Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs, outputs: channels, weight, bias };
    let nothing = graph.node("time_proj (map)", Op::Conv2d(nothing), &[graph.input]);
    let weight = (0..channels * 2 * channels).map(|at| {
        let (row, column) = (at / (2 * channels), at % (2 * channels));
        match column.checked_sub(channels) {
            None => f32::from(u8::from(row == column)),
            Some(column) => -f32::from(u8::from(row == column)),
        }
    });
    let bias = vec![0.0; channels];
    let difference = Linear { inputs: 2 * channels, outputs: channels, weight: weight.collect(), bias };
    graph.node("time_proj", Op::AddEmbedding(difference), &[nothing])
}

fn network(builder: &mut Builder<'_>, config: &Config) -> Result<TensorId, ImportError> {
    let mut x = builder.graph.input;
    let mut skips = vec![];
    for (index, &block) in config.down.iter().enumerate() {
        let (name, outputs) = (format!("down_blocks.{index}"), config.channels[index]);
        if block == Down::NoSkip {
            let time = time_map(&mut builder.graph, config.time);
            x = builder.graph.node(format!("{name} (join)"), Op::Concat, &[x, time]);
        }
        let halves = index + 1 < config.channels.len() || config.downsample_each_block;
        let (result, skip) =
            builder.row_down(&name, block, x, [outputs, config.layers_per_block + 1, usize::from(halves)])?;
        x = result;
        skips.push(skip);
    }
    x = match config.middle {
        Middle::Attention => builder.row_middle(x, config.channels[config.channels.len() - 1])?,
        Middle::Resnet => builder.row_middle_resnet(x, config)?,
        Middle::Value => builder.row_middle_value(x)?,
    };
    for (index, &block) in config.up.iter().enumerate() {
        let name = format!("up_blocks.{index}");
        let levels = config.channels.len();
        let is_last = index + 1 == config.up.len();
        let outputs = match (is_last, config.out_block.is_some()) {
            (true, true) => config.channels[0],
            (true, false) => config.out_channels,
            (false, _) => config.channels[levels - 2 - index],
        };
        let skip = skips.pop().unwrap_or(x);
        let [own, other] = [x, skip].map(|id| builder.graph.shape(id));
        if own != other {
            let expected = format!(
                "a length that is halved without a rest, and blocks that double what was halved: {name} joins {own} and {other}"
            );
            return Err(refuse("sample_size", config.steps, expected));
        }
        let joined = builder.graph.node(format!("{name} (join)"), Op::Concat, &[x, skip]);
        let doubles = index + 1 != levels;
        x = builder.row_up(
            &name,
            block,
            joined,
            [own.c, outputs, config.layers_per_block + 1, usize::from(doubles)],
        )?;
    }
    let length = builder.graph.shape(x).w;
    if length != config.steps {
        let expected = format!("blocks that double what was halved: of {} steps {length} are left", config.steps);
        return Err(refuse("up_block_types", format!("{} blocks", config.up.len()), expected));
    }
    if let Some((groups, activation)) = config.out_block {
        let channels = config.channels[0];
        x = builder.row_conv("out_block.final_conv1d_1", x, channels, [5, 1, 2])?;
        x = builder.row_norm("out_block.final_conv1d_gn", x, groups, activation)?;
        return builder.row_conv("out_block.final_conv1d_2", x, config.out_channels, [1, 1, 0]);
    }
    // What is predicted is a convolution's result.
    match config.up.last() {
        Some(Up::NoSkip) => Ok(x),
        _ => Ok(builder.copy("sample", x)),
    }
}
