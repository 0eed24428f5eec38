//! The conditional 1-D U-Net of robot policies (Chi et al., 2023, arXiv:2303.04137): LeRobot's `DiffusionConditionalUnet1d` and
//! diffusion_policy's `ConditionalUnet1D`, the same network under other names.
//!
//! A trajectory of `horizon` steps is a map of one row, whose channels are actions. Strided convolutions have a kernel of 3; a
//! transposed one, of kernel 4 and stride 2, is a convolution of kernel 3 whose two halves of channels are its two phases.

mod diffusion_policy;
mod lerobot;
mod statistics;

use super::ImportError;
use super::builder::linear;
use super::config::refuse;
use crate::checkpoint::Checkpoint;
use crate::graph::{Activation, Conv2d, Graph, GroupNorm, Observation, Op, Projection, Shape, TensorId, TimeEmbedding};

pub(super) use diffusion_policy::import as import_diffusion_policy;
pub(super) use lerobot::import as import_lerobot;

/// Epsilon of normalizations, PyTorch's default.
const EPS: f64 = 1e-5;

/// What the layouts differ in, and what the tensors do not say.
struct Config {
    /// What the network's keys begin with.
    prefix: &'static str,
    /// Keys of the first and the second half of a residual block, behind the block's own.
    halves: [&'static str; 2],
    /// Key of a resampling convolution, behind the module's own.
    resampler: &'static str,
    /// Steps of a trajectory.
    horizon: usize,
    /// Groups of normalizations.
    groups: usize,
    /// Whether blocks are scaled, or only shifted.
    is_scaled: bool,
    observation: Option<Observation>,
    actions: Vec<[f64; 2]>,
}

/// A graph in the making.
struct Builder<'c> {
    checkpoint: &'c Checkpoint,
    config: Config,
    graph: Graph,
    /// Length of the conditioning vector.
    conditioning: usize,
    /// Of the blocks' convolutions.
    kernel: usize,
}

/// The sizes that the tensors have.
struct Sizes {
    actions: usize,
    channels: Vec<usize>,
    kernel: usize,
    step: usize,
    conditioning: usize,
}

impl Sizes {
    fn of(checkpoint: &Checkpoint, config: &Config) -> Result<Self, ImportError> {
        let prefix = config.prefix;
        let shape = |key: String| checkpoint.shape(&key).map(<[usize]>::to_vec);
        let missing = |key: String| ImportError::Policy { what: format!("it has no tensor {key}") };
        let mut channels = vec![];
        let (mut actions, mut kernel) = (0, 0);
        while let Some(found) =
            shape(format!("{prefix}down_modules.{}.0.{}.0.weight", channels.len(), config.halves[0]))
        {
            let [outputs, inputs, taps] = found[..] else { break };
            if channels.is_empty() {
                (actions, kernel) = (inputs, taps);
            }
            channels.push(outputs);
        }
        let first = format!("{prefix}down_modules.0.0.{}.0.weight", config.halves[0]);
        if channels.is_empty() || kernel % 2 == 0 || kernel > 15 {
            return Err(match shape(first.clone()) {
                None => missing(first),
                Some(found) => ImportError::Policy {
                    what: format!("{first} has shape {found:?}; kernels are of an odd number of taps up to 15"),
                },
            });
        }
        let two = |key: String| match shape(key.clone()).as_deref() {
            Some(&[_, inputs]) => Ok(inputs),
            _ => Err(missing(key)),
        };
        let step = two(format!("{prefix}diffusion_step_encoder.1.weight"))?;
        let conditioning = two(format!("{prefix}down_modules.0.0.cond_encoder.1.weight"))?;
        // Two frequencies at least: the divisor of the exponents is their number less one.
        if step % 2 == 1 || step < 4 || conditioning < step {
            let what = format!("a time embedding of {step} in a conditioning vector of {conditioning}");
            return Err(ImportError::Policy { what });
        }
        Ok(Self { actions, channels, kernel, step, conditioning })
    }
}

/// The network of a configuration.
fn build(checkpoint: &Checkpoint, config: Config) -> Result<Graph, ImportError> {
    let Sizes { actions, channels, kernel, step, conditioning } = Sizes::of(checkpoint, &config)?;
    let observed = config.observation.as_ref().map_or(0, |observation| observation.normalization.len());
    if conditioning - step != observed {
        let what = format!(
            "its network is conditioned on {} values beside the timestep, the configuration's observations have {observed}",
            conditioning - step
        );
        return Err(ImportError::Policy { what });
    }
    let halvings = channels.len() as u32 - 1;
    if halvings > 16 || !config.horizon.is_multiple_of(1 << halvings) {
        return Err(refuse("horizon", config.horizon, format!("a multiple of 2^{halvings}, as it is halved so often")));
    }
    let key = |part: &str| format!("{}{part}", config.prefix);
    let time = TimeEmbedding {
        projection: Projection::Sinusoid { channels: step, flip_sin_to_cos: false, freq_shift: 1.0, theta: 10_000.0 },
        linear_1: linear(checkpoint, &key("diffusion_step_encoder.1"), step, 4 * step)?,
        activation: Activation::Mish,
        linear_2: linear(checkpoint, &key("diffusion_step_encoder.3"), 4 * step, step)?,
    };
    let mut graph = Graph::new(Shape::new(1, config.horizon, actions), time);
    graph.activation = Activation::Mish;
    graph.params = checkpoint.params();
    graph.observation.clone_from(&config.observation);
    graph.actions.clone_from(&config.actions);
    let mut builder = Builder { checkpoint, config, graph, conditioning, kernel };
    builder.graph.output = builder.network(&channels)?;
    Ok(builder.graph)
}

impl Builder<'_> {
    fn network(&mut self, channels: &[usize]) -> Result<TensorId, ImportError> {
        let prefix = self.config.prefix;
        let mut x = self.graph.input;
        let mut skips = vec![];
        for (level, &outputs) in channels.iter().enumerate() {
            let module = format!("{prefix}down_modules.{level}");
            x = self.residual_block(&format!("{module}.0"), x, outputs)?;
            x = self.residual_block(&format!("{module}.1"), x, outputs)?;
            skips.push(x);
            if level + 1 < channels.len() {
                let key = format!("{module}.2{}", self.config.resampler);
                x = self.conv(&key, x, outputs, [3, 2, 1])?;
            }
        }
        for block in 0..2 {
            let outputs = self.graph.shape(x).c;
            x = self.residual_block(&format!("{prefix}mid_modules.{block}"), x, outputs)?;
        }
        // The first level's skip is never read.
        for (index, &outputs) in channels[..channels.len() - 1].iter().rev().enumerate() {
            let module = format!("{prefix}up_modules.{index}");
            let skip = skips.pop().unwrap_or(x);
            x = self.graph.node(format!("{module} (join)"), Op::Concat, &[x, skip]);
            x = self.residual_block(&format!("{module}.0"), x, outputs)?;
            x = self.residual_block(&format!("{module}.1"), x, outputs)?;
            x = self.transposed(&format!("{module}.2{}", self.config.resampler), x)?;
        }
        x = self.half(&format!("{prefix}final_conv.0.block"), x, channels[0])?;
        let actions = self.graph.shape(self.graph.input).c;
        self.conv(&format!("{prefix}final_conv.1"), x, actions, [1, 1, 0])
    }

    /// Two halves, modulated between, and the input beside them.
    fn residual_block(&mut self, key: &str, x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        let [first, second] = self.config.halves.map(|half| format!("{key}.{half}"));
        let mut hidden = self.half(&first, x, outputs)?;
        let width = if self.config.is_scaled { 2 * outputs } else { outputs };
        let projection = linear(self.checkpoint, &format!("{key}.cond_encoder.1"), self.conditioning, width)?;
        let film = if self.config.is_scaled { Op::Film(projection) } else { Op::AddEmbedding(projection) };
        hidden = self.graph.node(format!("{key}.cond_encoder"), film, &[hidden]);
        hidden = self.half(&second, hidden, outputs)?;
        let beside = if self.graph.shape(x).c != outputs {
            self.conv(&format!("{key}.residual_conv"), x, outputs, [1, 1, 0])?
        } else if x == self.graph.input || self.is_joined(x) {
            // What is added to an activation is an activation: the sample has a scale and a width of its own, and what is
            // joined has no memory of its own.
            let weight = arrange([outputs, 1, outputs], |[output, _, input]| f32::from(u8::from(output == input)));
            let bias = vec![0.0; outputs];
            let (kernel, padding) = ([1, 1], [0; 4]);
            let copy = Conv2d { kernel, stride: 1, padding, inputs: outputs, outputs, weight, bias };
            self.graph.node(format!("{key} (copy)"), Op::Conv2d(copy), &[x])
        } else {
            x
        };
        Ok(self.graph.node(format!("{key} (sum)"), Op::Add, &[hidden, beside]))
    }

    /// Whether an activation is two others, joined.
    fn is_joined(&self, id: TensorId) -> bool {
        self.graph.nodes.iter().any(|node| node.output == id && matches!(node.op, Op::Concat))
    }

    /// Convolution, normalization and Mish.
    fn half(&mut self, key: &str, x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        let x = self.conv(&format!("{key}.0"), x, outputs, [self.kernel, 1, self.kernel / 2])?;
        let groups = self.config.groups;
        if !outputs.is_multiple_of(groups) {
            return Err(refuse("n_groups", groups, format!("a divisor of the {outputs} channels of {key}")));
        }
        let gamma = self.checkpoint.tensor(&format!("{key}.1.weight"), &[outputs])?;
        let beta = self.checkpoint.tensor(&format!("{key}.1.bias"), &[outputs])?;
        let x = self.graph.node(format!("{key}.1"), Op::GroupNorm(GroupNorm { groups, eps: EPS, gamma, beta }), &[x]);
        Ok(self.graph.node(format!("{key}.2"), Op::Activation(Activation::Mish), &[x]))
    }

    /// A convolution along the row, of some kernel, stride and padding.
    fn conv(
        &mut self,
        key: &str,
        x: TensorId,
        outputs: usize,
        [kernel, stride, padding]: [usize; 3],
    ) -> Result<TensorId, ImportError> {
        let inputs = self.graph.shape(x).c;
        let weight = self.checkpoint.tensor(&format!("{key}.weight"), &[outputs, inputs, kernel])?;
        let weight =
            arrange([outputs, kernel, inputs], |[output, tap, input]| weight[(output * inputs + input) * kernel + tap]);
        let bias = self.checkpoint.tensor(&format!("{key}.bias"), &[outputs])?;
        let padding = [0, padding, 0, padding];
        let conv = Conv2d { kernel: [1, kernel], stride, padding, inputs, outputs, weight, bias };
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }

    /// A transposed convolution of kernel 4, stride 2 and padding 1. Column `2·x` is `w₃·x₋₁ + w₁·x`, column `2·x + 1` is
    /// `w₂·x + w₀·x₊₁`: each phase has one of three taps without weight, which costs less than an operation of its own.
    fn transposed(&mut self, key: &str, x: TensorId) -> Result<TensorId, ImportError> {
        const PHASES: [[Option<usize>; 3]; 2] = [[Some(3), Some(1), None], [None, Some(2), Some(0)]];
        let channels = self.graph.shape(x).c;
        let weight = self.checkpoint.tensor(&format!("{key}.weight"), &[channels, channels, 4])?;
        let weight = arrange([2 * channels, 3, channels], |[output, tap, input]| {
            let (phase, output) = (output / channels, output % channels);
            PHASES[phase][tap].map_or(0.0, |tap| weight[(input * channels + output) * 4 + tap])
        });
        let bias = self.checkpoint.tensor(&format!("{key}.bias"), &[channels])?.repeat(2);
        let conv = Conv2d {
            kernel: [1, 3],
            stride: 1,
            padding: [0, 1, 0, 1],
            inputs: channels,
            outputs: 2 * channels,
            weight,
            bias,
        };
        let x = self.graph.node(key, Op::Conv2d(conv), &[x]);
        Ok(self.graph.node(format!("{key} (phases)"), Op::Shuffle, &[x]))
    }
}

/// A row-major array from its elements by index.
fn arrange(shape: [usize; 3], of: impl Fn([usize; 3]) -> f32) -> Vec<f32> {
    let [a, b, c] = shape;
    (0..a * b * c).map(|at| of([at / (b * c), at / c % b, at % c])).collect()
}
