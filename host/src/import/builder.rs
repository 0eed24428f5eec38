//! What every block is made of: layers by the keys of their tensors.

use super::ImportError;
use super::config::refuse;
use crate::checkpoint::Checkpoint;
use crate::graph::{Conv2d, Graph, GroupNorm, Linear, Op, TensorId};

/// A graph in the making, with what all of its blocks share.
pub(super) struct Builder<'c> {
    pub(super) checkpoint: &'c Checkpoint,
    pub(super) graph: Graph,
    /// Length of the conditioning vector.
    pub(super) embedding: usize,
    /// How residual blocks are conditioned.
    pub(super) conditioning: Conditioning,
    /// Epsilon of normalizations.
    pub(super) eps: f64,
}

/// What the projection of the conditioning vector does in a residual block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditioning {
    /// It is added before the second normalization.
    Add,
    /// It scales and shifts behind the second normalization.
    ScaleShift,
}

/// How a convolution moves over its input.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Top, left, bottom, right.
    pub(super) padding: [usize; 4],
}

impl Window {
    /// 1×1.
    pub(super) const POINT: Self = Self { kernel: 1, stride: 1, padding: [0; 4] };
    /// 3×3 that keeps the size.
    pub(super) const SAME: Self = Self { kernel: 3, stride: 1, padding: [1; 4] };
}

/// Groups of a normalization of so many channels where they are not configured: of four channels, and at most 32.
pub(super) fn quarter(channels: usize) -> usize {
    (channels / 4).min(32)
}

/// `key.weight` and `key.bias` of a dense layer.
pub(super) fn linear(checkpoint: &Checkpoint, key: &str, inputs: usize, outputs: usize) -> Result<Linear, ImportError> {
    Ok(Linear {
        inputs,
        outputs,
        weight: checkpoint.tensor(&format!("{key}.weight"), &[outputs, inputs])?,
        bias: checkpoint.tensor(&format!("{key}.bias"), &[outputs])?,
    })
}

impl Builder<'_> {
    /// The convolution that a key holds.
    pub(super) fn read_conv(
        &self,
        key: &str,
        inputs: usize,
        outputs: usize,
        window: Window,
    ) -> Result<Conv2d, ImportError> {
        let Window { kernel, stride, padding } = window;
        let weight = self.checkpoint.tensor(&format!("{key}.weight"), &[outputs, inputs, kernel, kernel])?;
        let bias = self.checkpoint.tensor(&format!("{key}.bias"), &[outputs])?;
        let weight = to_ohwi(&weight, outputs, inputs, kernel);
        Ok(Conv2d { kernel: [kernel; 2], stride, padding, inputs, outputs, weight, bias })
    }

    pub(super) fn conv(
        &mut self,
        key: &str,
        x: TensorId,
        outputs: usize,
        window: Window,
    ) -> Result<TensorId, ImportError> {
        let conv = self.read_conv(key, self.graph.shape(x).c, outputs, window)?;
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }

    pub(super) fn norm(&mut self, key: &str, x: TensorId, groups: usize) -> Result<TensorId, ImportError> {
        let channels = self.graph.shape(x).c;
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(refuse("norm_num_groups", groups, format!("a divisor of the {channels} channels of {key}")));
        }
        let gamma = self.checkpoint.tensor(&format!("{key}.weight"), &[channels])?;
        let beta = self.checkpoint.tensor(&format!("{key}.bias"), &[channels])?;
        Ok(self.graph.node(key, Op::GroupNorm(GroupNorm { groups, eps: self.eps, gamma, beta }), &[x]))
    }

    /// The activation of residual blocks.
    pub(super) fn activation(&mut self, name: String, x: TensorId) -> TensorId {
        self.graph.node(name, Op::Activation(self.graph.activation), &[x])
    }

    /// `(x + y) / factor`: the end of a residual block.
    pub(super) fn residual(&mut self, name: &str, [x, y]: [TensorId; 2], factor: f64) -> TensorId {
        let sum = self.graph.node(format!("{name} (sum)"), Op::Add, &[x, y]);
        if factor == 1.0 {
            return sum;
        }
        let gain = (1.0 / factor) as f32;
        self.graph.node(format!("{name} (scale)"), Op::Affine { gain, offset: 0.0 }, &[sum])
    }
}

/// PyTorch's (output, input, row, column) as (output, row, column, input).
fn to_ohwi(weight: &[f32], outputs: usize, inputs: usize, kernel: usize) -> Vec<f32> {
    let area = kernel * kernel;
    let mut permuted = Vec::with_capacity(weight.len());
    for output in 0..outputs {
        for tap in 0..area {
            permuted.extend((0..inputs).map(|input| weight[(output * inputs + input) * area + tap]));
        }
    }
    permuted
}
