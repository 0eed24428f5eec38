//! The projection of the conditioning vector is the bias of the convolution before it: of each step, or, where the
//! conditioning vector exists on the device, an operation of its own.

use super::Rewriter;
use crate::graph::{self, Node, Shape};
use crate::network::{Linear, Op, Role, TensorId};

impl Rewriter<'_> {
    /// The bias of a convolution that the conditioning vector shifts, and the tensor that it is computed into, if it is.
    pub(super) fn projection(
        &mut self,
        node: &Node,
        mut linear: graph::Linear,
        conv: &graph::Conv2d,
    ) -> (graph::Linear, Option<TensorId>) {
        for (bias, &constant) in linear.bias.iter_mut().zip(&conv.bias) {
            *bias += constant;
        }
        let tensor = self.project(format!("{} (bias)", node.name), &linear);
        (linear, tensor)
    }

    /// Appends a projection of the conditioning vector, where that exists on the device; the tensor of its result.
    pub(super) fn project(&mut self, name: String, linear: &graph::Linear) -> Option<TensorId> {
        let source = self.conditioning?;
        let output = self.network.tensor(name.clone(), Shape::new(1, 1, linear.outputs), Role::Bias);
        self.push(name, Op::Linear(Linear { source, linear: linear.clone(), output }));
        Some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, linear, names};
    use crate::graph::{ClassEmbedding, Graph, Op};
    use crate::network::OpId;

    fn conditioned() -> Graph {
        let mut graph = graph(4, 2);
        let x = graph.node("conv", conv(2, 3), &[graph.input]);
        graph.output = graph.node("add", Op::AddEmbedding(linear(2, 3)), &[x]);
        graph
    }

    #[test]
    fn without_classes_it_is_a_bias_of_each_step() {
        let network = rewrite(&conditioned(), false).expect("folds");
        assert_eq!(names(&network), ["conv"]);
        let (linear, tensor) = find(&network, "conv").projection.as_ref().expect("a projection");
        assert_eq!((tensor, &linear.bias), (&None, &vec![2.5; 3]), "the convolution's own bias is in it");
    }

    #[test]
    fn with_classes_the_device_computes_it() {
        let mut graph = conditioned();
        graph.classes = Some(ClassEmbedding { classes: 1, is_assumed: false, table: vec![0.0; 2] });
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["conditioning", "conv (bias)", "conv"]);
        let bias = find(&network, "conv").projection.as_ref().and_then(|(_, tensor)| *tensor);
        assert_eq!(bias, Some(network.ops[OpId::from(1usize)].1.output()));
    }

    #[test]
    fn an_embedding_added_to_no_convolution_is_refused() {
        let mut graph = graph(4, 2);
        let x = graph.node("add", Op::AddEmbedding(linear(2, 2)), &[graph.input]);
        graph.output = graph.node("conv", conv(2, 2), &[x]);
        let refused = rewrite(&graph, false).expect_err("does not fold");
        assert_eq!(refused.node, "conv");
    }
}
