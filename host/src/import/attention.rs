//! diffusers' `Attention` as U-Nets use it: over the pixels of one map.

use super::ImportError;
use super::builder::{Builder, linear};
use super::config::refuse;
use crate::graph::{Conv2d, Linear, Op, TensorId};

/// What an attention's tensors do not say.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// Channels of a head; `None`: one head as wide as the map.
    pub(super) head: Option<usize>,
    /// Groups of the normalization before it.
    pub(super) groups: usize,
    /// The result is divided by this.
    pub(super) factor: f64,
}

impl Builder<'_> {
    /// Normalization, self-attention and projection, added to the input.
    pub(super) fn attention(&mut self, name: &str, x: TensorId, attention: Attention) -> Result<TensorId, ImportError> {
        let Attention { head, groups, factor } = attention;
        let width = self.graph.shape(x).c;
        let head = head.unwrap_or(width);
        if !width.is_multiple_of(head) {
            return Err(refuse("attention_head_dim", head, format!("a divisor of {width} channels")));
        }
        let normalized = self.norm(&format!("{name}.group_norm"), x, groups)?;
        let mut projections = [normalized; 3];
        for (projection, (new, old)) in
            projections.iter_mut().zip([("to_q", "query"), ("to_k", "key"), ("to_v", "value")])
        {
            *projection = self.project(name, [new, old], normalized)?;
        }
        let scale = (head as f32).sqrt().recip();
        let op = Op::Attention { heads: width / head, scale };
        let context = self.graph.node(format!("{name} (context)"), op, &projections);
        let out = self.project(name, ["to_out.0", "proj_attn"], context)?;
        Ok(self.residual(name, [x, out], factor))
    }

    /// A linear layer over pixels, by its key or the key that old versions of diffusers used.
    fn project(&mut self, name: &str, keys: [&str; 2], x: TensorId) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let [new, old] = keys.map(|key| format!("{name}.{key}"));
        let is_old = !self.checkpoint.has(&format!("{new}.weight")) && self.checkpoint.has(&format!("{old}.weight"));
        let key = if is_old { old } else { new };
        let Linear { weight, bias, .. } = linear(self.checkpoint, &key, width, width)?;
        let conv = Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs: width, outputs: width, weight, bias };
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }
}
