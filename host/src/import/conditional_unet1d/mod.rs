//! The conditional 1-D U-Net of robot policies (Chi et al., 2023, arXiv:2303.04137): LeRobot's `DiffusionConditionalUnet1d` and
//! diffusion_policy's `ConditionalUnet1D`, the same network under other names.
//!
//! A trajectory of `horizon` steps is a map of one row, whose channels are actions. Strided convolutions have a kernel of 3.

mod diffusion_policy;
mod lerobot;
mod statistics;

use super::ImportError;
use super::builder::{Builder, Conditioning, linear};
use super::config::refuse;
use super::row::Keys;
use crate::checkpoint::Checkpoint;
use crate::graph::{Activation, FrequencyOrder, Graph, Observation, Op, Projection, Shape, TensorId, TimeEmbedding};

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

/// A network in the making.
struct Policy<'c> {
    builder: Builder<'c>,
    config: Config,
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
        projection: Projection::sinusoid(step, false, 1.0, FrequencyOrder::Quotient),
        linear_1: linear(checkpoint, &key("diffusion_step_encoder.1"), step, 4 * step)?,
        activation: Activation::Mish,
        linear_2: linear(checkpoint, &key("diffusion_step_encoder.3"), 4 * step, step)?,
    };
    let mut graph = Graph::new(Shape::new(1, config.horizon, actions), time);
    graph.activation = Activation::Mish;
    graph.params = checkpoint.params();
    graph.observation.clone_from(&config.observation);
    graph.actions.clone_from(&config.actions);
    let builder = Builder { checkpoint, graph, embedding: conditioning, conditioning: Conditioning::Add, eps: EPS };
    let mut policy = Policy { builder, config, kernel };
    policy.builder.graph.output = policy.network(&channels)?;
    Ok(policy.builder.graph)
}

impl Policy<'_> {
    fn network(&mut self, channels: &[usize]) -> Result<TensorId, ImportError> {
        let prefix = self.config.prefix;
        let mut x = self.builder.graph.input;
        let mut skips = vec![];
        for (level, &outputs) in channels.iter().enumerate() {
            let module = format!("{prefix}down_modules.{level}");
            x = self.residual_block(&format!("{module}.0"), x, outputs)?;
            x = self.residual_block(&format!("{module}.1"), x, outputs)?;
            skips.push(x);
            if level + 1 < channels.len() {
                let key = format!("{module}.2{}", self.config.resampler);
                x = self.builder.row_conv(&key, x, outputs, [3, 2, 1])?;
            }
        }
        for block in 0..2 {
            let outputs = self.builder.graph.shape(x).c;
            x = self.residual_block(&format!("{prefix}mid_modules.{block}"), x, outputs)?;
        }
        // The first level's skip is never read.
        for (index, &outputs) in channels[..channels.len() - 1].iter().rev().enumerate() {
            let module = format!("{prefix}up_modules.{index}");
            let skip = skips.pop().unwrap_or(x);
            x = self.builder.graph.node(format!("{module} (join)"), Op::Concat, &[x, skip]);
            x = self.residual_block(&format!("{module}.0"), x, outputs)?;
            x = self.residual_block(&format!("{module}.1"), x, outputs)?;
            x = self.builder.row_transposed(&format!("{module}.2{}", self.config.resampler), x)?;
        }
        let last = format!("{prefix}final_conv.0.block");
        x = self.builder.row_conv(&format!("{last}.0"), x, channels[0], [self.kernel, 1, self.kernel / 2])?;
        x = self.builder.row_norm(&format!("{last}.1"), x, self.config.groups, Activation::Mish)?;
        let actions = self.builder.graph.shape(self.builder.graph.input).c;
        self.builder.row_conv(&format!("{prefix}final_conv.1"), x, actions, [1, 1, 0])
    }

    fn residual_block(&mut self, key: &str, x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        let keys = Keys {
            halves: self.config.halves.map(|half| [0, 1].map(|part| format!("{key}.{half}.{part}"))),
            embedding: format!("{key}.cond_encoder"),
            shortcut: format!("{key}.residual_conv"),
        };
        let width = if self.config.is_scaled { 2 * outputs } else { outputs };
        let projection =
            linear(self.builder.checkpoint, &format!("{key}.cond_encoder.1"), self.builder.embedding, width)?;
        let film = if self.config.is_scaled { Op::Film(projection) } else { Op::AddEmbedding(projection) };
        self.builder.row_residual(&keys, x, [outputs, self.kernel, self.config.groups], film)
    }
}
