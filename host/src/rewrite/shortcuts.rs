//! Raw convolutions run early: their inputs die there, and their result is smaller.

use crate::network::{Network, Op, OpId};

/// Moves each raw convolution without a residual up to the last operation that shares an input with it.
pub(super) fn hoist(network: &mut Network) {
    for index in 0..network.ops.len() {
        let Op::Conv2d(conv) = &network.ops[OpId::from(index)].1 else { continue };
        if conv.norm.is_some() || conv.residual.is_some() || conv.projection.is_some() {
            continue;
        }
        let touches = |op: &Op| conv.sources.iter().any(|id| op.output() == *id || op.inputs().contains(id));
        let before = &network.ops.raw[..index];
        if let Some(last) = before.iter().rposition(|(_, op)| touches(op))
            && last + 1 < index
        {
            network.ops.raw[last + 1..=index].rotate_right(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, graph, names, norm};
    use crate::graph::Op;

    #[test]
    fn a_shortcut_follows_the_last_operation_that_reads_its_input() {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 2), &[graph.input]);
        let normalized = graph.node("norm 1", norm(2), &[x]);
        let a = graph.node("a", conv(2, 2), &[normalized]);
        let normalized = graph.node("norm 2", norm(2), &[a]);
        let b = graph.node("b", conv(2, 2), &[normalized]);
        let shortcut = graph.node("shortcut", conv(2, 2), &[x]);
        graph.output = graph.node("sum", Op::Add, &[shortcut, b]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["in", "norm 1", "a", "shortcut", "norm 2", "b"]);
    }
}
