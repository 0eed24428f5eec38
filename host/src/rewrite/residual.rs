//! A sum becomes the residual of the convolution that computes its later operand. Where the other operand is a shortcut
//! that was not reached yet, it is brought forward.

use super::{RewriteError, Rewriter};
use crate::graph::{self, Node, Op as GraphOp};
use crate::network::{Role, TensorId};

impl Rewriter<'_> {
    /// The tensor that `sum` adds to `result`, the result of the convolution `node`; `None` if this convolution is the
    /// operand that the other one adds.
    pub(super) fn residual(
        &mut self,
        node: &Node,
        is_raw: bool,
        result: graph::TensorId,
        sum: &Node,
    ) -> Result<Option<TensorId>, RewriteError> {
        let other = if sum.inputs[0] == result { sum.inputs[1] } else { sum.inputs[0] };
        if let Some(&id) = self.placed.get(&other) {
            return Ok(Some(id));
        }
        let writer = self.writer.get(&other).copied();
        match writer.map(|writer| (writer, &writer.op)) {
            // A shortcut that comes first waits, and so does one that was brought forward.
            Some((shortcut, GraphOp::Conv2d(_))) if is_raw || self.done.contains(&shortcut.output) => Ok(None),
            // The operation that computes the activation adds this.
            Some((_, GraphOp::Activation(_) | GraphOp::LayerNorm(_) | GraphOp::ScaleShift(_))) => Ok(None),
            Some((shortcut, GraphOp::Conv2d(conv))) => Ok(Some(self.conv2d(shortcut, conv.clone(), Role::Stream)?)),
            _ => Err(RewriteError::new(node, "is added to what is not a convolution's result")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names, norm};
    use crate::graph::{Graph, Op};

    /// `main(norm(x)) + shortcut(x)`, the shortcut before the rest or behind it.
    fn block(shortcut_first: bool) -> Graph {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 2), &[graph.input]);
        let shortcut = |graph: &mut Graph| graph.node("shortcut", conv(2, 2), &[x]);
        let early = shortcut_first.then(|| shortcut(&mut graph));
        let normalized = graph.node("norm", norm(2), &[x]);
        let main = graph.node("main", conv(2, 2), &[normalized]);
        let shortcut = early.unwrap_or_else(|| shortcut(&mut graph));
        graph.output = graph.node("sum", Op::Add, &[shortcut, main]);
        graph
    }

    #[test]
    fn a_shortcut_is_computed_before_what_adds_it() {
        for shortcut_first in [true, false] {
            let network = rewrite(&block(shortcut_first), false).expect("folds");
            let (main, shortcut) = (find(&network, "main"), find(&network, "shortcut"));
            assert_eq!(main.residual, Some((shortcut.output, 1.0)));
            assert_eq!(shortcut.residual, None);
            let names = names(&network);
            let place = |name| names.iter().position(|&other| other == name);
            assert!(names.len() == 4 && place("shortcut") < place("main"), "{names:?}");
        }
    }

    #[test]
    fn two_normalized_operands_fold_as_well() {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 2), &[graph.input]);
        let normalized = graph.node("norm", norm(2), &[x]);
        let a = graph.node("a", conv(2, 2), &[normalized]);
        let b = graph.node("b", conv(2, 2), &[normalized]);
        graph.output = graph.node("sum", Op::Add, &[a, b]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(find(&network, "a").residual, Some((find(&network, "b").output, 1.0)));
        assert_eq!(find(&network, "b").residual, None);
    }

    #[test]
    fn sums_with_anything_else_are_refused_with_the_convolutions_name() {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 2), &[graph.input]);
        let doubled = graph.node("up", Op::Upsample, &[x]);
        let main = graph.node("main", conv(2, 2), &[doubled]);
        graph.output = graph.node("sum", Op::Add, &[main, doubled]);
        let refused = rewrite(&graph, false).expect_err("does not fold").to_string();
        assert!(refused.starts_with("main: is added to what is not a convolution's result"), "{refused}");
    }
}
