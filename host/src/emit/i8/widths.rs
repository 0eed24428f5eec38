//! Which tensors get 16 bits.

use waft::format::Element;

use super::Shortcuts;
use crate::lower::{Conv, Network, Op, Role};

/// Which tensors get 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths {
    /// By tensor; meaningful for streams.
    pub wide_stream: Vec<bool>,
    /// By operation; convolutions that read 16-bit activations.
    pub wide_ring: Vec<bool>,
}

impl Widths {
    /// Widths for streams as given. The rings that read the sample, a 16-bit stream as it is, or two raw inputs that share
    /// no scale, and the ring of the last convolution, have to be 16 bits wide; others may.
    pub fn new(network: &Network, wide_stream: Vec<bool>, shortcuts: Shortcuts) -> Self {
        let wide_ring = network
            .ops
            .iter()
            .map(|(_, op)| match op {
                Op::Conv(conv) => {
                    let raw_wide = conv.norm.is_none()
                        && !shares_scale(conv, shortcuts)
                        && (conv.sources.len() > 1
                            || conv.sources.iter().any(|&id| id == network.sample || wide_stream[id]));
                    raw_wide || conv.output == network.prediction
                }
                _ => false,
            })
            .collect();
        Self { wide_stream, wide_ring }
    }

    /// Element type of every tensor.
    pub fn elements(&self, network: &Network) -> Vec<Element> {
        let mut elements: Vec<Element> = network
            .tensors
            .iter()
            .enumerate()
            .map(|(id, tensor)| match tensor.role {
                Role::Stream if self.wide_stream[id] => Element::I16,
                Role::Stream | Role::Attention | Role::Ring => Element::I8,
                Role::Conditioning => Element::I16,
                _ => Element::I32,
            })
            .collect();
        for ((_, op), &wide) in network.ops.iter().zip(&self.wide_ring) {
            if let (Op::Conv(conv), true) = (op, wide) {
                elements[conv.ring] = Element::I16;
            }
        }
        elements
    }
}

/// Whether a convolution reads two raw inputs in 8 bits of one scale.
pub fn shares_scale(conv: &Conv, shortcuts: Shortcuts) -> bool {
    shortcuts == Shortcuts::Joint && conv.norm.is_none() && conv.sources.len() > 1
}
