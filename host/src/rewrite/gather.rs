//! What a convolution reads: everything between it and tensors that exist folds into its gather.

use super::{RewriteError, Rewriter};
use crate::graph::{Activation, Linear, Node, Op as GraphOp, TensorId};

/// What a convolution's input is made of, traced back from it.
pub(super) struct Gather<'g> {
    /// One activation, or two that are joined along the channels.
    pub sources: Vec<TensorId>,
    /// The normalization of the joined channels.
    pub norm: Option<&'g Node>,
    /// What scales and shifts the normalized channels by the conditioning vector, and its projection.
    pub scale_shift: Option<(&'g Node, &'g Linear)>,
    /// What follows.
    pub activation: Option<Activation>,
    /// A raw input enters as `gain·x + offset`.
    pub affine: (f32, f32),
    /// Whether rows and columns are doubled first.
    pub upsample: bool,
}

impl<'g> Rewriter<'g> {
    /// Traces the input of `node`, a convolution, back to activations that exist in the network.
    pub(super) fn gather(&self, node: &Node) -> Result<Gather<'g>, RewriteError> {
        let refuse = |what| Err(RewriteError::new(node, what));
        let identity = (1.0, 0.0);
        let mut found = Gather {
            sources: vec![],
            norm: None,
            scale_shift: None,
            activation: None,
            affine: identity,
            upsample: false,
        };
        let mut at = node.inputs[0];
        while !self.placed.contains_key(&at) {
            let Some(&before) = self.writer.get(&at) else { return refuse("reads a tensor that nothing writes") };
            // From the last operation to the first, and the device's gather is: affine or normalization, activation,
            // upsampling.
            let is_raw = found.norm.is_none();
            let is_bare = found.activation.is_none() && found.scale_shift.is_none();
            match &before.op {
                GraphOp::Upsample if !found.upsample && is_raw && is_bare => found.upsample = true,
                GraphOp::Activation(activation) if is_bare && is_raw && found.affine == identity => {
                    found.activation = Some(*activation);
                }
                GraphOp::ScaleShift(linear) if found.scale_shift.is_none() && is_raw && found.affine == identity => {
                    found.scale_shift = Some((before, linear));
                }
                GraphOp::GroupNorm(_) if is_raw && found.affine == identity => found.norm = Some(before),
                GraphOp::Affine { gain, offset } if is_raw && is_bare => {
                    found.affine = (found.affine.0 * gain, found.affine.0 * offset + found.affine.1);
                }
                GraphOp::Concat => {
                    if !before.inputs.iter().all(|input| self.placed.contains_key(input)) {
                        return refuse("joins tensors that are not results of convolutions");
                    }
                    found.sources.clone_from(&before.inputs);
                    break;
                }
                _ => return refuse("reads the result of an operation that does not fold into it"),
            }
            at = before.inputs[0];
        }
        if found.sources.is_empty() {
            found.sources = vec![at];
        }
        if found.norm.is_none() && found.scale_shift.is_some() {
            return refuse("scales and shifts what is not normalized");
        }
        if found.norm.is_none() && found.activation.is_some() {
            return refuse("applies an activation without a normalization before it");
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph, names, norm};
    use crate::graph::{Activation, Graph, Op};

    const SILU: Op = Op::Activation(Activation::Silu);

    /// A graph of two convolutions with `between` between them.
    fn chain(between: &[Op]) -> Graph {
        let mut graph = graph(4, 2);
        let mut x = graph.node("first", conv(2, 2), &[graph.input]);
        for (index, op) in between.iter().enumerate() {
            x = graph.node(format!("between {index}"), op.clone(), &[x]);
        }
        graph.output = graph.node("second", conv(2, 2), &[x]);
        graph
    }

    fn refusal(graph: &Graph) -> String {
        rewrite(graph, false).expect_err("does not fold").to_string()
    }

    #[test]
    fn normalization_silu_and_upsampling_fold() {
        let network = rewrite(&chain(&[norm(2), SILU, Op::Upsample]), false).expect("folds");
        assert_eq!(names(&network), ["first", "between 0", "second"]);
        let second = find(&network, "second");
        assert!(second.norm.is_some() && second.activation == Some(Activation::Silu) && second.upsample);
        assert_eq!(network.tensors[second.output].shape.h, 8);
        assert_eq!(second.sources, [find(&network, "first").output]);
    }

    #[test]
    fn affine_maps_of_raw_inputs_compose() {
        let twice = [Op::Affine { gain: 2.0, offset: 1.0 }, Op::Affine { gain: 3.0, offset: -1.0 }];
        let mut graph = graph(4, 2);
        let mut x = graph.input;
        for op in twice {
            x = graph.node("affine", op, &[x]);
        }
        graph.output = graph.node("conv", conv(2, 2), &[x]);
        let network = rewrite(&graph, false).expect("folds");
        // 3·(2x + 1) − 1.
        assert_eq!(find(&network, "conv").input_affine, (6.0, 2.0));
    }

    #[test]
    fn a_join_becomes_two_sources() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 3), &[graph.input]);
        let b = graph.node("b", conv(3, 5), &[a]);
        let joined = graph.node("join", Op::Concat, &[b, a]);
        let x = graph.node("norm", norm(8), &[joined]);
        graph.output = graph.node("c", conv(8, 2), &[x]);
        let network = rewrite(&graph, false).expect("folds");
        assert_eq!(find(&network, "c").sources, [find(&network, "b").output, find(&network, "a").output]);
    }

    #[test]
    fn what_does_not_fold_is_refused_with_the_convolutions_name() {
        let affine = Op::Affine { gain: 2.0, offset: 1.0 };
        let silu = "second: applies an activation without a normalization before it";
        let other = "second: reads the result of an operation that does not fold into it";
        for (between, expected) in [
            (vec![SILU], silu),
            (vec![Op::Upsample, Op::Upsample], other),
            (vec![SILU, norm(2)], other),
            (vec![norm(2), norm(2)], other),
            // The map of a normalization has no room for a second one.
            (vec![norm(2), affine.clone()], other),
            (vec![norm(2), SILU, affine], other),
        ] {
            let refused = refusal(&chain(&between));
            assert!(refused.starts_with(expected), "{between:?}: {refused}");
        }
    }

    #[test]
    fn joins_of_what_does_not_exist_are_refused() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let normalized = graph.node("norm", norm(2), &[a]);
        let joined = graph.node("join", Op::Concat, &[normalized, a]);
        graph.output = graph.node("c", conv(4, 2), &[joined]);
        assert!(refusal(&graph).starts_with("c: joins tensors that are not results of convolutions"));
    }

    #[test]
    fn tensors_that_nothing_writes_are_refused() {
        let mut graph = graph(4, 2);
        let loose = graph.tensor("loose", crate::graph::Shape::new(4, 4, 2));
        graph.output = graph.node("c", conv(2, 2), &[loose]);
        assert!(refusal(&graph).starts_with("c: reads a tensor that nothing writes"));
    }
}
