//! Small graphs for the tests of the rules.

use crate::graph::{
    Activation, Conv2d, FrequencyOrder, Graph, GroupNorm, Linear, Op, Projection, Shape, TimeEmbedding,
};
use crate::network::{self, Network};

/// A graph of one square input, without nodes. Its conditioning vector has two elements.
pub(crate) fn graph(side: usize, channels: usize) -> Graph {
    let time = TimeEmbedding {
        projection: Projection::sinusoid(2, false, 0.0, FrequencyOrder::Product),
        linear_1: linear(2, 2),
        activation: Activation::Silu,
        linear_2: linear(2, 2),
    };
    Graph::new(Shape::new(side, side, channels), time)
}

/// A dense layer whose weights are 1 and whose biases are 2.
pub(super) fn linear(inputs: usize, outputs: usize) -> Linear {
    Linear { inputs, outputs, weight: vec![1.0; inputs * outputs], bias: vec![2.0; outputs] }
}

/// A 3×3 convolution that keeps height and width; its weights are 1, its biases 0.5.
pub(crate) fn conv(inputs: usize, outputs: usize) -> Op {
    Op::Conv2d(Conv2d {
        kernel: [3, 3],
        stride: 1,
        padding: [1; 4],
        inputs,
        outputs,
        weight: vec![1.0; 9 * inputs * outputs],
        bias: vec![0.5; outputs],
    })
}

/// A normalization in one group.
pub(super) fn norm(channels: usize) -> Op {
    Op::GroupNorm(GroupNorm { groups: 1, eps: 1e-5, gamma: vec![1.0; channels], beta: vec![0.0; channels] })
}

/// The names of a network's operations.
pub(super) fn names(network: &Network) -> Vec<&str> {
    network.ops.iter().map(|(name, _)| name.as_str()).collect()
}

/// The convolution of a name.
pub(super) fn find<'n>(network: &'n Network, name: &str) -> &'n network::Conv2d {
    let found = network.convs().find(|(id, _)| network.ops[*id].0 == name);
    found.unwrap_or_else(|| panic!("{name} is not among {:?}", names(network))).1
}
