//! Linear attention: projections as those of any attention, the result in the place of the queries.

use super::{RewriteError, Rewriter};
use crate::graph::{self, Node, Shape};
use crate::network::{LinearAttention, Op, Role};

impl Rewriter<'_> {
    /// Appends the projections and the attention itself.
    pub(super) fn linear_attention(
        &mut self,
        node: &Node,
        heads: usize,
        gain: f32,
        memory: &graph::Memory,
    ) -> Result<(), RewriteError> {
        let [query, key_value] = self.projections(node)?;
        let shape = self.graph.shape(node.output);
        // A row of contexts for each channel, and one of weights.
        let contexts = Shape::new(1, shape.c, shape.c / heads + 1);
        let scratch = self.network.tensor(format!("{} (contexts)", node.name), contexts, Role::Contexts);
        let output = self.network.tensor(node.name.clone(), shape, Role::Attention);
        self.placed.insert(node.output, output);
        let op = LinearAttention { query, key_value, heads, gain, memory: memory.clone(), scratch, output };
        self.push(node.name.clone(), Op::LinearAttention(op));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names, norm};
    use crate::graph::{Memory, Op, Shape};
    use crate::network;

    #[test]
    fn it_has_a_row_of_contexts_for_each_channel() {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 4), &[graph.input]);
        let normalized = graph.node("norm", norm(4), &[x]);
        let inputs = ["q", "k", "v"].map(|name| graph.node(name, conv(4, 6), &[normalized]));
        let memory = Memory { len: 1, values: vec![0.5; 12] };
        let op = Op::LinearAttention { heads: 2, gain: 0.5, memory: memory.clone() };
        let result = graph.node("attention", op, &inputs);
        graph.output = graph.node("out", conv(6, 2), &[result]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["in", "norm", "q", "k+v", "attention", "out"]);
        let op = network.ops.iter().find_map(|(_, op)| match op {
            network::Op::LinearAttention(op) => Some(op),
            _ => None,
        });
        let op = op.expect("an operation of its own");
        assert_eq!((op.query, op.key_value), (find(&network, "q").output, find(&network, "k+v").output));
        assert_eq!(network.tensors[op.scratch].shape, Shape::new(1, 6, 4));
        assert_eq!((op.heads, op.gain, &op.memory), (2, 0.5, &memory));
        assert_eq!(find(&network, "out").sources, [op.output]);
    }
}
