//! The network as a device runs it: a list of operations over tensors that the [plan](crate::plan) places.
//!
//! [`mod@crate::rewrite`] folds a [`Graph`](crate::graph::Graph) into it. Tensors and operations have the same indices here,
//! in the plan and in the file.

mod op;

use typed_index_collections::TiVec;

use crate::graph::Shape;
use crate::schedule::MAX_HISTORY;
pub use op::{
    Activate, Attention, Classifier, Conv2d, Embed, Film, Filter, GroupNorm, LayerNorm, Linear, LinearAttention,
    Observe, Op, Operation, Window,
};

/// Declares an index type, made from and turned into numbers.
macro_rules! ids {
    ($( $(#[$attribute:meta])* $name:ident; )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(usize);

        impl From<usize> for $name {
            fn from(index: usize) -> Self {
                Self(index)
            }
        }

        impl From<$name> for usize {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<u16> for $name {
            fn from(index: u16) -> Self {
                Self(index.into())
            }
        }
    )*};
}

ids! {
    /// Index of a tensor, in [`Network::tensors`] and in the file.
    TensorId;
    /// Index of an operation, in [`Network::ops`] and in the file.
    OpId;
}

impl TensorId {
    /// The index as the file has it.
    ///
    /// # Panics
    /// If the network has more tensors than a file can: the exporter refuses these before it asks.
    pub fn in_file(self) -> u16 {
        u16::try_from(self.0).expect("the exporter refuses networks with more tensors than a file can have")
    }
}

/// What a tensor is for; its element type follows from this and the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The sample `x_t`.
    Sample,
    /// What is read beside it and stays.
    Condition,
    /// What a policy acts on.
    Observation,
    /// The model output.
    Prediction,
    /// What the network says about the variance of a step's noise.
    Variance,
    /// What a classifier adds to the model output.
    Gradient,
    /// The input or the result of a classifier's activation.
    Features,
    /// A classifier's logits, or a gradient within it.
    Backward,
    /// The gradient with respect to the logits, between −1 and 1.
    Loss,
    /// The unconditional model output, kept for guidance.
    Unconditional,
    /// The clean sample of an earlier step, kept for samplers that look back.
    History,
    /// An activation between convolutions: residual stream, skip, or the inside of a block.
    Stream,
    /// Queries of an attention, or its context.
    Attention,
    /// Keys and values of an attention: the first half of the channels and the second, each with a scale of its own.
    KeyValue,
    /// Per-channel affine map of a normalization.
    Norm,
    /// The conditioning vector.
    Conditioning,
    /// The observation, normalized and activated.
    Observed,
    /// A projection of it.
    Bias,
    /// Scores of one attention row.
    Scores,
    /// Contexts of a linear attention, and the weights of a query.
    Contexts,
    /// A convolution's ring of rows.
    Ring,
    /// The unfolded input of a convolution at four pixels.
    Patches,
    /// What streamed weights pass through.
    Window,
}

/// A tensor of the plan.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// For reports.
    pub name: String,
    /// Rows, columns, channels.
    pub shape: Shape,
    /// What it is for.
    pub role: Role,
}

/// The operations of one network call, in execution order.
#[derive(Clone, Debug)]
pub struct Network {
    /// Every tensor.
    pub tensors: TiVec<TensorId, Tensor>,
    /// Operations with the name of the graph's node that they compute.
    pub ops: TiVec<OpId, (String, Op)>,
    /// The sample.
    pub sample: TensorId,
    /// What is read beside it and stays, if there is any.
    pub condition: Option<TensorId>,
    /// What a policy acts on, if the network is one.
    pub observation: Option<TensorId>,
    /// Number of the first operations that a run executes once: what they compute depends on the observation alone.
    pub once: usize,
    /// The model output.
    pub prediction: TensorId,
    /// What the network says about the variance of a step's noise, if it learned that.
    pub variance: Option<TensorId>,
    /// What a classifier adds to the model output, if one guides.
    pub gradient: Option<TensorId>,
    /// The kept unconditional output, if the plan allows for guidance.
    pub unconditional: Option<TensorId>,
    /// The clean samples of the step before and of the one before that, if the sampler looks back so far.
    pub history: [Option<TensorId>; MAX_HISTORY],
    /// Length of the conditioning vector; 0 if everything that depends on the timestep is a per-step bias.
    pub conditioning: usize,
}

impl Network {
    /// Adds a tensor.
    pub fn tensor(&mut self, name: impl Into<String>, shape: Shape, role: Role) -> TensorId {
        self.tensors.push_and_get_key(Tensor { name: name.into(), shape, role })
    }

    /// Makes room for the clean samples of `steps` earlier steps, at most [`MAX_HISTORY`].
    pub fn keep_history(&mut self, steps: usize) {
        let shape = self.tensors[self.sample].shape;
        for (i, name) in
            ["clean sample, one step ago", "clean sample, two steps ago"].into_iter().enumerate().take(steps)
        {
            self.history[i] = Some(self.tensor(name, shape, Role::History));
        }
    }

    /// Whether the sampler reads a tensor behind the network call: the prediction, the learned variance, a classifier's gradient.
    pub fn is_result(&self, id: TensorId) -> bool {
        id == self.prediction || Some(id) == self.variance || Some(id) == self.gradient
    }

    /// The tensors of the sampler and of the caller, which hold data between network calls.
    pub fn kept(&self) -> impl Iterator<Item = TensorId> {
        let [newer, older] = self.history;
        [Some(self.sample), self.condition, self.observation, self.unconditional, newer, older].into_iter().flatten()
    }

    /// The convolutions, with their indices.
    pub fn convs(&self) -> impl Iterator<Item = (OpId, &Conv2d)> {
        self.ops.iter_enumerated().filter_map(|(id, (_, op))| match op {
            Op::Conv2d(conv) => Some((id, &**conv)),
            _ => None,
        })
    }

    /// Multiply-accumulates of one call, padding taps included.
    pub fn macs(&self) -> u64 {
        self.ops.iter().map(|(_, op)| op.macs(&self.tensors)).sum()
    }
}
