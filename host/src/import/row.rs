//! Layers along maps of one row, which 1-D U-Nets share.
//!
//! A transposed convolution, of kernel 4 and stride 2, is a convolution of kernel 3 whose two halves of channels are its two phases.

use super::ImportError;
use super::builder::Builder;
use super::config::refuse;
use crate::graph::{Activation, Conv2d, GroupNorm, Op, TensorId};

/// Most values that one group of a normalization has.
const MOST_NORMALIZED: usize = 1 << 17;

/// The keys of a residual block that is conditioned between its halves.
pub(super) struct Keys {
    /// Convolution and normalization of each half.
    pub(super) halves: [[String; 2]; 2],
    /// Projection of the conditioning vector.
    pub(super) embedding: String,
    /// What brings the input to as many channels as the block's result.
    pub(super) shortcut: String,
}

impl Builder<'_> {
    /// A convolution along the row, of some kernel, stride and padding.
    pub(super) fn row_conv(
        &mut self,
        key: &str,
        x: TensorId,
        outputs: usize,
        window: [usize; 3],
    ) -> Result<TensorId, ImportError> {
        let bias = self.checkpoint.tensor(&format!("{key}.bias"), &[outputs])?;
        self.row_conv_with(key, x, bias, window)
    }

    /// The same with the bias of each output channel.
    pub(super) fn row_conv_with(
        &mut self,
        key: &str,
        x: TensorId,
        bias: Vec<f32>,
        [kernel, stride, padding]: [usize; 3],
    ) -> Result<TensorId, ImportError> {
        let (inputs, outputs) = (self.graph.shape(x).c, bias.len());
        let weight = self.checkpoint.tensor(&format!("{key}.weight"), &[outputs, inputs, kernel])?;
        let weight =
            arrange([outputs, kernel, inputs], |[output, tap, input]| weight[(output * inputs + input) * kernel + tap]);
        let padding = [0, padding, 0, padding];
        let conv = Conv2d { kernel: [1, kernel], stride, padding, inputs, outputs, weight, bias };
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }

    /// A transposed convolution of kernel 4, stride 2 and padding 1. Column `2·x` is `w₃·x₋₁ + w₁·x`, column `2·x + 1` is
    /// `w₂·x + w₀·x₊₁`: each phase has one of three taps without weight, which costs less than an operation of its own.
    pub(super) fn row_transposed(&mut self, key: &str, x: TensorId) -> Result<TensorId, ImportError> {
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

    /// A copy that is an activation.
    pub(super) fn copy(&mut self, key: &str, x: TensorId) -> TensorId {
        let channels = self.graph.shape(x).c;
        let weight = arrange([channels, 1, channels], |[output, _, input]| f32::from(u8::from(output == input)));
        let bias = vec![0.0; channels];
        let (kernel, padding) = ([1, 1], [0; 4]);
        let copy = Conv2d { kernel, stride: 1, padding, inputs: channels, outputs: channels, weight, bias };
        self.graph.node(format!("{key} (copy)"), Op::Conv2d(copy), &[x])
    }

    /// What can be added to an activation, or resampled: an activation. The sample has a scale and a width of its own, and what is
    /// joined has no memory of its own.
    pub(super) fn settled(&mut self, key: &str, x: TensorId) -> TensorId {
        let is_joined = self.graph.nodes.iter().any(|node| node.output == x && matches!(node.op, Op::Concat));
        if x == self.graph.input || is_joined { self.copy(key, x) } else { x }
    }

    /// Normalization over groups of channels, and the activation behind it.
    pub(super) fn row_norm(
        &mut self,
        key: &str,
        x: TensorId,
        groups: usize,
        activation: Activation,
    ) -> Result<TensorId, ImportError> {
        let shape = self.graph.shape(x);
        if groups == 0 || !shape.c.is_multiple_of(groups) {
            return Err(refuse("n_groups", groups, format!("a divisor of the {} channels of {key}", shape.c)));
        }
        let values = shape.len() / groups;
        if values > MOST_NORMALIZED {
            let expected =
                format!("at most {MOST_NORMALIZED} values in a group of a normalization; {key} has {values}");
            return Err(refuse("sample_size", self.graph.shape(self.graph.input).w, expected));
        }
        let gamma = self.checkpoint.tensor(&format!("{key}.weight"), &[shape.c])?;
        let beta = self.checkpoint.tensor(&format!("{key}.bias"), &[shape.c])?;
        let x = self.graph.node(key, Op::GroupNorm(GroupNorm { groups, eps: self.eps, gamma, beta }), &[x]);
        Ok(self.graph.node(format!("{key} (activation)"), Op::Activation(activation), &[x]))
    }

    /// Two halves of a convolution of `kernel`, a normalization of `groups` and Mish, with `modulation` between them, and the input
    /// beside them.
    pub(super) fn row_residual(
        &mut self,
        keys: &Keys,
        x: TensorId,
        [outputs, kernel, groups]: [usize; 3],
        modulation: Op,
    ) -> Result<TensorId, ImportError> {
        let half = |builder: &mut Self, [conv, norm]: &[String; 2], x| {
            let x = builder.row_conv(conv, x, outputs, [kernel, 1, kernel / 2])?;
            builder.row_norm(norm, x, groups, Activation::Mish)
        };
        let hidden = half(self, &keys.halves[0], x)?;
        let hidden = self.graph.node(keys.embedding.as_str(), modulation, &[hidden]);
        let hidden = half(self, &keys.halves[1], hidden)?;
        let beside = match self.graph.shape(x).c == outputs {
            true => self.settled(&keys.shortcut, x),
            false => self.row_conv(&keys.shortcut, x, outputs, [1, 1, 0])?,
        };
        Ok(self.graph.node(format!("{} (sum)", keys.shortcut), Op::Add, &[hidden, beside]))
    }
}

/// A row-major array from its elements by index.
pub(super) fn arrange(shape: [usize; 3], of: impl Fn([usize; 3]) -> f32) -> Vec<f32> {
    let [a, b, c] = shape;
    (0..a * b * c).map(|at| of([at / (b * c), at / c % b, at % c])).collect()
}
