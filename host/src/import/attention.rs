//! diffusers' `Attention` as U-Nets use it: over the pixels of one map.

use super::ImportError;
use super::builder::{Builder, linear};
use super::config::refuse;
use crate::graph::{Conv2d, Linear, Memory, Op, TensorId};

/// Heads of an attention.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heads {
    /// As many as fit, of this many channels each.
    Width(usize),
    /// This many.
    Count(usize),
}

/// What an attention's tensors do not say.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// Where their width does not divide the map's, the heads that fit are fewer channels.
    pub(super) heads: Heads,
    /// Groups of the normalization before it, if there is one.
    pub(super) groups: Option<usize>,
    /// The result is divided by this.
    pub(super) factor: f64,
}

impl Builder<'_> {
    /// Normalization, self-attention and projection, added to the input.
    pub(super) fn attention(&mut self, name: &str, x: TensorId, attention: Attention) -> Result<TensorId, ImportError> {
        let Attention { heads, groups, factor } = attention;
        let width = self.graph.shape(x).c;
        let (heads, head) = match heads {
            Heads::Width(head) => (width / head, head),
            Heads::Count(heads) => (heads, width / heads),
        };
        if heads == 0 {
            return Err(refuse("attention_head_dim", head, format!("at most the {width} channels of {name}")));
        }
        let input = match groups {
            Some(groups) => self.norm(&format!("{name}.group_norm"), x, groups)?,
            None => x,
        };
        let mut projections = [input; 3];
        for (projection, (new, old)) in
            projections.iter_mut().zip([("to_q", "query"), ("to_k", "key"), ("to_v", "value")])
        {
            *projection = self.project(name, [new, old], input, heads * head)?;
        }
        let scale = (head as f32).sqrt().recip();
        let op = Op::Attention { heads, scale, memory: Memory::default() };
        let context = self.graph.node(format!("{name} (context)"), op, &projections);
        let out = self.project(name, ["to_out.0", "proj_attn"], context, width)?;
        Ok(self.residual(name, [x, out], factor))
    }

    /// A linear layer over pixels, by its key or the key that old versions of diffusers used.
    fn project(&mut self, name: &str, keys: [&str; 2], x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        let inputs = self.graph.shape(x).c;
        let [new, old] = keys.map(|key| format!("{name}.{key}"));
        let is_old = !self.checkpoint.has(&format!("{new}.weight")) && self.checkpoint.has(&format!("{old}.weight"));
        let key = if is_old { old } else { new };
        let Linear { weight, bias, .. } = linear(self.checkpoint, &key, inputs, outputs)?;
        let conv = Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs, outputs, weight, bias };
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }
}
