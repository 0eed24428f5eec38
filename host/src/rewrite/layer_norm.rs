//! A normalization over the channels of each pixel becomes an operation with what follows it: scaling and shifting by the
//! timestep, an activation, a sum.

use super::{RewriteError, Rewriter};
use crate::graph::{self, Activation, Linear, Node, Op as GraphOp};
use crate::network::{LayerNorm, Op, Role};

/// A normalization and what follows it.
pub(super) struct Chain<'g> {
    norm: &'g Node,
    scale_shift: Option<&'g Linear>,
    activation: Option<Activation>,
    /// What is added.
    residual: Option<graph::TensorId>,
}

impl<'g> Rewriter<'g> {
    /// The normalization over channels that ends with `node`, if one does: no reader of it folds in.
    pub(super) fn layer_normalized(&self, node: &'g Node) -> Option<Chain<'g>> {
        let chain = self.chain(node)?;
        let goes_on = self.only_reader(node.output).is_some_and(|reader| self.chain(reader).is_some());
        (!goes_on).then_some(chain)
    }

    /// The normalization over channels that `node` is or follows.
    fn chain(&self, node: &'g Node) -> Option<Chain<'g>> {
        let before = |id: &graph::TensorId| {
            let writer = self.writer.get(id).copied().filter(|_| !self.placed.contains_key(id))?;
            // Whoever else reads it needs it as it is.
            self.chain(writer).filter(|chain| chain.residual.is_none() && self.only_reader(*id).is_some())
        };
        match &node.op {
            GraphOp::LayerNorm(_) => Some(Chain { norm: node, scale_shift: None, activation: None, residual: None }),
            GraphOp::ScaleShift(linear) => before(&node.inputs[0])
                .filter(|chain| chain.scale_shift.is_none() && chain.activation.is_none())
                .map(|chain| Chain { scale_shift: Some(linear), ..chain }),
            GraphOp::Activation(activation) => before(&node.inputs[0])
                .filter(|chain| chain.activation.is_none())
                .map(|chain| Chain { activation: Some(*activation), ..chain }),
            GraphOp::Add => {
                let [first, second] = [node.inputs[0], node.inputs[1]];
                let with = |chain: Chain<'g>, other| Chain { residual: Some(other), ..chain };
                before(&first)
                    .map(|chain| with(chain, second))
                    .or_else(|| before(&second).map(|chain| with(chain, first)))
            }
            _ => None,
        }
    }

    /// Appends a normalization over channels whose last node is `node`.
    pub(super) fn layer_norm(&mut self, node: &Node, chain: &Chain<'_>) -> Result<(), RewriteError> {
        let refuse = |what| RewriteError::new(node, what);
        let GraphOp::LayerNorm(norm) = &chain.norm.op else { unreachable!("a chain begins with one") };
        let place = |id: &graph::TensorId| self.placed.get(id).copied();
        let source = place(&chain.norm.inputs[0])
            .ok_or_else(|| refuse("normalizes the channels of a tensor that is not a convolution's result"))?;
        let residual = match &chain.residual {
            None => None,
            Some(id) => Some(
                place(id).ok_or_else(|| refuse("adds what is not a convolution's result to normalized channels"))?,
            ),
        };
        if chain.scale_shift.is_some() && self.conditioning.is_some() {
            return Err(refuse("scales and shifts normalized channels by a class"));
        }
        let output = self.network.tensor(node.name.clone(), self.graph.shape(node.output), Role::Stream);
        self.placed.insert(node.output, output);
        let projection = chain.scale_shift.map(|linear| linear.scaling_and_shifting(&norm.gamma, &norm.beta));
        let op = LayerNorm { source, norm: norm.clone(), projection, activation: chain.activation, residual, output };
        self.push(node.name.clone(), Op::LayerNorm(op));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, linear, names};
    use crate::graph::{self, Activation, Graph, Op};
    use crate::network;

    fn norm(channels: usize) -> Op {
        Op::LayerNorm(graph::LayerNorm {
            is_centered: false,
            eps: 0.0,
            gamma: vec![3.0; channels],
            beta: vec![0.5; channels],
        })
    }

    /// `b(silu(scale_shift(norm(a(x)))))`, then `silu(norm(·)) + shortcut(a)`, the shortcut before the rest or behind it.
    fn block(shortcut_first: bool) -> Graph {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let early = shortcut_first.then(|| graph.node("shortcut", conv(2, 2), &[a]));
        let x = graph.node("norm 1", norm(2), &[a]);
        let x = graph.node("scale shift", Op::ScaleShift(linear(2, 4)), &[x]);
        let x = graph.node("silu 1", Op::Activation(Activation::Silu), &[x]);
        let x = graph.node("b", conv(2, 2), &[x]);
        let x = graph.node("norm 2", norm(2), &[x]);
        let x = graph.node("silu 2", Op::Activation(Activation::Silu), &[x]);
        let shortcut = early.unwrap_or_else(|| graph.node("shortcut", conv(2, 2), &[a]));
        let x = graph.node("sum", Op::Add, &[x, shortcut]);
        graph.output = graph.node("c", conv(2, 2), &[x]);
        graph
    }

    #[test]
    fn what_follows_a_normalization_of_channels_folds_into_it() {
        for shortcut_first in [true, false] {
            let network = rewrite(&block(shortcut_first), false).expect("folds");
            assert_eq!(names(&network).len(), 6, "{:?}", names(&network));
            let norms: Vec<&network::LayerNorm> = network
                .ops
                .iter()
                .filter_map(|(_, op)| if let network::Op::LayerNorm(op) = op { Some(op) } else { None })
                .collect();
            let [first, second] = norms[..] else { panic!("{norms:?}") };
            assert_eq!((first.activation, first.residual), (Some(Activation::Silu), None));
            // γ·(1 + s) and β·(1 + s) + t, of weights of 1 and biases of 2.
            let projection = first.projection.as_ref().expect("scales and shifts");
            assert_eq!((&projection.bias, projection.weight[0]), (&vec![9.0, 9.0, 3.5, 3.5], 3.0));
            assert_eq!(second.residual, Some(find(&network, "shortcut").output));
            assert_eq!(find(&network, "c").sources, [second.output]);
        }
    }

    #[test]
    fn what_does_not_fold_is_refused() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let x = graph.node("up", Op::Upsample, &[a]);
        let x = graph.node("norm", norm(2), &[x]);
        graph.output = graph.node("b", conv(2, 2), &[x]);
        let refused = rewrite(&graph, false).expect_err("does not fold").to_string();
        assert!(refused.starts_with("norm: normalizes the channels of a tensor that is not"), "{refused}");

        let mut graph = block(true);
        graph.classes = Some(graph::ClassEmbedding { classes: 1, table: vec![0.0; 2], ..Default::default() });
        let refused = rewrite(&graph, false).expect_err("does not fold").to_string();
        assert!(refused.starts_with("silu 1: scales and shifts normalized channels by a class"), "{refused}");
    }
}
