//! A factor behind a convolution goes into its weights, its biases and the residual's gain.

use crate::graph::{Conv2d, Linear};

/// Multiplies what a convolution computes, its projection included.
pub(super) fn fold(scale: f32, conv: &mut Conv2d, projection: Option<&mut Linear>) {
    if scale == 1.0 {
        return;
    }
    conv.weight.iter_mut().chain(&mut conv.bias).for_each(|w| *w *= scale);
    if let Some(linear) = projection {
        linear.weight.iter_mut().chain(&mut linear.bias).for_each(|w| *w *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph};
    use crate::graph::Op;

    #[test]
    fn a_factor_behind_a_sum_scales_both_operands() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let b = graph.node("b", conv(2, 2), &[a]);
        let sum = graph.node("sum", Op::Add, &[a, b]);
        graph.output = graph.node("half", Op::Affine { gain: 0.5, offset: 0.0 }, &[sum]);
        let network = rewrite(&graph, false).expect("folds");
        let b = find(&network, "b");
        assert_eq!(b.residual, Some((find(&network, "a").output, 0.5)));
        assert!(b.conv.weight.iter().all(|&w| w == 0.5) && b.conv.bias.iter().all(|&bias| bias == 0.25));
        assert_eq!(b.output, network.prediction);
    }

    #[test]
    fn a_summand_behind_a_convolution_is_refused() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        graph.output = graph.node("shifted", Op::Affine { gain: 1.0, offset: 0.5 }, &[a]);
        assert_eq!(rewrite(&graph, false).expect_err("does not fold").node, "shifted");
    }
}
