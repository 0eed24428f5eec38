//! Attention: queries from one convolution, keys and values from one together, the context in the place of the queries.

use super::{RewriteError, Rewriter};
use crate::graph::{self, Node, Op as GraphOp, Shape};
use crate::network::{Attention, Op, Role, TensorId};

impl Rewriter<'_> {
    /// Whether the result of a convolution is the query, the keys or the values of an attention and nothing else.
    pub(super) fn feeds_attention(&self, node: &Node) -> bool {
        matches!(
            self.only_reader(node.output).map(|reader| &reader.op),
            Some(GraphOp::Attention { .. } | GraphOp::LinearAttention { .. })
        )
    }

    /// Appends the three projections, as two convolutions, and the attention itself.
    pub(super) fn attention(
        &mut self,
        node: &Node,
        heads: usize,
        scale: f32,
        memory: &graph::Memory,
    ) -> Result<(), RewriteError> {
        let [query, key_value] = self.projections(node)?;
        let shape = self.graph.shape(node.output);
        let scores = Shape::new(1, 1, memory.len + shape.pixels());
        let scratch = self.network.tensor(format!("{} (scores)", node.name), scores, Role::Scores);
        let output = self.network.tensor(node.name.clone(), shape, Role::Attention);
        self.placed.insert(node.output, output);
        let op = Attention { query, key_value, heads, scale, memory: memory.clone(), scratch, output };
        self.push(node.name.clone(), Op::Attention(op));
        Ok(())
    }

    /// Appends the queries, and keys and values together.
    pub(super) fn projections(&mut self, node: &Node) -> Result<[TensorId; 2], RewriteError> {
        let refuse = |what| RewriteError::new(node, what);
        let mut projections: Vec<(&Node, &graph::Conv2d)> = vec![];
        for &input in &node.inputs {
            match self.writer.get(&input).map(|writer| (*writer, &writer.op)) {
                Some((writer, GraphOp::Conv2d(conv))) => projections.push((writer, conv)),
                _ => return Err(refuse("reads something else than projections")),
            }
        }
        let [(query, query_conv), (key, key_conv), (value, value_conv)] =
            <[_; 3]>::try_from(projections).map_err(|_| refuse("needs queries, keys and values"))?;
        if query.inputs != key.inputs || key.inputs != value.inputs {
            return Err(refuse("reads queries, keys and values from different tensors"));
        }
        let geometry = |conv: &graph::Conv2d| (conv.kernel, conv.stride, conv.padding);
        if geometry(key_conv) != geometry(value_conv) {
            return Err(refuse("computes keys and values by different kernels"));
        }
        let query_id = self.conv2d(query, query_conv.clone(), Role::Attention)?;
        let mut both = key_conv.clone();
        both.weight.extend(&value_conv.weight);
        both.bias.extend(&value_conv.bias);
        both.outputs += value_conv.outputs;
        let joint = Node { name: format!("{}+v", key.name), ..key.clone() };
        Ok([query_id, self.conv2d(&joint, both, Role::KeyValue)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names, norm};
    use crate::graph::{Conv2d, Graph, Memory, Op, Shape};
    use crate::network::{OpId, Role};

    /// Attention over `norm(x)` with projections as given.
    fn attention(projections: [Op; 3]) -> Graph {
        let mut graph = graph(4, 2);
        let x = graph.node("in", conv(2, 2), &[graph.input]);
        let normalized = graph.node("norm", norm(2), &[x]);
        let [q, k, v] = projections;
        let inputs = [("q", q), ("k", k), ("v", v)].map(|(name, op)| graph.node(name, op, &[normalized]));
        let context =
            graph.node("attention", Op::Attention { heads: 2, scale: 1.0, memory: Memory::default() }, &inputs);
        graph.output = graph.node("out", conv(2, 2), &[context]);
        graph
    }

    fn refusal(graph: &Graph) -> String {
        rewrite(graph, false).expect_err("does not fold").to_string()
    }

    #[test]
    fn keys_and_values_come_from_one_convolution() {
        let network = rewrite(&attention([conv(2, 2), conv(2, 2), conv(2, 2)]), false).expect("folds");
        assert_eq!(names(&network), ["in", "norm", "q", "k+v", "attention", "out"]);
        let joint = find(&network, "k+v");
        assert_eq!((joint.conv.outputs, joint.conv.weight.len(), joint.conv.bias.len()), (4, 2 * 36, 4));
        let tensor = &network.tensors[joint.output];
        assert_eq!((tensor.role, tensor.shape), (Role::KeyValue, Shape::new(4, 4, 4)));
        let Some((_, crate::network::Op::Attention(op))) = network.ops.get(OpId::from(4usize)) else {
            panic!("attention")
        };
        assert_eq!((op.query, op.key_value), (find(&network, "q").output, joint.output));
        assert_eq!(network.tensors[op.scratch].shape.c, 16, "a score for each pixel");
        assert_eq!(find(&network, "out").sources, [op.output]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_attentions_name() {
        let refused = refusal(&attention([conv(2, 2), conv(2, 2), norm(2)]));
        assert!(refused.starts_with("attention: reads something else than projections"), "{refused}");

        let Op::Conv2d(full) = conv(2, 2) else { unreachable!() };
        let pointwise = Conv2d { kernel: [1, 1], padding: [0; 4], weight: vec![1.0; 4], ..full };
        let refused = refusal(&attention([conv(2, 2), conv(2, 2), Op::Conv2d(pointwise)]));
        assert!(refused.starts_with("attention: computes keys and values by different kernels"), "{refused}");

        let mut graph = attention([conv(2, 2), conv(2, 2), conv(2, 2)]);
        let x = graph.nodes[0].output;
        let value = graph.nodes.iter_mut().find(|node| node.name == "v").expect("there is one");
        value.inputs = vec![x];
        let refused = refusal(&graph);
        assert!(refused.starts_with("attention: reads queries, keys and values from different tensors"), "{refused}");

        let mut graph = attention([conv(2, 2), conv(2, 2), conv(2, 2)]);
        graph.nodes.iter_mut().find(|node| node.name == "attention").expect("there is one").inputs.pop();
        let refused = refusal(&graph);
        assert!(refused.starts_with("attention: needs queries, keys and values"), "{refused}");
    }
}
