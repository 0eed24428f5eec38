//! An activation that is modulated by the conditioning vector, or added to something, becomes an operation of its own: behind
//! an activation neither folds into a convolution. What the observation contributes is projected once, before everything.

use super::{RewriteError, Rewriter};
use crate::graph::{self, Linear as GraphLinear, Node, Op as GraphOp, Shape};
use crate::network::{Activate, Film, Linear, Observe, Op, Role, TensorId};

impl<'g> Rewriter<'g> {
    /// The activation among the operands of `node`, if there is one.
    pub(super) fn activated(&self, node: &Node) -> Option<&'g Node> {
        let writers = node.inputs.iter().filter_map(|id| self.writer.get(id).copied());
        writers.into_iter().find(|writer| matches!(writer.op, GraphOp::Activation(_)))
    }

    /// Appends what `node` makes of an activation: a modulation or a sum.
    pub(super) fn activate(&mut self, node: &Node, activation: &Node) -> Result<(), RewriteError> {
        let refuse = |what| RewriteError::new(node, what);
        let GraphOp::Activation(function) = activation.op else { unreachable!("found as one") };
        let norm = self.writer.get(&activation.inputs[0]).copied();
        let Some(norm) = norm.filter(|norm| matches!(norm.op, GraphOp::GroupNorm(_))) else {
            return Err(refuse("applies an activation without a normalization before it"));
        };
        let place = |id: &graph::TensorId| self.placed.get(id).copied();
        let source =
            place(&norm.inputs[0]).ok_or_else(|| refuse("reads a tensor that is not a convolution's result"))?;
        let residual = match &node.op {
            GraphOp::Add => {
                let other = node.inputs.iter().find(|id| **id != activation.output);
                let placed = other.and_then(place);
                Some(placed.ok_or_else(|| refuse("adds what is not a convolution's result to an activation"))?)
            }
            _ => None,
        };
        let film = match &node.op {
            GraphOp::Film(linear) => Some(self.film(node, linear, true)?),
            GraphOp::AddEmbedding(linear) => Some(self.film(node, linear, false)?),
            _ => None,
        };
        let map = self.group_norm(norm, None, &[source]);
        let output = self.network.tensor(node.name.clone(), self.graph.shape(node.output), Role::Stream);
        self.placed.insert(node.output, output);
        let op = Activate { source, norm: map, activation: function, film, residual, output };
        self.push(node.name.clone(), Op::Activate(op));
        Ok(())
    }

    /// What modulates: the time's part, and the observation's, which is computed before everything.
    fn film(&mut self, node: &Node, linear: &GraphLinear, is_scaled: bool) -> Result<Film, RewriteError> {
        if self.conditioning.is_some() {
            return Err(RewriteError::new(node, "modulates an activation by a class"));
        }
        let [linear, observation] = linear.split(self.graph.time.linear_2.outputs);
        let observed = (observation.inputs > 0).then(|| self.observed()).flatten().map(|source| {
            let name = format!("{} (observation)", node.name);
            let output = self.network.tensor(name.clone(), Shape::new(1, 1, observation.outputs), Role::Bias);
            self.once.push((name, Op::Linear(Linear { source, linear: observation, output })));
            output
        });
        Ok(Film { is_scaled, linear, observed })
    }

    /// What projections of the observation read, if there is one.
    fn observed(&mut self) -> Option<TensorId> {
        if self.observed.is_none() {
            let normalization = self.graph.observation.as_ref()?.normalization.clone();
            let shape = Shape::new(1, 1, normalization.len());
            let output = self.network.tensor("observation (normalized)", shape, Role::Observed);
            let op = Observe { source: self.network.observation?, normalization, output };
            self.once.push(("observation".into(), Op::Observe(op)));
            self.observed = Some(output);
        }
        self.observed
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, linear, names, norm};
    use crate::graph::{Activation, Graph, Observation, Op};
    use crate::network;

    /// `b(film(mish(norm(a(x))))) `, then `mish(norm(·)) + a`.
    fn block(film: Op) -> Graph {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let x = graph.node("norm 1", norm(2), &[a]);
        let x = graph.node("mish 1", Op::Activation(Activation::Mish), &[x]);
        let x = graph.node("film", film, &[x]);
        let x = graph.node("b", conv(2, 2), &[x]);
        let x = graph.node("norm 2", norm(2), &[x]);
        let x = graph.node("mish 2", Op::Activation(Activation::Mish), &[x]);
        let x = graph.node("sum", Op::Add, &[x, a]);
        graph.output = graph.node("c", conv(2, 2), &[x]);
        graph
    }

    #[test]
    fn modulated_activations_and_sums_are_operations() {
        let mut graph = block(Op::Film(linear(5, 4)));
        graph.observation = Some(Observation { normalization: vec![[0.0, 1.0]; 3] });
        let network = rewrite(&graph, false).expect("folds");
        let all = ["observation", "film (observation)", "a", "norm 1", "film", "b", "norm 2", "sum", "c"];
        assert_eq!(names(&network), all);
        assert_eq!(network.once, 2);
        let ops: Vec<&network::Op> = network.ops.iter().map(|(_, op)| op).collect();
        let (network::Op::Linear(observed), network::Op::Activate(film)) = (ops[1], ops[4]) else { panic!("{ops:?}") };
        let Some(network::Film { is_scaled: true, linear, observed: Some(tensor) }) = &film.film else { panic!() };
        // Two elements of time, with the biases; three of the observation, without.
        assert_eq!((linear.inputs, &linear.bias), (2, &vec![2.0; 4]));
        assert_eq!((observed.linear.inputs, &observed.linear.bias, observed.output), (3, &vec![0.0; 4], *tensor));
        let network::Op::Activate(sum) = ops[7] else { panic!("{ops:?}") };
        assert_eq!((sum.residual, sum.film.is_none()), (Some(find(&network, "a").output), true));
        assert_eq!(find(&network, "c").sources, [sum.output]);
    }

    #[test]
    fn summands_alone_need_no_observation() {
        let network = rewrite(&block(Op::AddEmbedding(linear(2, 2))), false).expect("folds");
        let film = network.ops.iter().find_map(|(_, op)| match op {
            network::Op::Activate(op) => op.film.as_ref(),
            _ => None,
        });
        assert!(film.is_some_and(|film| !film.is_scaled && film.observed.is_none()));
        assert_eq!(network.once, 0);
    }

    #[test]
    fn activations_of_what_is_not_normalized_are_refused() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let x = graph.node("mish", Op::Activation(Activation::Mish), &[a]);
        let x = graph.node("sum", Op::Add, &[x, a]);
        graph.output = graph.node("b", conv(2, 2), &[x]);
        let refused = rewrite(&graph, false).expect_err("does not fold").to_string();
        assert!(refused.starts_with("sum: applies an activation without a normalization"), "{refused}");
    }

    #[test]
    fn halves_of_channels_become_columns() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 6), &[graph.input]);
        let shuffled = graph.node("shuffle", Op::Shuffle, &[a]);
        graph.output = graph.node("b", conv(3, 2), &[shuffled]);
        let network = rewrite(&graph, false).expect("folds");
        let a = find(&network, "a");
        assert!(a.shuffle);
        assert_eq!(network.tensors[a.output].shape, crate::graph::Shape::new(4, 8, 3));
        assert_eq!(a.computed(&network.tensors), crate::graph::Shape::new(4, 4, 6));
        assert_eq!(network.tensors[a.ring].shape, crate::graph::Shape::new(3, 6, 2));
    }
}
