//! What the sample's first convolution gives is computed a second time, just before a skip over the whole network reads it,
//! where keeping it takes more memory: few channels go in, so that it costs little.

use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId};
use crate::plan::live_bytes;
use crate::recipe::Shortcuts;
use crate::widths::Widths;

/// The network, or the same with convolutions that run a second time, if that has less memory live at once.
pub fn again(network: Network) -> Network {
    let candidates: Vec<OpId> = network.convs().filter(|(_, conv)| repeats(&network, conv)).map(|(id, _)| id).collect();
    // From the last to the first, so that those before keep their places.
    candidates.into_iter().rev().fold(network, |network, id| match run_twice(&network, id) {
        Some(twice) if most_live(&twice) < most_live(&network) => twice,
        _ => network,
    })
}

/// Whether a convolution reads only what is there during the whole call, and nothing else makes its runs differ.
fn repeats(network: &Network, conv: &Conv2d) -> bool {
    let kept = [Some(network.sample), network.condition];
    conv.sources.iter().all(|&id| kept.contains(&Some(id)))
        && conv.norm.is_none()
        && conv.residual.is_none()
        && conv.projection.is_none()
        && network.tensors[conv.output].role == Role::Stream
}

/// The network with the convolution once more, before the operations that read its result last: those behind the longest
/// time without any. `None` if nothing lies between.
fn run_twice(network: &Network, id: OpId) -> Option<Network> {
    let Op::Conv2d(conv) = &network.ops[id].1 else { return None };
    let reads = |op: &Op| op.inputs().contains(&conv.output);
    let readers: Vec<usize> =
        network.ops.iter_enumerated().filter(|(_, (_, op))| reads(op)).map(|(id, _)| id.into()).collect();
    let (at, gap) = readers.windows(2).map(|pair| (pair[1], pair[1] - pair[0])).max_by_key(|&(_, gap)| gap)?;
    if gap < 2 {
        return None;
    }
    let mut twice = network.clone();
    let mut copy = |id: TensorId| {
        let tensor = &network.tensors[id];
        twice.tensor(format!("{} (again)", tensor.name), tensor.shape, tensor.role)
    };
    let (output, ring) = (copy(conv.output), copy(conv.ring));
    let again = Conv2d { output, ring, repeats: Some(id), ..(**conv).clone() };
    for (_, op) in &mut twice.ops.raw[at..] {
        let sources: &mut [TensorId] = match op {
            Op::GroupNorm(op) => &mut op.sources,
            Op::Conv2d(op) => &mut op.sources,
            Op::Activate(op) => std::slice::from_mut(&mut op.source),
            Op::LayerNorm(op) => std::slice::from_mut(&mut op.source),
            Op::Filter(op) => std::slice::from_mut(&mut op.source),
            // They read no activations of convolutions, or those of their own kind.
            Op::Embed(_)
            | Op::Linear(_)
            | Op::Attention(_)
            | Op::LinearAttention(_)
            | Op::Observe(_)
            | Op::Classifier(_) => &mut [],
        };
        sources.iter_mut().filter(|source| **source == conv.output).for_each(|source| *source = again.output);
        let residual = match op {
            Op::Conv2d(op) => op.residual.as_mut().map(|(id, _)| id),
            Op::Activate(op) => op.residual.as_mut(),
            Op::LayerNorm(op) => op.residual.as_mut(),
            Op::GroupNorm(_)
            | Op::Embed(_)
            | Op::Linear(_)
            | Op::Attention(_)
            | Op::LinearAttention(_)
            | Op::Observe(_)
            | Op::Classifier(_)
            | Op::Filter(_) => None,
        };
        residual.into_iter().filter(|id| **id == conv.output).for_each(|id| *id = again.output);
    }
    let name = format!("{} (again)", network.ops[id].0);
    twice.ops.raw.insert(at, (name, Op::Conv2d(Box::new(again))));
    Some(twice)
}

/// The most bytes that are live at once, activations having eight bits where they may.
fn most_live(network: &Network) -> u64 {
    let narrow = network.tensors.iter().map(|_| false).collect();
    let elements = Widths::new(network, narrow, Shortcuts::default()).elements(network);
    live_bytes(network, &elements).into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, graph, names};
    use super::*;
    use crate::graph::{Graph, Op as GraphOp};

    /// A skip over `between` convolutions of many channels at most.
    fn skip(between: usize) -> Graph {
        let mut graph = graph(8, 3);
        let first = graph.node("in", conv(3, 8), &[graph.input]);
        let mut x = graph.node("down", conv(8, 16), &[first]);
        for i in 0..between {
            x = graph.node(format!("between {i}"), conv(16, 16), &[x]);
        }
        x = graph.node("up", conv(16, 8), &[x]);
        // Behind the operation that has the most alive.
        x = graph.node("last", conv(8, 8), &[x]);
        let sum = graph.node("sum", GraphOp::Add, &[x, first]);
        graph.output = graph.node("out", conv(8, 3), &[sum]);
        graph
    }

    #[test]
    fn a_skip_over_much_is_computed_again() {
        let before = rewrite(&skip(2), false).expect("folds");
        let after = again(before.clone());
        assert_eq!(names(&after), ["in", "down", "between 0", "between 1", "up", "in (again)", "last", "out"]);
        assert!(most_live(&after) < most_live(&before));
        let [first, second] = [0, 5].map(|index: usize| {
            let Op::Conv2d(conv) = &after.ops[OpId::from(index)].1 else { panic!("a convolution") };
            conv
        });
        assert_eq!((&first.sources, &first.conv.weight), (&second.sources, &second.conv.weight));
        assert!(first.output != second.output && first.ring != second.ring);
        assert_eq!((first.repeats, second.repeats), (None, Some(OpId::from(0_usize))));
        let Op::Conv2d(last) = &after.ops[OpId::from(6_usize)].1 else { panic!("a convolution") };
        assert_eq!(last.residual.map(|(id, _)| id), Some(second.output));
    }

    /// Where the operation that has the most alive reads it anyway, once is enough.
    #[test]
    fn a_skip_over_nothing_is_kept() {
        let mut graph = graph(8, 3);
        let first = graph.node("in", conv(3, 8), &[graph.input]);
        let x = graph.node("between", conv(8, 8), &[first]);
        let sum = graph.node("sum", GraphOp::Add, &[x, first]);
        graph.output = graph.node("out", conv(8, 3), &[sum]);
        let before = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&again(before)), ["in", "between", "out"]);
    }
}
