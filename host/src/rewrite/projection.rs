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

    /// Appends a projection of the conditioning vector, where that exists on the device and the class is in what it reads; the
    /// tensor of its result.
    pub(super) fn project(&mut self, name: String, linear: &graph::Linear) -> Option<TensorId> {
        let source = self.conditioning.filter(|_| self.reads_class(linear))?;
        let output = self.network.tensor(name.clone(), Shape::new(1, 1, linear.outputs), Role::Bias);
        self.push(name, Op::Linear(Linear { source, linear: linear.clone(), output }));
        Some(output)
    }

    /// Whether some element of the conditioning vector that a projection reads has a part of the class.
    fn reads_class(&self, linear: &graph::Linear) -> bool {
        let Some(classes) = &self.graph.classes else { return false };
        if classes.layer == graph::Layer::First {
            return true;
        }
        let mut is_read = vec![false; linear.inputs];
        for row in linear.weight.chunks_exact(linear.inputs) {
            is_read.iter_mut().zip(row).for_each(|(is_read, &weight)| *is_read |= weight != 0.0);
        }
        classes
            .table
            .chunks_exact(self.graph.time.linear_2.outputs)
            .any(|row| row.iter().zip(&is_read).any(|(&x, &is_read)| is_read && x != 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, linear, names};
    use crate::graph::{self, ClassEmbedding, Graph, Op};
    use crate::network::{self, OpId};

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
        graph.classes = Some(ClassEmbedding { classes: 1, table: vec![1.0; 2], ..Default::default() });
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["conditioning", "conv (bias)", "conv"]);
        let bias = find(&network, "conv").projection.as_ref().and_then(|(_, tensor)| *tensor);
        assert_eq!(bias, Some(network.ops[OpId::from(1usize)].1.output()));
    }

    /// A class that is added to the first layer of the time embedding leaves the second one to the device.
    #[test]
    fn with_classes_before_the_second_layer_the_device_computes_that() {
        let mut graph = conditioned();
        let classes =
            ClassEmbedding { classes: 1, table: vec![0.0; 2], layer: graph::Layer::First, ..Default::default() };
        graph.classes = Some(classes);
        graph.time.linear_1 = linear(3, 2);
        graph.time.linear_2 = linear(2, 5);
        let Op::AddEmbedding(projection) = &mut graph.nodes[1].op else { panic!("an embedding") };
        *projection = linear(5, 3);
        let network = rewrite(&graph, false).expect("folds");
        let [second, activated] = ["conditioning (second layer)", "conditioning (activated)"];
        assert_eq!(names(&network), ["conditioning", second, activated, "conv (bias)", "conv"]);
        assert_eq!((network.conditioning, network.once), (2, 0));
        let op = |index: usize| &network.ops[OpId::from(index)].1;
        let (network::Op::Linear(second), network::Op::Observe(activated)) = (op(1), op(2)) else {
            panic!("{network:?}")
        };
        assert_eq!((second.source, second.linear.outputs), (op(0).output(), 5));
        assert_eq!((activated.source, &activated.normalization), (second.output, &vec![[0.0, 1.0]; 5]));
        assert_eq!(op(3).inputs(), [activated.output]);
    }

    #[test]
    fn what_reads_nothing_of_the_class_is_a_bias_of_each_step() {
        let mut graph = conditioned();
        let x = graph.nodes[0].output;
        graph.nodes.truncate(1);
        let reads_first = graph::Linear { weight: [1.0, 0.0].repeat(3), ..linear(2, 3) };
        graph.output = graph.node("add", Op::AddEmbedding(reads_first), &[x]);
        graph.classes = Some(ClassEmbedding { classes: 1, table: vec![0.0, 1.0], ..Default::default() });
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["conditioning", "conv"]);
        assert!(matches!(find(&network, "conv").projection, Some((_, None))));
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
