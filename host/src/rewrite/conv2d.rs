//! One convolution with all that folds into it.

use super::{RewriteError, Rewriter, scale};
use crate::graph::{self, Node, Op as GraphOp, Shape};
use crate::network::{Conv2d, Op, Role, TensorId};

/// What follows a convolution and folds into it.
struct Follow {
    /// The last activation that it computes.
    result: graph::TensorId,
    projection: Option<graph::Linear>,
    residual: Option<TensorId>,
    scale: f32,
    shuffle: bool,
}

impl Rewriter<'_> {
    /// Appends the convolution `node` with the weights `conv`, and what it needs before it; the tensor of its result.
    pub(super) fn conv2d(
        &mut self,
        node: &Node,
        mut conv: graph::Conv2d,
        role: Role,
    ) -> Result<TensorId, RewriteError> {
        self.done.insert(node.output);
        let gather = self.gather(node)?;
        let sources: Vec<TensorId> = gather.sources.iter().map(|id| self.placed[id]).collect();
        let norm = gather.norm.map(|node| self.group_norm(node, gather.scale_shift, &sources));
        let Follow { result, mut projection, residual, scale, shuffle } = self.follow(node, norm.is_none())?;
        scale::fold(scale, &mut conv, projection.as_mut());
        let projection = projection.map(|linear| self.projection(node, linear, &conv));

        let shape = self.graph.shape(result);
        let columns = self.network.tensors[sources[0]].shape.w * if gather.upsample { 2 } else { 1 };
        let computed = if shuffle { shape.w / 2 } else { shape.w };
        let reach = (computed - 1) * conv.stride + conv.kernel[1];
        let width = reach.max(conv.padding[1] + columns);
        let ring = Shape::new(conv.kernel[0], width, conv.inputs);
        let ring = self.network.tensor(format!("{} (ring)", node.name), ring, Role::Ring);
        // Keys and values are together more than the node's own.
        let channels = if shuffle { shape.c } else { conv.outputs };
        let output = self.network.tensor(node.name.clone(), Shape::new(shape.h, shape.w, channels), role);
        self.placed.insert(result, output);
        let op = Conv2d {
            sources,
            norm,
            activation: gather.activation,
            input_affine: gather.affine,
            upsample: gather.upsample,
            shuffle,
            conv,
            projection,
            residual: residual.map(|id| (id, scale)),
            ring,
            patches: None,
            tile_rows: 0,
            stored_tiles: false,
            ring_limit: 0,
            repeats: None,
            window: None,
            output,
        };
        self.push(node.name.clone(), Op::Conv2d(Box::new(op)));
        Ok(output)
    }

    /// Walks forward from a convolution over the projection, the sum and the factors that fold into it.
    fn follow(&mut self, node: &Node, is_raw: bool) -> Result<Follow, RewriteError> {
        let mut found = Follow { result: node.output, projection: None, residual: None, scale: 1.0, shuffle: false };
        while let Some(next) = self.only_reader(found.result) {
            let is_unscaled = found.residual.is_none() && found.scale == 1.0;
            match &next.op {
                GraphOp::AddEmbedding(linear) if found.projection.is_none() && is_unscaled => {
                    found.projection = Some(linear.clone());
                }
                GraphOp::Add if is_unscaled => match self.residual(node, is_raw, found.result, next)? {
                    None => break,
                    residual => found.residual = residual,
                },
                GraphOp::Affine { gain, offset } if *offset == 0.0 => found.scale *= gain,
                GraphOp::Shuffle if is_unscaled && found.projection.is_none() => {
                    (found.result, found.shuffle) = (next.output, true);
                    break;
                }
                _ => break,
            }
            found.result = next.output;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite;
    use super::super::testing::{conv, find, graph};
    use crate::graph::{Conv2d, Op, Shape};

    #[test]
    fn rings_hold_a_padded_row_for_each_row_of_the_kernel() {
        let mut graph = graph(5, 2);
        let a = graph.node("a", conv(2, 3), &[graph.input]);
        let strided = Conv2d {
            kernel: [3, 3],
            stride: 2,
            padding: [0, 0, 1, 1],
            inputs: 3,
            outputs: 2,
            weight: vec![1.0; 54],
            bias: vec![0.0; 2],
        };
        graph.output = graph.node("b", Op::Conv2d(strided), &[a]);
        let network = rewrite(&graph, false).expect("folds");
        let ring = |name| network.tensors[find(&network, name).ring].shape;
        assert_eq!(ring("a"), Shape::new(3, 5 + 2, 2));
        // Two outputs of stride 2 reach over five columns: the padding at the right is never read.
        assert_eq!(ring("b"), Shape::new(3, 5, 3));
    }

    #[test]
    fn results_that_several_nodes_read_stay() {
        let mut graph = graph(4, 2);
        let a = graph.node("a", conv(2, 2), &[graph.input]);
        let half = graph.node("half", Op::Affine { gain: 0.5, offset: 0.0 }, &[a]);
        let b = graph.node("b", conv(2, 2), &[half]);
        graph.output = graph.node("sum", Op::Add, &[a, b]);
        let network = rewrite(&graph, false).expect("folds");
        assert!(find(&network, "a").conv.weight.iter().all(|&w| w == 1.0), "the sum reads it without the factor");
        assert_eq!(find(&network, "b").input_affine, (0.5, 0.0));
    }
}
