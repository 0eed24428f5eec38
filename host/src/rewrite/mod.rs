//! Rewrites: from the mathematics of a [`Graph`] to the operations that a device runs. One rule a file:
//!
//! - `gather`: the affine map of a normalization, the activation behind it, nearest upsampling, the join of a skip connection and
//!   an affine input map fold into the gather of the convolution that reads them.
//! - `group_norm`: GroupNorm shrinks to statistics that become a per-channel affine map; scaling and shifting by the
//!   conditioning vector becomes its factors and summands.
//! - `projection`: the projection of the conditioning vector becomes the bias of the convolution before it.
//! - `residual`: a sum becomes the residual of the convolution that computes its later operand.
//! - `scale`: a factor behind a convolution goes into its weights and the residual's gain.
//! - `attention`: keys and values come from one convolution, the context is written over the queries.
//! - `linear_attention`: projections likewise, the result over the queries.
//! - `activate`: an activation that is modulated or added to becomes an operation of its own; projections of the observation
//!   come first.
//! - `layer_norm`: normalization over the channels of each pixel becomes an operation with what follows it.
//! - `classifier`: elementwise operations of a classifier keep tensors of their own.
//! - `filter`: so does resampling along rows.
//! - `again`: what the first convolution gives is computed twice instead of kept, where that takes less memory.
//! - `shortcuts`: raw convolutions run as soon as the operations that share their inputs are done.
//!
//! `conv2d` puts together what folds into one convolution. What cannot be folded is refused with the node's name: no buffer
//! is added that the caller does not expect.

mod activate;
mod again;
mod attention;
mod classifier;
mod conv2d;
mod filter;
mod gather;
mod group_norm;
mod layer_norm;
mod linear_attention;
mod projection;
mod residual;
mod scale;
mod shortcuts;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};

use thiserror::Error;
use typed_index_collections::TiVec;

pub use self::again::again;
use crate::graph::{self, Graph, Node, Op as GraphOp, Shape};
use crate::network::{Embed, Linear, Network, Observe, Op, Role, Tensor, TensorId};
use crate::schedule::MAX_HISTORY;

/// A graph that does not fold into the device's operations.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{node}: {what}; waft has no operation for this, please report the configuration")]
pub struct RewriteError {
    /// The graph's node.
    pub node: String,
    /// What does not fold.
    pub what: &'static str,
}

impl RewriteError {
    fn new(node: &Node, what: &'static str) -> Self {
        Self { node: node.name.clone(), what }
    }
}

/// Folds `graph` into device operations. `guidance` keeps room for the unconditional output; only models with classes
/// can use it.
///
/// # Errors
/// If some node cannot be folded.
pub fn rewrite(graph: &Graph, guidance: bool) -> Result<Network, RewriteError> {
    let mut rewriter = Rewriter::new(graph);
    rewriter.run()?;
    let mut network = rewriter.network;
    let placed = |id: graph::TensorId| {
        rewriter.placed.get(&id).copied().ok_or_else(|| RewriteError {
            node: graph.tensors[id.0].name.clone(),
            what: "the model output is not a convolution's result",
        })
    };
    network.prediction = placed(graph.output)?;
    network.variance = graph.variance.map(placed).transpose()?;
    if let Some(variance) = network.variance {
        network.tensors[variance].role = Role::Variance;
    }
    network.gradient = graph.classifier.as_ref().map(|classifier| placed(classifier.gradient)).transpose()?;
    if let Some(gradient) = network.gradient {
        network.tensors[gradient].role = Role::Gradient;
    }
    let prediction = &mut network.tensors[network.prediction];
    prediction.role = Role::Prediction;
    let shape = prediction.shape;
    if guidance && graph.class_count() > 0 {
        network.unconditional = Some(network.tensor("unconditional prediction", shape, Role::Unconditional));
    }
    shortcuts::hoist(&mut network);
    network.once = rewriter.once.len();
    network.ops.raw.splice(0..0, rewriter.once);
    Ok(network)
}

/// A network under construction.
struct Rewriter<'g> {
    graph: &'g Graph,
    /// The node that writes each activation.
    writer: HashMap<graph::TensorId, &'g Node>,
    /// The nodes that read each activation.
    readers: HashMap<graph::TensorId, Vec<&'g Node>>,
    network: Network,
    /// The network's tensor for each activation that exists in it.
    placed: HashMap<graph::TensorId, TensorId>,
    /// The map for each GroupNorm, by the activation that this writes.
    norms: HashMap<graph::TensorId, TensorId>,
    /// What the convolutions write that are in the network.
    done: HashSet<graph::TensorId>,
    conditioning: Option<TensorId>,
    /// What projections of the observation read.
    observed: Option<TensorId>,
    /// What depends on the observation alone.
    once: Vec<(String, Op)>,
}

impl<'g> Rewriter<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut writer = HashMap::new();
        let mut readers: HashMap<_, Vec<_>> = HashMap::new();
        for node in &graph.nodes {
            writer.insert(node.output, node);
            for &input in &node.inputs {
                readers.entry(input).or_default().push(node);
            }
        }
        let mut tensors = TiVec::new();
        let shape = graph.shape(graph.input);
        let sample = tensors.push_and_get_key(Tensor { name: "sample".into(), shape, role: Role::Sample });
        let mut placed = HashMap::from([(graph.input, sample)]);
        let condition = graph.condition.map(|id| {
            let tensor = Tensor { name: "condition".into(), shape: graph.shape(id), role: Role::Condition };
            let condition = tensors.push_and_get_key(tensor);
            placed.insert(id, condition);
            condition
        });
        let observation = graph.observation.as_ref().map(|observation| {
            let shape = Shape::new(1, 1, observation.normalization.len());
            tensors.push_and_get_key(Tensor { name: "observation".into(), shape, role: Role::Observation })
        });
        let network = Network {
            tensors,
            ops: TiVec::new(),
            sample,
            condition,
            observation,
            once: 0,
            prediction: sample,
            variance: None,
            gradient: None,
            unconditional: None,
            history: [None; MAX_HISTORY],
            conditioning: 0,
        };
        Self {
            graph,
            writer,
            readers,
            network,
            placed,
            norms: HashMap::new(),
            done: HashSet::new(),
            conditioning: None,
            observed: None,
            once: vec![],
        }
    }

    fn run(&mut self) -> Result<(), RewriteError> {
        if self.graph.classes.is_some() {
            let (length, _) = self.graph.class_row();
            self.network.conditioning = length;
            let output = self.network.tensor("conditioning", Shape::new(1, 1, length), Role::Conditioning);
            self.push("conditioning", Op::Embed(Embed { output }));
            self.conditioning = Some(match self.graph.class_layer() {
                graph::Layer::First => self.second_layer(output),
                graph::Layer::Second => output,
            });
        }
        for node in &self.graph.nodes {
            match &node.op {
                GraphOp::Conv2d(conv) if !self.feeds_attention(node) && !self.done.contains(&node.output) => {
                    self.conv2d(node, conv.clone(), Role::Stream)?;
                }
                GraphOp::Attention { heads, scale, memory } => self.attention(node, *heads, *scale, memory)?,
                GraphOp::LinearAttention { heads, gain, memory } => {
                    self.linear_attention(node, *heads, *gain, memory)?;
                }
                GraphOp::LayerNorm(_) | GraphOp::ScaleShift(_) | GraphOp::Activation(_) => {
                    if let Some(chain) = self.layer_normalized(node) {
                        self.layer_norm(node, &chain)?;
                    }
                }
                GraphOp::Film(_) | GraphOp::AddEmbedding(_) | GraphOp::Add => {
                    if let Some(chain) = self.layer_normalized(node) {
                        self.layer_norm(node, &chain)?;
                    } else if let Some(activation) = self.activated(node) {
                        self.activate(node, activation)?;
                    }
                }
                GraphOp::Classifier(pass) => self.classifier(node, *pass)?,
                GraphOp::Filter(resampling) => self.filter(node, *resampling)?,
                // Folded into a convolution when that is reached.
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends the second layer of the time embedding's perceptron, which the device computes where a class is added to the
    /// first; what it is followed by is read as an observation is.
    fn second_layer(&mut self, source: TensorId) -> TensorId {
        let linear = self.graph.time.linear_2.clone();
        let shape = Shape::new(1, 1, linear.outputs);
        let normalization = vec![[0.0, 1.0]; linear.outputs];
        let sum = self.network.tensor("conditioning (second layer)", shape, Role::Bias);
        self.push("conditioning (second layer)", Op::Linear(Linear { source, linear, output: sum }));
        let output = self.network.tensor("conditioning (activated)", shape, Role::Observed);
        self.push("conditioning (activated)", Op::Observe(Observe { source: sum, normalization, output }));
        output
    }

    /// Appends an operation.
    fn push(&mut self, name: impl Into<String>, op: Op) {
        self.network.ops.push((name.into(), op));
    }

    /// The node that reads an activation, if it is the only one.
    fn only_reader(&self, id: graph::TensorId) -> Option<&'g Node> {
        match self.readers.get(&id).map(Vec::as_slice) {
            Some(&[reader]) => Some(reader),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{conv, graph, norm};
    use super::*;

    #[test]
    fn an_output_that_is_no_convolutions_result_is_refused() {
        let mut graph = graph(4, 2);
        let x = graph.node("conv", conv(2, 2), &[graph.input]);
        graph.output = graph.node("norm_out", norm(2), &[x]);
        let refused = rewrite(&graph, false).err().map(|error| error.to_string()).expect("refused");
        assert!(refused.starts_with("norm_out: the model output is not a convolution's result"), "{refused}");
    }

    #[test]
    fn room_for_the_unconditional_prediction_is_kept_for_classes_only() {
        let mut graph = graph(4, 2);
        graph.output = graph.node("conv", conv(2, 3), &[graph.input]);
        let plain = rewrite(&graph, true).expect("folds");
        assert_eq!((plain.unconditional, plain.conditioning, plain.ops.len()), (None, 0, 1));
        graph.classes = Some(graph::ClassEmbedding { classes: 1, table: vec![0.0; 2], ..Default::default() });
        let guided = rewrite(&graph, true).expect("folds");
        let unconditional = guided.unconditional.expect("kept");
        assert_eq!(guided.tensors[unconditional].shape, guided.tensors[guided.prediction].shape);
        assert_eq!(guided.tensors[guided.prediction].role, Role::Prediction);
        assert_eq!(guided.conditioning, 2);
        assert!(matches!(guided.ops.first(), Some((_, Op::Embed(_)))), "the class is embedded first");
        assert_eq!(rewrite(&graph, false).expect("folds").unconditional, None);
    }
}
