//! Resampling along rows reflects their ends, where a convolution's gather has zeros: it has a tensor for its result.

use super::{RewriteError, Rewriter};
use crate::graph::{Node, Resampling};
use crate::network::{Filter, Op, Role, TensorId};

impl Rewriter<'_> {
    /// Appends the operation that `node` is.
    pub(super) fn filter(&mut self, node: &Node, resampling: Resampling) -> Result<(), RewriteError> {
        let source = self.placed.get(&node.inputs[0]).copied();
        let is_stream = |&id: &TensorId| self.network.tensors[id].role == Role::Stream;
        let Some(source) = source.filter(is_stream) else {
            return Err(RewriteError::new(node, "resamples a tensor that is not a convolution's result"));
        };
        let output = self.network.tensor(node.name.clone(), self.graph.shape(node.output), Role::Stream);
        self.placed.insert(node.output, output);
        self.push(node.name.clone(), Op::Filter(Filter { resampling, source, output }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names};
    use crate::graph::{Op, Resampling, Shape};

    #[test]
    fn resampling_reads_what_a_convolution_wrote() {
        let mut graph = graph(8, 2);
        let a = graph.node("a", conv(2, 3), &[graph.input]);
        let half = graph.node("half", Op::Filter(Resampling::Halve), &[a]);
        let double = graph.node("double", Op::Filter(Resampling::Double), &[half]);
        graph.output = graph.node("b", conv(3, 2), &[double]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(names(&network), ["a", "half", "double", "b"]);
        let read = find(&network, "b").sources[0];
        assert_eq!(network.tensors[read].shape, Shape::new(8, 8, 3));
    }

    #[test]
    fn the_sample_is_not_resampled() {
        let mut graph = graph(8, 2);
        let half = graph.node("half", Op::Filter(Resampling::Halve), &[graph.input]);
        graph.output = graph.node("b", conv(2, 2), &[half]);
        let refused = rewrite(&graph, false).expect_err("does not fold").to_string();
        assert!(refused.starts_with("half: resamples a tensor that is not"), "{refused}");
    }
}
