//! The operations of a device, one struct each.

use typed_index_collections::TiSlice;

use super::{OpId, Tensor, TensorId};
use crate::graph::{self, Shape};

/// What an operation does to tensors.
pub trait Operation {
    /// The tensors that it reads, scratch excluded.
    fn inputs(&self) -> Vec<TensorId>;

    /// The tensor that it computes.
    fn output(&self) -> TensorId;

    /// The tensors that it uses only while it runs.
    fn scratch(&self) -> Vec<TensorId>;

    /// Multiply-accumulates, padding taps included.
    fn macs(&self, _tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        0
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// The conditioning vector.
    Embed(Embed),
    /// A projection of it.
    Linear(Linear),
    /// Statistics of a normalization.
    GroupNorm(GroupNorm),
    /// A convolution.
    Conv2d(Box<Conv2d>),
    /// Attention.
    Attention(Attention),
    /// An activation that is written out.
    Activate(Activate),
    /// The observation.
    Observe(Observe),
    /// A normalization over the channels of each pixel.
    LayerNorm(LayerNorm),
    /// Linear attention.
    LinearAttention(LinearAttention),
    /// An elementwise operation of a classifier.
    Classifier(Classifier),
    /// Resampling along the rows.
    Filter(Filter),
}

impl Op {
    fn operation(&self) -> &dyn Operation {
        match self {
            Op::Embed(op) => op,
            Op::Linear(op) => op,
            Op::GroupNorm(op) => op,
            Op::Conv2d(op) => &**op,
            Op::Attention(op) => op,
            Op::Activate(op) => op,
            Op::Observe(op) => op,
            Op::LayerNorm(op) => op,
            Op::LinearAttention(op) => op,
            Op::Classifier(op) => op,
            Op::Filter(op) => op,
        }
    }

    /// The tensors that it reads, scratch excluded.
    pub fn inputs(&self) -> Vec<TensorId> {
        self.operation().inputs()
    }

    /// The tensor that it computes.
    pub fn output(&self) -> TensorId {
        self.operation().output()
    }

    /// The tensors that it uses only while it runs.
    pub fn scratch(&self) -> Vec<TensorId> {
        self.operation().scratch()
    }

    /// Multiply-accumulates, padding taps included.
    pub fn macs(&self, tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        self.operation().macs(tensors)
    }
}

/// `activation(time + class)`.
#[derive(Clone, Debug)]
pub struct Embed {
    /// The conditioning vector.
    pub output: TensorId,
}

impl Operation for Embed {
    fn inputs(&self) -> Vec<TensorId> {
        vec![]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// A projection of the conditioning vector: the bias of a convolution, or the factors and summands of a normalization.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The conditioning vector.
    pub source: TensorId,
    /// Weights and bias; what the checkpoint has for the operation itself is folded in.
    pub linear: graph::Linear,
    /// The vector.
    pub output: TensorId,
}

impl Operation for Linear {
    fn inputs(&self) -> Vec<TensorId> {
        vec![self.source]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }

    fn macs(&self, _tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        (self.linear.inputs * self.linear.outputs) as u64
    }
}

/// Statistics of a group normalization, as an affine map of each channel that convolutions apply.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// One or two inputs, joined along the channels.
    pub sources: Vec<TensorId>,
    /// Groups, epsilon, factors and summands.
    pub norm: graph::GroupNorm,
    /// Projection of the conditioning vector to the factors and then the summands, with those of `norm` folded in, and the
    /// tensor that holds it; `None` if the schedules carry it among the per-step biases. Without one `norm` has them.
    pub projection: Option<(graph::Linear, Option<TensorId>)>,
    /// The map: a factor and a summand for each channel.
    pub output: TensorId,
}

impl Operation for GroupNorm {
    fn inputs(&self) -> Vec<TensorId> {
        let affine = self.projection.as_ref().and_then(|(_, id)| *id);
        self.sources.iter().copied().chain(affine).collect()
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// A convolution with everything folded into it.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// One or two inputs, joined along the channels.
    pub sources: Vec<TensorId>,
    /// Affine map of the joined channels.
    pub norm: Option<TensorId>,
    /// What follows the affine map, if anything does.
    pub activation: Option<graph::Activation>,
    /// A raw input enters as `gain·x + offset`.
    pub input_affine: (f32, f32),
    /// Whether rows and columns are doubled first.
    pub upsample: bool,
    /// Whether half of the channels becomes the columns of even number, the other half those of odd number.
    pub shuffle: bool,
    /// Kernel, weights and constant bias, factors folded in.
    pub conv: graph::Conv2d,
    /// Projection of the conditioning vector, with the constant bias and factors folded in, and the tensor that holds
    /// it; `None` if the schedules carry it as per-step biases.
    pub projection: Option<(graph::Linear, Option<TensorId>)>,
    /// Tensor that is added and its factor.
    pub residual: Option<(TensorId, f32)>,
    /// The ring.
    pub ring: TensorId,
    /// The patches of four pixels or the transformed tiles, if there is room for them.
    pub patches: Option<TensorId>,
    /// Rows of tiles that are computed at once; 0 without tiles.
    pub tile_rows: usize,
    /// Whether the file has the weights as tiles need them; before tiles are chosen, whether it may have them so.
    pub stored_tiles: bool,
    /// The convolution that this one does once more, with the same integers.
    pub repeats: Option<OpId>,
    /// How far from zero values of the ring are at most, as tiles of two rows ask for; else 0.
    pub ring_limit: u16,
    /// How the weights are streamed, if they are.
    pub window: Option<Window>,
    /// The result.
    pub output: TensorId,
}

/// How a convolution's weights pass through the arena.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The memory.
    pub tensor: TensorId,
    /// Blocks of eight output channels in a chunk.
    pub blocks: usize,
    /// Number of chunks.
    pub chunks: usize,
}

impl Operation for Conv2d {
    fn inputs(&self) -> Vec<TensorId> {
        let bias = self.projection.as_ref().and_then(|(_, id)| *id);
        let residual = self.residual.map(|(id, _)| id);
        self.sources.iter().copied().chain(self.norm).chain(residual).chain(bias).collect()
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        let window = self.window.map(|window| window.tensor);
        [Some(self.ring), self.patches, window].into_iter().flatten().collect()
    }

    fn macs(&self, tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        (tensors[self.output].shape.len() * self.taps()) as u64
    }
}

impl Conv2d {
    /// The shape of the result before a shuffle, which leaves it in the same memory.
    pub fn computed(&self, tensors: &TiSlice<TensorId, Tensor>) -> Shape {
        let shape = tensors[self.output].shape;
        if self.shuffle { Shape::new(shape.h, shape.w / 2, 2 * shape.c) } else { shape }
    }

    /// Weights of one output channel.
    pub fn taps(&self) -> usize {
        self.conv.kernel[0] * self.conv.kernel[1] * self.conv.inputs
    }
}

/// Attention over pixels, written over the queries.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Queries.
    pub query: TensorId,
    /// Keys, then values.
    pub key_value: TensorId,
    /// Number of heads.
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Learned keys and values.
    pub memory: graph::Memory,
    /// Scores of one row.
    pub scratch: TensorId,
    /// Context, in the place of the queries.
    pub output: TensorId,
}

impl Operation for Attention {
    fn inputs(&self) -> Vec<TensorId> {
        vec![self.query, self.key_value]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![self.scratch]
    }

    fn macs(&self, tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        let shape = tensors[self.query].shape;
        (2 * (self.memory.len + shape.pixels()) * shape.len()) as u64
    }
}

/// The activation of a normalized tensor, modulated and added to, where no convolution's gather can apply it.
#[derive(Clone, Debug)]
pub struct Activate {
    /// The input.
    pub source: TensorId,
    /// Its affine map.
    pub norm: TensorId,
    /// What follows the affine map.
    pub activation: graph::Activation,
    /// What modulates each channel.
    pub film: Option<Film>,
    /// Tensor that is added.
    pub residual: Option<TensorId>,
    /// The result.
    pub output: TensorId,
}

/// Factors and summands of each channel, or summands alone.
#[derive(Clone, Debug)]
pub struct Film {
    /// Whether there are factors, which come first.
    pub is_scaled: bool,
    /// Projection of the time embedding, biases included: schedules carry it among the per-step biases.
    pub linear: graph::Linear,
    /// Projection of the observation, without biases.
    pub observed: Option<TensorId>,
}

impl Operation for Activate {
    fn inputs(&self) -> Vec<TensorId> {
        let observed = self.film.as_ref().and_then(|film| film.observed);
        [Some(self.source), self.residual, Some(self.norm), observed].into_iter().flatten().collect()
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// The observation, normalized and activated.
#[derive(Clone, Debug)]
pub struct Observe {
    /// The observation.
    pub source: TensorId,
    /// A center and a gain of each element.
    pub normalization: Vec<[f64; 2]>,
    /// What projections read.
    pub output: TensorId,
}

impl Operation for Observe {
    fn inputs(&self) -> Vec<TensorId> {
        vec![self.source]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// A normalization over the channels of each pixel, and what follows it.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// The input.
    pub source: TensorId,
    /// What is subtracted, epsilon, factors and summands.
    pub norm: graph::LayerNorm,
    /// Projection of the conditioning vector to the factors and then the summands, with those of `norm` folded in: schedules
    /// carry it among the per-step biases. Without one `norm` has them.
    pub projection: Option<graph::Linear>,
    /// What follows the affine map, if anything does.
    pub activation: Option<graph::Activation>,
    /// Tensor that is added.
    pub residual: Option<TensorId>,
    /// The result.
    pub output: TensorId,
}

impl Operation for LayerNorm {
    fn inputs(&self) -> Vec<TensorId> {
        [Some(self.source), self.residual].into_iter().flatten().collect()
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// Linear attention over pixels, written over the queries.
#[derive(Clone, Debug)]
pub struct LinearAttention {
    /// Queries.
    pub query: TensorId,
    /// Keys, then values.
    pub key_value: TensorId,
    /// Number of heads.
    pub heads: usize,
    /// Factor of the result.
    pub gain: f32,
    /// Learned keys and values.
    pub memory: graph::Memory,
    /// Contexts, and the weights of a query.
    pub scratch: TensorId,
    /// Result, in the place of the queries.
    pub output: TensorId,
}

impl Operation for LinearAttention {
    fn inputs(&self) -> Vec<TensorId> {
        vec![self.query, self.key_value]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![self.scratch]
    }

    fn macs(&self, tensors: &TiSlice<TensorId, Tensor>) -> u64 {
        let shape = tensors[self.query].shape;
        ((2 * shape.pixels() + self.memory.len) * shape.c * (shape.c / self.heads)) as u64
    }
}

/// An elementwise operation of a classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// Which.
    pub pass: graph::Pass,
    /// The activation's input, or the logits.
    pub source: TensorId,
    /// The gradient that comes back.
    pub gradient: Option<TensorId>,
    /// The result.
    pub output: TensorId,
}

impl Operation for Classifier {
    fn inputs(&self) -> Vec<TensorId> {
        [Some(self.source), self.gradient].into_iter().flatten().collect()
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}

/// Cubic halving or doubling along the rows, whose ends are reflected.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Which.
    pub resampling: graph::Resampling,
    /// The input.
    pub source: TensorId,
    /// The result.
    pub output: TensorId,
}

impl Operation for Filter {
    fn inputs(&self) -> Vec<TensorId> {
        vec![self.source]
    }

    fn output(&self) -> TensorId {
        self.output
    }

    fn scratch(&self) -> Vec<TensorId> {
        vec![]
    }
}
