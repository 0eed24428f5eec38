//! GroupNorm shrinks to statistics: an affine map of each channel, which convolutions apply in their gather.

use super::Rewriter;
use crate::graph::{Linear, Node, Op as GraphOp, Shape};
use crate::network::{GroupNorm, Op, Role, TensorId};

impl Rewriter<'_> {
    /// The affine map of `node`, a GroupNorm, over the given sources, and of the scaling and shifting by the conditioning
    /// vector that follows it, if there is any.
    pub(super) fn group_norm(
        &mut self,
        node: &Node,
        scale_shift: Option<(&Node, &Linear)>,
        sources: &[TensorId],
    ) -> TensorId {
        let result = scale_shift.map_or(node.output, |(node, _)| node.output);
        if let Some(&id) = self.norms.get(&result) {
            return id;
        }
        let GraphOp::GroupNorm(norm) = &node.op else { unreachable!("gather finds GroupNorm nodes only") };
        let shape = Shape::new(1, norm.gamma.len(), 2);
        let output = self.network.tensor(format!("{} (map)", node.name), shape, Role::Norm);
        let projection = scale_shift.map(|(node, linear)| {
            let linear = linear.scaling_and_shifting(&norm.gamma, &norm.beta);
            let tensor = self.project(format!("{} (affine)", node.name), &linear);
            (linear, tensor)
        });
        let op = GroupNorm { sources: sources.to_vec(), norm: norm.clone(), projection, output };
        self.push(node.name.clone(), Op::GroupNorm(op));
        self.norms.insert(result, output);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names, norm};

    #[test]
    fn one_map_serves_all_its_readers() {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 3), &[graph.input]);
        let normalized = graph.node("norm", norm(3), &[x]);
        let a = graph.node("a", conv(3, 3), &[normalized]);
        let b = graph.node("b", conv(3, 3), &[normalized]);
        graph.output = graph.node("sum", crate::graph::Op::Add, &[a, b]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network).iter().filter(|&&name| name == "norm").count(), 1);
        let map = find(&network, "a").norm.expect("a map");
        assert_eq!(find(&network, "b").norm, Some(map));
        // A factor and a summand for each channel.
        assert_eq!(network.tensors[map].shape, crate::graph::Shape::new(1, 3, 2));
    }
}
