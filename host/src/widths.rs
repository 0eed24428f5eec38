//! Decisions about the bits of the `i8` precision, as values: which activations get 16, which weights four.

use typed_index_collections::TiVec;
use waft::format::{Element, WeightLayout};

use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId};
use crate::recipe::Shortcuts;

/// Which tensors get 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths {
    /// By tensor; meaningful for streams.
    pub wide_stream: TiVec<TensorId, bool>,
    /// By operation; convolutions that read 16-bit activations.
    pub wide_ring: TiVec<OpId, bool>,
}

impl Widths {
    /// Widths for streams as given. The rings that read the sample, a 16-bit stream as it is, or two raw inputs that share
    /// no scale, and the ring of the last convolution, have to be 16 bits wide; others may.
    pub fn new(network: &Network, wide_stream: TiVec<TensorId, bool>, shortcuts: Shortcuts) -> Self {
        let reads_wide = |conv: &Conv2d| {
            let is_wide = |id: TensorId| match network.tensors[id].role {
                Role::Features => false,
                Role::Backward | Role::Loss => true,
                _ => id == network.sample || wide_stream[id],
            };
            conv.norm.is_none()
                && !shares_scale(conv, shortcuts)
                && (conv.sources.len() > 1 || conv.sources.iter().any(|&id| is_wide(id)))
        };
        let wide_ring = network
            .ops
            .iter()
            .map(|(_, op)| match op {
                Op::Conv2d(conv) => reads_wide(conv) || network.is_result(conv.output),
                _ => false,
            })
            .collect();
        Self { wide_stream, wide_ring }
    }

    /// Element type of every tensor.
    pub fn elements(&self, network: &Network) -> TiVec<TensorId, Element> {
        let mut elements: TiVec<TensorId, Element> = network
            .tensors
            .iter_enumerated()
            .map(|(id, tensor)| match tensor.role {
                Role::Stream if self.wide_stream[id] => Element::I16,
                Role::Stream | Role::Attention | Role::KeyValue | Role::Ring | Role::Features => Element::I8,
                Role::Backward | Role::Loss => Element::I16,
                Role::Conditioning | Role::Observed | Role::Contexts => Element::I16,
                _ => Element::I32,
            })
            .collect();
        for (id, conv) in network.convs() {
            if self.wide_ring[id] {
                elements[conv.ring] = Element::I16;
            }
        }
        elements
    }
}

/// Whether a convolution reads two raw inputs in 8 bits of one scale.
pub fn shares_scale(conv: &Conv2d, shortcuts: Shortcuts) -> bool {
    shortcuts == Shortcuts::Joint && conv.norm.is_none() && conv.sources.len() > 1
}

/// Width of weights in the `i8` precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightWidth {
    /// Eight bits.
    #[default]
    Eight,
    /// Four bits, but for the first and the last convolution.
    Four,
}

impl WeightWidth {
    /// Bits of a weight.
    pub fn bits(self) -> u32 {
        match self {
            WeightWidth::Eight => 8,
            WeightWidth::Four => 4,
        }
    }

    /// How the device has them.
    pub fn layout(self) -> WeightLayout {
        match self {
            WeightWidth::Eight => WeightLayout::Rows8,
            WeightWidth::Four => WeightLayout::Groups4,
        }
    }
}

/// Width of the weights of each operation; meaningful for convolutions.
pub type WeightWidths = TiVec<OpId, WeightWidth>;

/// The same width for all convolutions but the first and the last, which are small and which everything goes through: these
/// keep eight bits.
pub fn weight_widths(network: &Network, width: WeightWidth) -> WeightWidths {
    let of = |op: &Op| match op {
        Op::Conv2d(conv) if !conv.sources.contains(&network.sample) && !network.is_result(conv.output) => width,
        _ => WeightWidth::Eight,
    };
    network.ops.iter().map(|(_, op)| of(op)).collect()
}
