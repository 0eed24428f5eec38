//! Streaming: cutting the weights of each convolution into chunks that pass through a window of the arena.
//!
//! Memory comes first. A network needs at least its live tensors and one block of eight output channels of weights at
//! every convolution; the largest such sum is the budget of all of them. Within it, and within what the caller grants, a
//! window takes all weights of its convolution, or else two chunks as large as possible, so that one is read while the
//! other is in use, or else one.

use typed_index_collections::{TiSlice, TiVec};
use waft::format::{CHANNEL_BLOCK, Element, WeightLayout};

use crate::graph::Shape;
use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId, Window};
use crate::plan::{ALIGN, live_bytes};

/// A window that is larger than allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowTooSmall {
    /// The convolution that needs it.
    pub operation: String,
    /// Bytes that it needs.
    pub needed: u64,
}

/// What a convolution's weights need of a window.
struct Need {
    /// Bytes of a block of eight output channels.
    block: u64,
    /// Bytes of all blocks.
    all: u64,
    /// Number of blocks.
    blocks: u64,
}

impl Need {
    fn of(conv: &Conv2d, layout: WeightLayout) -> Self {
        let (outputs, taps) = (conv.conv.outputs, conv.taps());
        Self {
            block: layout.bytes(CHANNEL_BLOCK as u64, taps as u64),
            all: layout.bytes(outputs as u64, taps as u64).next_multiple_of(ALIGN),
            blocks: outputs.div_ceil(CHANNEL_BLOCK) as u64,
        }
    }

    /// The fewest bytes.
    fn least(&self) -> u64 {
        self.block.next_multiple_of(ALIGN).min(self.all)
    }

    /// Blocks in a chunk, and bytes of the window, that make the best of `room`.
    fn within(&self, room: u64) -> (u64, u64) {
        if self.all <= room {
            return (self.blocks, self.all);
        }
        let bytes = |chunk: u64, count: u64| count * (chunk * self.block).next_multiple_of(ALIGN);
        // The most blocks of which `count` chunks fit.
        let most = |count: u64| (1..=self.blocks).take_while(|&chunk| bytes(chunk, count) <= room).last();
        let (chunk, count) = most(2).map_or_else(|| (most(1).unwrap_or(1), 1), |chunk| (chunk, 2));
        (chunk, bytes(chunk, count))
    }
}

/// The network with windows of at most `limit` bytes, which are its last tensors. `elements` are those of the network's
/// tensors, `layouts` those of the operations' weights.
///
/// # Errors
/// If the window of some convolution has to be larger.
pub fn with_windows(
    network: &Network,
    elements: &TiSlice<TensorId, Element>,
    layouts: &TiSlice<OpId, WeightLayout>,
    limit: u64,
) -> Result<Network, WindowTooSmall> {
    let mut network = network.clone();
    let needs: TiVec<OpId, Option<Need>> = network
        .ops
        .iter()
        .zip(layouts)
        .map(|((_, op), &layout)| match op {
            Op::Conv2d(conv) => Some(Need::of(conv, layout)),
            _ => None,
        })
        .collect();
    let least = |need: &Option<Need>| need.as_ref().map_or(0, Need::least);
    if let Some((id, need)) = needs.iter_enumerated().find(|(_, need)| least(need) > limit) {
        return Err(WindowTooSmall { operation: network.ops[id].0.clone(), needed: least(need) });
    }

    // Several chunks keep a result from overwriting its source: assume that of all while the budget is made.
    for (_, op) in &mut network.ops {
        if let Op::Conv2d(conv) = op {
            conv.window = Some(Window { tensor: conv.ring, blocks: 1, chunks: usize::MAX });
        }
    }
    let live = live_bytes(&network, elements);
    let budget = needs.iter().zip(&live).map(|(need, live)| live + least(need)).max().unwrap_or(0);
    for ((id, need), live) in needs.iter_enumerated().zip(live) {
        let Some(need) = need else { continue };
        let (chunk, bytes) = need.within((budget - live).min(limit));
        // Sixteen bytes a pixel: no dimension of the format's tensors is too small for a window.
        let shape = Shape::new(1, bytes.div_ceil(ALIGN) as usize, ALIGN as usize);
        let tensor = network.tensor(format!("{} (window)", network.ops[id].0), shape, Role::Window);
        if let Op::Conv2d(conv) = &mut network.ops[id].1 {
            conv.window = Some(Window { tensor, blocks: chunk as usize, chunks: need.blocks.div_ceil(chunk) as usize });
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;
    use crate::network::Tensor;
    use crate::schedule::MAX_HISTORY;

    #[test]
    fn a_window_makes_the_best_of_its_room() {
        // Five blocks of 100 bytes, of which the last is shorter.
        let need = Need { block: 100, all: 464, blocks: 5 };
        assert_eq!(need.within(464), (5, 464), "all weights at once");
        assert_eq!(need.within(463), (2, 2 * 208), "two chunks that take turns");
        assert_eq!(need.within(2 * 112), (1, 2 * 112));
        assert_eq!(need.within(2 * 112 - 1), (2, 208), "one chunk at a time");
        assert_eq!(need.within(112), (1, 112));
        assert_eq!(need.least(), 112);
        assert_eq!(Need { block: 100, all: 64, blocks: 1 }.least(), 64, "less than a block is all there is");
    }

    /// Two convolutions, each from a map of 512 bytes or to it, and a ring of 16: weights of 40 outputs by 16 taps beside little
    /// memory, then of eight by two beside much.
    fn network() -> (Network, TiVec<TensorId, Element>) {
        let mut tensors: TiVec<TensorId, Tensor> = TiVec::new();
        let mut add = |[h, w, c]: [usize; 3], role| {
            tensors.push_and_get_key(Tensor { name: String::new(), shape: Shape::new(h, w, c), role })
        };
        let [sample, map, prediction] =
            [add([4, 4, 1], Role::Sample), add([8, 8, 8], Role::Features), add([8, 8, 8], Role::Prediction)];
        let rings = [add([1, 1, 16], Role::Ring), add([1, 1, 16], Role::Ring)];
        let conv = |source, output, ring, [outputs, taps]: [usize; 2]| {
            let (weight, bias, padding) = (vec![], vec![], [0; 4]);
            let conv = graph::Conv2d { kernel: [taps, 1], stride: 1, padding, inputs: 1, outputs, weight, bias };
            Op::Conv2d(Box::new(Conv2d {
                sources: vec![source],
                norm: None,
                activation: None,
                input_affine: (1.0, 0.0),
                upsample: false,
                shuffle: false,
                conv,
                projection: None,
                residual: None,
                ring,
                patches: None,
                tile_rows: 0,
                stored_tiles: false,
                repeats: None,
                ring_limit: 0,
                window: None,
                output,
            }))
        };
        let elements = tensors.iter().map(|_| Element::I8).collect();
        let network = Network {
            tensors,
            ops: [
                ("wide".into(), conv(sample, map, rings[0], [40, 16])),
                ("narrow".into(), conv(map, prediction, rings[1], [8, 2])),
            ]
            .into_iter()
            .collect(),
            sample,
            condition: None,
            observation: None,
            once: 0,
            prediction,
            variance: None,
            gradient: None,
            unconditional: None,
            history: [None; MAX_HISTORY],
            conditioning: 0,
        };
        (network, elements)
    }

    /// Memory comes first: 544 bytes are live at the first convolution, 1,056 at the second, which keeps both maps since its
    /// weights might come in chunks. So 1,072 are needed whatever the windows, and the first one's may have 528.
    #[test]
    fn windows_take_what_other_operations_leave() {
        let (network, elements) = network();
        let layouts: TiVec<OpId, WeightLayout> = [WeightLayout::Rows8; 2].into_iter().collect();
        let windows = |limit| {
            let network = with_windows(&network, &elements, &layouts, limit)?;
            let window = |(_, conv): (OpId, &Conv2d)| {
                let window = conv.window.expect("streamed");
                let Shape { h, w, c } = network.tensors[window.tensor].shape;
                [h * w * c, window.blocks, window.chunks]
            };
            Ok(network.convs().map(window).collect::<Vec<_>>())
        };
        assert_eq!(windows(1 << 20), Ok(vec![[512, 2, 3], [16, 1, 1]]), "two chunks of two blocks");
        assert_eq!(windows(300), Ok(vec![[256, 1, 5], [16, 1, 1]]), "two chunks of one");
        assert_eq!(windows(128), Ok(vec![[128, 1, 5], [16, 1, 1]]), "one at a time");
        assert_eq!(windows(127), Err(WindowTooSmall { operation: "wide".into(), needed: 128 }));
    }
}
