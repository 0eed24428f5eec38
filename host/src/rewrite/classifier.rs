//! The elementwise operations of a classifier: each has a tensor for its result, and says what the tensors are for that it reads.

use super::{RewriteError, Rewriter};
use crate::graph::Node;
use crate::network::{Classifier, Op, Role};
use waft::format::Pass;

impl Rewriter<'_> {
    /// Appends the operation that `node` is.
    pub(super) fn classifier(&mut self, node: &Node, pass: Pass) -> Result<(), RewriteError> {
        let placed: Vec<_> = node.inputs.iter().filter_map(|id| self.placed.get(id).copied()).collect();
        let refuse = || RewriteError::new(node, "reads a tensor that is not a convolution's result");
        let (source, gradient) = match (pass, placed.as_slice()) {
            (Pass::Forward | Pass::Loss, &[source]) => (source, None),
            (Pass::Backward | Pass::BackwardScaled, &[gradient, source]) => (source, Some(gradient)),
            _ => return Err(refuse()),
        };
        let role = match pass {
            Pass::Forward => Role::Features,
            Pass::Backward | Pass::BackwardScaled => Role::Backward,
            Pass::Loss => Role::Loss,
        };
        let output = self.network.tensor(node.name.clone(), self.graph.shape(node.output), role);
        self.network.tensors[source].role = if pass == Pass::Loss { Role::Backward } else { Role::Features };
        if let Some(gradient) = gradient {
            self.network.tensors[gradient].role = Role::Backward;
        }
        self.placed.insert(node.output, output);
        self.push(node.name.clone(), Op::Classifier(Classifier { pass, source, gradient, output }));
        Ok(())
    }
}
