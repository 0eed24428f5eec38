//! What the tensors of a plan are for: for reports, not for runs.

use crate::format::Op;
use crate::model::Model;

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The sample, from step to step.
    Sample,
    /// What the network reads beside the sample.
    Condition,
    /// What the network makes of it, with and without the class; a learned variance; a classifier's gradient.
    Prediction,
    /// Clean samples of earlier steps.
    History,
    /// Results of convolutions and attention.
    Activation,
    /// Padded, transformed rows of a convolution's input.
    Ring,
    /// The same, unfolded for four pixels.
    Patches,
    /// Streamed weights.
    Window,
    /// Factors and summands of a normalization.
    Map,
    /// Scores of attention.
    Scores,
    /// The conditioning vector and its projections.
    Conditioning,
    /// Nothing.
    Unused,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Sample,
        Self::Condition,
        Self::Prediction,
        Self::History,
        Self::Activation,
        Self::Ring,
        Self::Patches,
        Self::Window,
        Self::Map,
        Self::Scores,
        Self::Conditioning,
        Self::Unused,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Condition => "condition",
            Self::Prediction => "prediction",
            Self::History => "history",
            Self::Activation => "activation",
            Self::Ring => "ring",
            Self::Patches => "patches",
            Self::Window => "window",
            Self::Map => "map",
            Self::Scores => "scores",
            Self::Conditioning => "conditioning",
            Self::Unused => "unused",
        }
    }

    /// Of a tensor of an operation.
    fn of_operand(op: &Op, id: u16) -> Option<Self> {
        let output = match op {
            Op::Conv2d(op) if op.scratch == id => return Some(Self::Ring),
            Op::Conv2d(op) if op.patches == id => return Some(Self::Patches),
            Op::Conv2d(op) if op.window == id => return Some(Self::Window),
            Op::Attention(op) if op.scratch == id => return Some(Self::Scores),
            Op::LinearAttention(op) if op.scratch == id => return Some(Self::Scores),
            Op::LinearAttention(_) => Self::Activation,
            Op::Conv2d(_)
            | Op::Attention(_)
            | Op::Activate(_)
            | Op::LayerNorm(_)
            | Op::Classifier(_)
            | Op::Filter(_) => Self::Activation,
            Op::GroupNorm(_) => Self::Map,
            Op::Embed(_) | Op::Linear(_) | Op::Observe(_) => Self::Conditioning,
        };
        (op.output() == id).then_some(output)
    }
}

impl Model<'_> {
    /// What a tensor is for.
    pub fn role(&self, id: u16) -> Role {
        let header = self.header();
        if id >= self.tensors() {
            Role::Unused
        } else if id == header.sample {
            Role::Sample
        } else if self.condition_shape().is_some() && id == header.condition
            || self.observation_len().is_some() && id == header.observation
        {
            Role::Condition
        } else if id == header.prediction
            || id == header.unconditional
            || header.variance != 0 && id == header.variance
            || header.gradient != 0 && id == header.gradient
        {
            Role::Prediction
        } else if header.history.contains(&id) {
            Role::History
        } else {
            let operations = (0..self.ops()).filter_map(|index| self.op(index));
            operations.filter_map(|op| Role::of_operand(&op, id)).next().unwrap_or(Role::Unused)
        }
    }
}
