//! Rewrites: from the mathematics of a [`Graph`] to the five operations that a device runs.
//!
//! - GroupNorm becomes statistics and a per-channel affine map; the map, the SiLU behind it, nearest upsampling, the
//!   join of a skip connection and an affine input map all fold into the gather of the convolution that reads them.
//! - The projection of the conditioning vector becomes the bias of the convolution before it.
//! - A sum becomes the residual of the convolution that computes its later operand, a factor behind it goes into that
//!   convolution's weights and the residual's gain.
//! - Keys and values come from one convolution, the context is written over the queries.
//!
//! What cannot be folded is refused with the node's name: nothing is materialised behind the caller's back.

use std::collections::HashMap;

use thiserror::Error;

use crate::graph::{Conv2d, Graph, GroupNorm, Linear, Node, Op as GraphOp, Shape, TensorId};

/// A graph that does not fold into the device's operations.
#[derive(Debug, Error)]
#[error("{node}: {what}; waft has no operation for this, please report the configuration")]
pub struct LowerError {
    /// The graph's node.
    pub node: String,
    /// What does not fold.
    pub what: &'static str,
}

/// What a tensor of the plan is for; its element type follows from this and the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The sample `x_t`.
    Sample,
    /// The model output.
    Prediction,
    /// The unconditional model output, kept for guidance.
    Unconditional,
    /// An activation between convolutions: residual stream, skip, or the inside of a block.
    Stream,
    /// Queries, or keys and values, or context.
    Attention,
    /// Per-channel affine map of a normalization.
    Norm,
    /// The conditioning vector.
    Conditioning,
    /// A projection of it.
    Bias,
    /// Scores of one attention row.
    Scores,
    /// A convolution's ring of rows.
    Ring,
    /// What streamed weights pass through.
    Window,
}

/// A tensor of the plan.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// For reports.
    pub name: String,
    /// Rows, columns, channels.
    pub shape: Shape,
    /// What it is for.
    pub role: Role,
}

/// Index into [`Network::tensors`].
pub type Id = usize;

/// A convolution with everything folded into it.
#[derive(Clone, Debug)]
pub struct Conv {
    /// One or two inputs, joined along the channels.
    pub sources: Vec<Id>,
    /// Affine map of the joined channels.
    pub norm: Option<Id>,
    /// Whether SiLU follows the affine map.
    pub silu: bool,
    /// A raw input enters as `gain·x + offset`.
    pub input_affine: (f32, f32),
    /// Whether rows and columns are doubled first.
    pub upsample: bool,
    /// Kernel, weights and constant bias, factors folded in.
    pub conv: Conv2d,
    /// Projection of the conditioning vector, with the constant bias and factors folded in, and the tensor that holds
    /// it; `None` if the schedules carry it as per-step biases.
    pub projection: Option<(Linear, Option<Id>)>,
    /// Tensor that is added and its factor.
    pub residual: Option<(Id, f32)>,
    /// The ring.
    pub ring: Id,
    /// Whether the `i8` precision keeps the weights in four bits.
    pub four_bits: bool,
    /// How the weights are streamed, if they are.
    pub window: Option<Window>,
    /// The result.
    pub output: Id,
}

/// How a convolution's weights pass through the arena.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The memory.
    pub tensor: Id,
    /// Blocks of eight output channels in a chunk.
    pub blocks: usize,
    /// Number of chunks.
    pub chunks: usize,
}

/// One operation of the plan.
#[derive(Clone, Debug)]
pub enum Op {
    /// `silu(time + class)`.
    Embed {
        /// The conditioning vector.
        output: Id,
    },
    /// The projection of the conditioning vector for the convolution that follows at `conv` in [`Network::ops`].
    Linear {
        /// The conditioning vector.
        source: Id,
        /// Weights and bias; the bias includes the convolution's.
        linear: Linear,
        /// The bias vector.
        output: Id,
    },
    /// Statistics of a normalization.
    Norm {
        /// One or two inputs, joined along the channels.
        sources: Vec<Id>,
        /// Groups, epsilon, factors and summands.
        norm: GroupNorm,
        /// The affine map.
        output: Id,
    },
    /// A convolution.
    Conv(Box<Conv>),
    /// Attention of `query` over `key_value`, written over the queries.
    Attention {
        /// Queries.
        query: Id,
        /// Keys, then values.
        key_value: Id,
        /// Number of heads.
        heads: usize,
        /// Factor of the scores.
        scale: f32,
        /// Scores of one row.
        scratch: Id,
        /// Context, in the place of the queries.
        output: Id,
    },
}

impl Op {
    /// The tensor it computes.
    pub fn output(&self) -> Id {
        match self {
            Op::Embed { output } | Op::Linear { output, .. } | Op::Norm { output, .. } => *output,
            Op::Attention { output, .. } => *output,
            Op::Conv(conv) => conv.output,
        }
    }

    /// The tensors it reads, scratch excluded.
    pub fn inputs(&self) -> Vec<Id> {
        match self {
            Op::Embed { .. } => vec![],
            Op::Linear { source, .. } => vec![*source],
            Op::Norm { sources, .. } => sources.clone(),
            Op::Attention { query, key_value, .. } => vec![*query, *key_value],
            Op::Conv(conv) => {
                let bias = conv.projection.as_ref().and_then(|(_, id)| *id);
                let residual = conv.residual.map(|(id, _)| id);
                conv.sources.iter().copied().chain(conv.norm).chain(residual).chain(bias).collect()
            }
        }
    }

    /// The tensors it uses only while it runs.
    pub fn scratch(&self) -> Vec<Id> {
        match self {
            Op::Conv(conv) => conv.window.map(|window| window.tensor).into_iter().chain([conv.ring]).collect(),
            Op::Attention { scratch, .. } => vec![*scratch],
            _ => vec![],
        }
    }
}

/// The operations of one network call, in execution order.
#[derive(Clone, Debug)]
pub struct Network {
    /// Every tensor.
    pub tensors: Vec<Tensor>,
    /// Operations with the name of the graph's node that they compute.
    pub ops: Vec<(String, Op)>,
    /// The sample.
    pub sample: Id,
    /// The model output.
    pub prediction: Id,
    /// The kept unconditional output, if the plan allows for guidance.
    pub unconditional: Option<Id>,
    /// Length of the conditioning vector; 0 if everything that depends on the timestep is a per-step bias.
    pub conditioning: usize,
}

impl Network {
    /// Multiply-accumulates of one call, padding taps included.
    pub fn macs(&self) -> u64 {
        self.ops
            .iter()
            .map(|(_, op)| match op {
                Op::Conv(conv) => {
                    let taps = conv.conv.kernel[0] * conv.conv.kernel[1] * conv.conv.inputs;
                    (self.tensors[conv.output].shape.len() * taps) as u64
                }
                Op::Linear { linear, .. } => (linear.inputs * linear.outputs) as u64,
                Op::Attention { query, .. } => {
                    let shape = self.tensors[*query].shape;
                    (2 * shape.pixels() * shape.len()) as u64
                }
                Op::Embed { .. } | Op::Norm { .. } => 0,
            })
            .sum()
    }
}

/// What a convolution's input is made of, traced back from it.
struct Gathered {
    sources: Vec<TensorId>,
    norm: Option<usize>,
    silu: bool,
    affine: (f32, f32),
    upsample: bool,
}

struct Lowering<'g> {
    graph: &'g Graph,
    /// The node that writes each tensor.
    writer: HashMap<TensorId, usize>,
    /// The nodes that read each tensor.
    readers: HashMap<TensorId, Vec<usize>>,
    network: Network,
    /// The plan's tensor for each tensor of the graph that exists in it.
    ids: HashMap<TensorId, Id>,
    /// The plan's map for each GroupNorm node.
    norms: HashMap<usize, Id>,
    conditioning: Option<Id>,
}

/// Folds `graph` into device operations. `guidance` keeps room for the unconditional output; only models with classes
/// can use it.
///
/// # Errors
/// If some node cannot be folded.
pub fn lower(graph: &Graph, guidance: bool) -> Result<Network, LowerError> {
    let mut writer = HashMap::new();
    let mut readers: HashMap<TensorId, Vec<usize>> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        writer.insert(node.output, index);
        for &input in &node.inputs {
            readers.entry(input).or_default().push(index);
        }
    }
    let sample = Tensor { name: "sample".into(), shape: graph.shape(graph.input), role: Role::Sample };
    let network =
        Network { tensors: vec![sample], ops: vec![], sample: 0, prediction: 0, unconditional: None, conditioning: 0 };
    let ids = HashMap::from([(graph.input, 0)]);
    let mut lowering = Lowering { graph, writer, readers, network, ids, norms: HashMap::new(), conditioning: None };
    lowering.run(guidance)?;
    let mut network = lowering.network;
    hoist_shortcuts(&mut network);
    Ok(network)
}

impl Lowering<'_> {
    fn tensor(&mut self, name: impl Into<String>, shape: Shape, role: Role) -> Id {
        self.network.tensors.push(Tensor { name: name.into(), shape, role });
        self.network.tensors.len() - 1
    }

    fn only_reader(&self, id: TensorId) -> Option<usize> {
        match self.readers.get(&id).map(Vec::as_slice) {
            Some(&[reader]) => Some(reader),
            _ => None,
        }
    }

    fn run(&mut self, guidance: bool) -> Result<(), LowerError> {
        if self.graph.classes.is_some() {
            let length = self.graph.time.linear_2.outputs;
            self.network.conditioning = length;
            let output = self.tensor("conditioning", Shape::new(1, 1, length), Role::Conditioning);
            self.conditioning = Some(output);
            self.network.ops.push(("conditioning".into(), Op::Embed { output }));
        }
        for index in 0..self.graph.nodes.len() {
            let node = &self.graph.nodes[index];
            match &node.op {
                GraphOp::Conv2d(conv) if !self.feeds_attention(node) && !self.is_done(node) => {
                    self.conv(node, conv.clone(), node.output, Role::Stream)?;
                }
                GraphOp::Attention { heads, scale } => self.attention(node, *heads, *scale)?,
                // Folded into a convolution when that is reached.
                _ => {}
            }
        }
        let output = self.graph.output;
        let missing = LowerError { node: "output".into(), what: "the model output is not a convolution's result" };
        self.network.prediction = *self.ids.get(&output).ok_or(missing)?;
        self.network.tensors[self.network.prediction].role = Role::Prediction;
        let prediction = self.network.tensors[self.network.prediction].clone();
        if guidance && self.graph.classes.is_some() {
            let id = self.tensor("unconditional prediction", prediction.shape, Role::Unconditional);
            self.network.unconditional = Some(id);
        }
        Ok(())
    }

    fn feeds_attention(&self, node: &Node) -> bool {
        let reader = self.only_reader(node.output).map(|reader| &self.graph.nodes[reader].op);
        matches!(reader, Some(GraphOp::Attention { .. }))
    }

    /// Whether a convolution was brought forward.
    fn is_done(&self, node: &Node) -> bool {
        self.network.ops.iter().any(|(name, op)| *name == node.name && matches!(op, Op::Conv(_)))
    }

    /// Traces a convolution's input back to tensors that exist in the plan.
    fn gather(&self, node: &Node, input: TensorId) -> Result<Gathered, LowerError> {
        let refuse = |what| LowerError { node: node.name.clone(), what };
        let mut found = Gathered { sources: vec![], norm: None, silu: false, affine: (1.0, 0.0), upsample: false };
        let mut at = input;
        loop {
            if self.ids.contains_key(&at) {
                found.sources = vec![at];
                return Ok(found);
            }
            let writer = *self.writer.get(&at).ok_or_else(|| refuse("reads a tensor that nothing writes"))?;
            let before = &self.graph.nodes[writer];
            match &before.op {
                GraphOp::Silu if !found.silu && found.norm.is_none() => found.silu = true,
                GraphOp::GroupNorm(_) if found.norm.is_none() => found.norm = Some(writer),
                GraphOp::Upsample if !found.upsample && found.norm.is_none() && !found.silu => found.upsample = true,
                GraphOp::Affine { gain, offset } if found.norm.is_none() && !found.silu => {
                    found.affine = (found.affine.0 * gain, found.affine.0 * offset + found.affine.1);
                }
                GraphOp::Concat => {
                    if !before.inputs.iter().all(|input| self.ids.contains_key(input)) {
                        return Err(refuse("joins tensors that are not results of convolutions"));
                    }
                    found.sources.clone_from(&before.inputs);
                    break;
                }
                _ => return Err(refuse("reads the result of an operation that does not fold into it")),
            }
            at = before.inputs[0];
        }
        Ok(found)
    }

    /// The plan's affine map of a GroupNorm node over the given sources.
    fn norm(&mut self, index: usize, sources: &[Id]) -> Id {
        if let Some(&id) = self.norms.get(&index) {
            return id;
        }
        let node = &self.graph.nodes[index];
        let GraphOp::GroupNorm(norm) = &node.op else { unreachable!("gather finds GroupNorm nodes only") };
        let shape = Shape::new(1, norm.gamma.len(), 2);
        let output = self.tensor(format!("{} (map)", node.name), shape, Role::Norm);
        let op = Op::Norm { sources: sources.to_vec(), norm: norm.clone(), output };
        self.network.ops.push((node.name.clone(), op));
        self.norms.insert(index, output);
        output
    }

    /// Emits a convolution with all that folds into it, and what that needs before it.
    fn conv(&mut self, node: &Node, mut conv: Conv2d, from: TensorId, role: Role) -> Result<Id, LowerError> {
        let refuse = |what| LowerError { node: node.name.clone(), what };
        let gathered = self.gather(node, node.inputs[0])?;
        if gathered.silu && gathered.norm.is_none() {
            return Err(refuse("applies SiLU without a normalization before it"));
        }
        let sources: Vec<Id> = gathered.sources.iter().map(|id| self.ids[id]).collect();
        let norm = gathered.norm.map(|index| self.norm(index, &sources));

        // Forward: the projection, the sum and the factor that follow.
        let mut result = from;
        let mut projection = None;
        let mut residual = None;
        let mut scale = 1.0;
        while let Some(reader) = self.only_reader(result) {
            let next = &self.graph.nodes[reader];
            match &next.op {
                GraphOp::AddEmbedding(linear) if projection.is_none() && residual.is_none() && scale == 1.0 => {
                    projection = Some(linear.clone());
                }
                GraphOp::Add if residual.is_none() && scale == 1.0 => {
                    let other = if next.inputs[0] == result { next.inputs[1] } else { next.inputs[0] };
                    // The operand that is there already becomes the residual; a shortcut is brought forward, and one
                    // that comes first waits.
                    let id = match (self.ids.get(&other), self.pending_conv(other)) {
                        (Some(&id), _) => id,
                        (None, Some(_)) if gathered.norm.is_none() => break,
                        (None, Some(shortcut)) => {
                            let shortcut = &self.graph.nodes[shortcut];
                            let GraphOp::Conv2d(conv) = &shortcut.op else { unreachable!("pending_conv finds these") };
                            self.conv(shortcut, conv.clone(), shortcut.output, Role::Stream)?
                        }
                        (None, None) => return Err(refuse("is added to what is not a convolution's result")),
                    };
                    residual = Some(id);
                }
                GraphOp::Affine { gain, offset } if *offset == 0.0 => scale *= gain,
                _ => break,
            }
            result = next.output;
        }
        if scale != 1.0 {
            conv.weight.iter_mut().chain(&mut conv.bias).for_each(|w| *w *= scale);
            if let Some(linear) = &mut projection {
                linear.weight.iter_mut().chain(&mut linear.bias).for_each(|w| *w *= scale);
            }
        }
        let projection = projection.map(|linear| self.projection(node, linear, &conv));
        let shape = self.graph.shape(result);
        let columns = self.network.tensors[sources[0]].shape.w * if gathered.upsample { 2 } else { 1 };
        let reach = (shape.w - 1) * conv.stride + conv.kernel[1];
        let width = reach.max(conv.padding[1] + columns);
        let ring = Shape::new(conv.kernel[0], width, conv.inputs);
        let ring = self.tensor(format!("{} (ring)", node.name), ring, Role::Ring);
        let output = self.tensor(node.name.clone(), shape, role);
        self.ids.insert(result, output);
        let op = Conv {
            sources,
            norm,
            silu: gathered.silu,
            input_affine: gathered.affine,
            upsample: gathered.upsample,
            conv,
            projection,
            residual: residual.map(|id| (id, scale)),
            ring,
            four_bits: false,
            window: None,
            output,
        };
        self.network.ops.push((node.name.clone(), Op::Conv(Box::new(op))));
        Ok(output)
    }

    /// The convolution that writes `operand` of a sum.
    fn pending_conv(&self, operand: TensorId) -> Option<usize> {
        let &writer = self.writer.get(&operand)?;
        matches!(self.graph.nodes[writer].op, GraphOp::Conv2d(_)).then_some(writer)
    }

    /// The bias vector of a convolution that the conditioning vector shifts.
    fn projection(&mut self, node: &Node, mut linear: Linear, conv: &Conv2d) -> (Linear, Option<Id>) {
        for (bias, &constant) in linear.bias.iter_mut().zip(&conv.bias) {
            *bias += constant;
        }
        let Some(source) = self.conditioning else { return (linear, None) };
        let name = format!("{} (bias)", node.name);
        let output = self.tensor(name.clone(), Shape::new(1, 1, linear.outputs), Role::Bias);
        self.network.ops.push((name, Op::Linear { source, linear: linear.clone(), output }));
        (linear, Some(output))
    }

    /// Emits the three projections, as two convolutions, and the attention itself.
    fn attention(&mut self, node: &Node, heads: usize, scale: f32) -> Result<(), LowerError> {
        let refuse = |what| LowerError { node: node.name.clone(), what };
        let mut projections = vec![];
        for &input in &node.inputs {
            let writer = &self.graph.nodes[*self.writer.get(&input).ok_or_else(|| refuse("has no input"))?];
            let GraphOp::Conv2d(conv) = &writer.op else {
                return Err(refuse("reads something else than projections"));
            };
            projections.push((writer, conv.clone()));
        }
        let [(query, query_conv), (key, key_conv), (value, value_conv)] =
            <[_; 3]>::try_from(projections).map_err(|_| refuse("needs queries, keys and values"))?;
        if query.inputs != key.inputs || key.inputs != value.inputs {
            return Err(refuse("reads queries, keys and values from different tensors"));
        }
        let query_id = self.conv(query, query_conv, query.output, Role::Attention)?;
        let mut both = key_conv;
        both.weight.extend(value_conv.weight);
        both.bias.extend(value_conv.bias);
        both.outputs += value_conv.outputs;
        let joint = Node { name: format!("{}+v", key.name), ..key.clone() };
        let key_value = self.conv(&joint, both, key.output, Role::Attention)?;
        let shape = self.graph.shape(query.output);
        self.network.tensors[key_value].shape.c = 2 * shape.c;
        let scratch = self.tensor(format!("{} (scores)", node.name), Shape::new(1, 1, shape.pixels()), Role::Scores);
        let output = self.tensor(node.name.clone(), shape, Role::Attention);
        self.ids.insert(node.output, output);
        let op = Op::Attention { query: query_id, key_value, heads, scale, scratch, output };
        self.network.ops.push((node.name.clone(), op));
        Ok(())
    }
}

/// Moves each raw convolution without a residual up to the last operation that shares an input with it: its inputs die
/// there, and its result is smaller.
fn hoist_shortcuts(network: &mut Network) {
    for index in 0..network.ops.len() {
        let Op::Conv(conv) = &network.ops[index].1 else { continue };
        if conv.norm.is_some() || conv.residual.is_some() || conv.projection.is_some() {
            continue;
        }
        let sources = conv.sources.clone();
        let touches = |op: &Op| sources.iter().any(|id| op.output() == *id || op.inputs().contains(id));
        if let Some(last) = (0..index).rev().find(|&i| touches(&network.ops[i].1))
            && last + 1 < index
        {
            let op = network.ops.remove(index);
            network.ops.insert(last + 1, op);
        }
    }
}
