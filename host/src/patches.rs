//! Patches: room in the arena in which a convolution unfolds its input, four pixels at a time.
//!
//! They are worth 8 bytes a tap, and cut the instructions of a convolution to a third where the processor multiplies two
//! pairs at once: each weight is loaded once for four pixels. A convolution without them reads its ring as it is.

use typed_index_collections::{TiSlice, TiVec};
use waft::format::{Element, PATCH_GROUP, PATCH_PIXELS, WeightLayout};

use crate::graph::Shape;
use crate::network::{Network, Op, OpId, Role, TensorId};
use crate::plan::{Plan, live_bytes, plan};

/// Output columns from which patches are worth it: a row with fewer leaves most of them unused.
const FEWEST: usize = 3;

/// The share of the arena by which patches may enlarge it where no budget is given.
const GROWTH: u64 = 3;

/// The most bytes of an arena of `arena_bytes` with patches.
pub fn default_limit(arena_bytes: u64) -> u64 {
    arena_bytes + arena_bytes / GROWTH
}

/// The network with patches, which are its last tensors, for as many convolutions as an arena of at most `limit` bytes has
/// room for, and its plan; `elements` gets those of the new tensors. Weights of other layouts than rows need none.
pub fn with_patches(
    network: &Network,
    elements: &mut TiVec<TensorId, Element>,
    layouts: &TiSlice<OpId, WeightLayout>,
    limit: u64,
) -> (Network, Plan) {
    let live = live_bytes(network, elements);
    let needs = |id: OpId| shape(network, id).map_or(0, |shape| (shape.len() * Element::I32.bytes()) as u64);
    // The most that is live during the operation, with its patches: those that need most make way first.
    let mut chosen: Vec<(u64, OpId)> = network
        .convs()
        .filter(|&(id, conv)| layouts[id] == WeightLayout::Rows8 && network.tensors[conv.output].shape.w >= FEWEST)
        .map(|(id, _)| (live[usize::from(id)] + needs(id), id))
        .filter(|&(bytes, _)| bytes <= limit)
        .collect();
    chosen.sort_unstable();
    loop {
        let mut network = network.clone();
        for &(_, id) in &chosen {
            let Some(shape) = shape(&network, id) else { continue };
            let tensor = network.tensor(format!("{} (patches)", network.ops[id].0), shape, Role::Patches);
            if let Op::Conv2d(conv) = &mut network.ops[id].1 {
                conv.patches = Some(tensor);
            }
        }
        elements.truncate(network.tensors.len() - chosen.len());
        elements.resize(network.tensors.len(), Element::I32);
        let plan = plan(&network, elements);
        if plan.arena_bytes <= limit || chosen.pop().is_none() {
            return (network, plan);
        }
    }
}

/// Shape of an operation's patches; `None` if it is no convolution.
fn shape(network: &Network, id: OpId) -> Option<Shape> {
    match &network.ops[id].1 {
        Op::Conv2d(conv) => Some(Shape::new(1, conv.taps().div_ceil(PATCH_GROUP), 2 * PATCH_PIXELS)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::rewrite;
    use crate::rewrite::testing::{conv, graph};

    /// A network of two convolutions, and what it needs without patches.
    fn network() -> (Network, TiVec<TensorId, Element>, TiVec<OpId, WeightLayout>, u64) {
        let mut graph = graph(8, 3);
        let a = graph.node("a", conv(3, 16), &[graph.input]);
        graph.output = graph.node("b", conv(16, 3), &[a]);
        let network = rewrite(&graph, false).expect("folds");
        let elements: TiVec<TensorId, Element> = network.tensors.iter().map(|_| Element::I16).collect();
        let layouts = network.ops.iter().map(|_| WeightLayout::Rows8).collect();
        let arena = plan(&network, &elements).arena_bytes;
        (network, elements, layouts, arena)
    }

    fn patched(network: &Network) -> Vec<bool> {
        network.convs().map(|(_, conv)| conv.patches.is_some()).collect()
    }

    #[test]
    fn patches_take_the_room_that_there_is() {
        let (network, elements, layouts, arena) = network();
        for limit in [arena, arena + 300, arena + 2000] {
            let mut elements = elements.clone();
            let (patched_network, plan) = with_patches(&network, &mut elements, &layouts, limit);
            assert!(plan.arena_bytes <= limit);
            assert_eq!(elements.len(), patched_network.tensors.len());
        }
        let mut elements = elements;
        let (all, _) = with_patches(&network, &mut elements, &layouts, arena + 2000);
        assert_eq!(patched(&all), [true, true]);
        // 3·9 taps are seven groups of four, for four pixels of 16 bits: 224 bytes.
        let first = all.convs().next().and_then(|(_, conv)| conv.patches).expect("patches");
        assert_eq!(all.tensors[first].shape.len() * 4, 224);
        let (none, plan) = with_patches(&network, &mut elements, &layouts, 0);
        assert_eq!((patched(&none), plan.arena_bytes), (vec![false, false], arena));
    }

    #[test]
    fn weights_of_four_bits_need_none() {
        let (network, mut elements, mut layouts, arena) = network();
        layouts[OpId::from(1usize)] = WeightLayout::Groups4;
        let (mixed, _) = with_patches(&network, &mut elements, &layouts, 2 * arena);
        assert_eq!(patched(&mixed), [true, false]);
    }
}
