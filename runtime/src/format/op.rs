//! Operations: the record of one of the kinds.

use super::record::{bytes_at, codes};
use super::{
    Activate, Affine, Attention, Classifier, Conv2d, Embed, Filter, GroupNorm, LayerNorm, Linear, LinearAttention,
    NONE, Observe,
};

codes! {
    /// Kind of an operation: the first byte of its record.
    pub enum OpKind {
        /// [`Conv2d`]
        Conv2d = 0,
        /// [`GroupNorm`]
        GroupNorm = 1,
        /// [`Attention`]
        Attention = 2,
        /// [`Embed`]
        Embed = 3,
        /// [`Linear`]
        Linear = 4,
        /// [`Activate`]
        Activate = 5,
        /// [`Observe`]
        Observe = 6,
        /// [`LayerNorm`]
        LayerNorm = 7,
        /// [`LinearAttention`]
        LinearAttention = 8,
        /// [`Classifier`]
        Classifier = 9,
        /// [`Filter`]
        Filter = 10,
    }
}

/// Bytes of an operation's record, whatever its kind.
pub const OP_BYTES: usize = size_of::<Conv2d>();

const _: () = assert!(size_of::<GroupNorm>() == OP_BYTES && size_of::<Attention>() == OP_BYTES);
const _: () = assert!(size_of::<Embed>() == OP_BYTES && size_of::<Linear>() == OP_BYTES);
const _: () = assert!(size_of::<Activate>() == OP_BYTES && size_of::<Observe>() == OP_BYTES);
const _: () = assert!(size_of::<LayerNorm>() == OP_BYTES && size_of::<LinearAttention>() == OP_BYTES);
const _: () = assert!(size_of::<Classifier>() == OP_BYTES && size_of::<Filter>() == OP_BYTES);

/// One operation of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// See [`Conv2d`].
    Conv2d(Conv2d),
    /// See [`GroupNorm`].
    GroupNorm(GroupNorm),
    /// See [`Attention`].
    Attention(Attention),
    /// See [`Embed`].
    Embed(Embed),
    /// See [`Linear`].
    Linear(Linear),
    /// See [`Activate`].
    Activate(Activate),
    /// See [`Observe`].
    Observe(Observe),
    /// See [`LayerNorm`].
    LayerNorm(LayerNorm),
    /// See [`LinearAttention`].
    LinearAttention(LinearAttention),
    /// See [`Classifier`].
    Classifier(Classifier),
    /// See [`Filter`].
    Filter(Filter),
}

impl Op {
    /// The operation at byte `at` of a file; `None` if there is no such kind.
    pub const fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let [kind] = bytes_at(bytes, at);
        let Some(kind) = OpKind::from_code(kind) else { return None };
        Some(match kind {
            OpKind::Conv2d => Op::Conv2d(Conv2d::read(bytes, at)),
            OpKind::GroupNorm => Op::GroupNorm(GroupNorm::read(bytes, at)),
            OpKind::Attention => Op::Attention(Attention::read(bytes, at)),
            OpKind::Embed => Op::Embed(Embed::read(bytes, at)),
            OpKind::Linear => Op::Linear(Linear::read(bytes, at)),
            OpKind::Activate => Op::Activate(Activate::read(bytes, at)),
            OpKind::Observe => Op::Observe(Observe::read(bytes, at)),
            OpKind::LayerNorm => Op::LayerNorm(LayerNorm::read(bytes, at)),
            OpKind::LinearAttention => Op::LinearAttention(LinearAttention::read(bytes, at)),
            OpKind::Classifier => Op::Classifier(Classifier::read(bytes, at)),
            OpKind::Filter => Op::Filter(Filter::read(bytes, at)),
        })
    }

    /// Its record.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Op::Conv2d(op) => bytemuck::bytes_of(op),
            Op::GroupNorm(op) => bytemuck::bytes_of(op),
            Op::Attention(op) => bytemuck::bytes_of(op),
            Op::Embed(op) => bytemuck::bytes_of(op),
            Op::Linear(op) => bytemuck::bytes_of(op),
            Op::Activate(op) => bytemuck::bytes_of(op),
            Op::Observe(op) => bytemuck::bytes_of(op),
            Op::LayerNorm(op) => bytemuck::bytes_of(op),
            Op::LinearAttention(op) => bytemuck::bytes_of(op),
            Op::Classifier(op) => bytemuck::bytes_of(op),
            Op::Filter(op) => bytemuck::bytes_of(op),
        }
    }

    /// Its name in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Conv2d(_) => "conv2d",
            Op::GroupNorm(_) => "group_norm",
            Op::Attention(_) => "attention",
            Op::Embed(_) => "embed",
            Op::Linear(_) => "linear",
            Op::Activate(_) => "activate",
            Op::Observe(_) => "observe",
            Op::LayerNorm(_) => "layer_norm",
            Op::LinearAttention(_) => "linear_attention",
            Op::Classifier(_) => "classifier",
            Op::Filter(_) => "filter",
        }
    }

    /// The tensor it writes as its result.
    pub const fn output(&self) -> u16 {
        match self {
            Op::Conv2d(op) => op.output,
            Op::GroupNorm(op) => op.output,
            Op::Attention(op) => op.output,
            Op::Embed(op) => op.output,
            Op::Linear(op) => op.output,
            Op::Activate(op) => op.output,
            Op::Observe(op) => op.output,
            Op::LayerNorm(op) => op.output,
            Op::LinearAttention(op) => op.output,
            Op::Classifier(op) => op.output,
            Op::Filter(op) => op.output,
        }
    }

    /// The tensors it reads and its scratch; [`NONE`] where there is none.
    pub const fn operands(&self) -> [u16; 8] {
        match self {
            Op::Conv2d(op) => {
                let scratch = [op.scratch, op.patches, op.window];
                [op.sources[0], op.sources[1], op.residual, op.norm, op.bias_tensor, scratch[0], scratch[1], scratch[2]]
            }
            Op::GroupNorm(op) => {
                let affine = if matches!(op.affine(), Affine::Tensor) { op.affine_tensor } else { NONE };
                [op.sources[0], op.sources[1], affine, NONE, NONE, NONE, NONE, NONE]
            }
            Op::Attention(op) => [op.query, op.key_value, op.scratch, NONE, NONE, NONE, NONE, NONE],
            Op::Embed(_) => [NONE; 8],
            Op::Linear(op) => [op.source, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
            Op::Activate(op) => [op.source, op.residual, op.norm, op.observed, NONE, NONE, NONE, NONE],
            Op::Observe(op) => [op.source, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
            Op::LayerNorm(op) => [op.source, op.residual, NONE, NONE, NONE, NONE, NONE, NONE],
            Op::LinearAttention(op) => [op.query, op.key_value, op.scratch, NONE, NONE, NONE, NONE, NONE],
            Op::Classifier(op) => [op.source, op.gradient, NONE, NONE, NONE, NONE, NONE, NONE],
            Op::Filter(op) => [op.source, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
        }
    }

    /// Its scratch: written before it is read, within the operation; [`NONE`] where there is none.
    pub(crate) const fn scratch(&self) -> [u16; 3] {
        match self {
            Op::Conv2d(op) => [op.scratch, op.patches, op.window],
            Op::Attention(op) => [op.scratch, NONE, NONE],
            Op::LinearAttention(op) => [op.scratch, NONE, NONE],
            _ => [NONE; 3],
        }
    }

    /// Whether an operand is scratch.
    pub(crate) const fn is_scratch(&self, id: u16) -> bool {
        let [first, second, third] = self.scratch();
        id != NONE && (id == first || id == second || id == third)
    }
}
