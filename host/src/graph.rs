//! The network as mathematics: what a checkpoint says, before any decision about memory or numbers.
//!
//! A [`Graph`] is a list of nodes in execution order over activations of shape (height, width, channels). It is in
//! single-assignment form: each tensor is written by one node. Importers ([`crate::import`]) build it, rewrites
//! ([`crate::rewrite`]) fold it into the operators that a device runs.

mod linear;
mod projection;

use std::fmt;

pub use linear::Linear;
pub use projection::{FrequencyOrder, Projection};
pub use waft::format::{Activation, Pass, Resampling};

/// Height, width and channels of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels, the innermost dimension.
    pub c: usize,
}

impl Shape {
    /// A shape of `h` rows, `w` columns and `c` channels.
    pub fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether any dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.h, self.w, self.c)
    }
}

/// Index of an activation in [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// An activation.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Where it comes from, for reports: the module path of the checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
}

/// A two-dimensional convolution with zero padding.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step in both directions.
    pub stride: usize,
    /// Rows and columns of zeros: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Row-major (outputs, kernel height, kernel width, inputs): PyTorch's OIHW permuted to OHWI.
    pub weight: Vec<f32>,
    /// One per output channel.
    pub bias: Vec<f32>,
}

/// Group normalization (Wu and He, 2018, arXiv:1803.08494, equations 1 and 7) with a per-channel affine map.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// Number of groups of consecutive channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Scale per channel.
    pub gamma: Vec<f32>,
    /// Offset per channel.
    pub beta: Vec<f32>,
}

/// Normalization over the channels of each pixel, with a per-channel affine map: layer normalization (Ba et al., 2016,
/// arXiv:1607.06450) or, if nothing is subtracted, RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// Whether the mean is subtracted.
    pub is_centered: bool,
    /// Added to the mean square.
    pub eps: f64,
    /// Scale per channel.
    pub gamma: Vec<f32>,
    /// Offset per channel.
    pub beta: Vec<f32>,
}

/// Learned keys and values of an attention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// How many.
    pub len: usize,
    /// Row-major (len, 2·channels): keys, then values.
    pub values: Vec<f32>,
}

/// What a node computes. Inputs are the activations in [`Node::inputs`], in order.
#[derive(Clone, Debug)]
pub enum Op {
    /// One input.
    Conv2d(Conv2d),
    /// One input.
    GroupNorm(GroupNorm),
    /// One input.
    LayerNorm(LayerNorm),
    /// A function of each element, one input.
    Activation(Activation),
    /// Elementwise sum of two inputs of the same shape.
    Add,
    /// Two inputs joined along the channels.
    Concat,
    /// Nearest-neighbour doubling of height and width, one input.
    Upsample,
    /// Half of the channels becomes the column of even number, the other half that of odd number, one input.
    Shuffle,
    /// Adds to every pixel the projection of the conditioning vector: `x + W·f(e) + b`, one input. `f` is the graph's
    /// [`activation`](Graph::activation).
    AddEmbedding(Linear),
    /// Scales and shifts every pixel by the projection of the conditioning vector: `(1 + s)·x + t` with `(s, t) = W·f(e) +
    /// b`, one input (Dhariwal and Nichol, 2021, arXiv:2105.05233, section 3: adaptive group normalization).
    ScaleShift(Linear),
    /// Modulates every pixel by the projection of the conditioning vector: `s·x + t` with `(s, t) = W·f(e) + b`, one input
    /// (Perez et al., 2018, FiLM, arXiv:1709.07871).
    Film(Linear),
    /// Scaled dot-product self-attention over pixels, three inputs Q, K, V of the same shape whose channels are
    /// `heads` runs of equal length: softmax(Q·Kᵀ·`scale`)·V (Vaswani et al., 2017, equation 1).
    Attention {
        /// Number of heads.
        heads: usize,
        /// Factor of the scores, 1/√(channels per head).
        scale: f32,
        /// Learned keys and values that every query sees before those of the pixels.
        memory: Memory,
    },
    /// Linear attention over pixels, inputs and heads as above: softmax(Q)·(softmax(Kᵀ)·V)·`gain`, keys normalized over the pixels,
    /// queries over the channels of a head (Shen et al., 2021, arXiv:1812.01243).
    LinearAttention {
        /// Number of heads.
        heads: usize,
        /// Factor of the result.
        gain: f32,
        /// Learned keys and values besides those of the pixels.
        memory: Memory,
    },
    /// Cubic halving or doubling along the rows, whose ends are reflected; one input.
    Filter(Resampling),
    /// An elementwise operation of a classifier: one input, or the gradient and the activation's input.
    Classifier(Pass),
    /// `gain·x + offset`, one input.
    Affine {
        /// Factor.
        gain: f32,
        /// Summand.
        offset: f32,
    },
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Module path of the checkpoint, for reports.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The activations it reads.
    pub inputs: Vec<TensorId>,
    /// The activation it writes.
    pub output: TensorId,
}

/// Embedding of the timestep: a vector through a two-layer perceptron (diffusers' `TimestepEmbedding`).
#[derive(Clone, Debug)]
pub struct TimeEmbedding {
    /// From the timestep to the perceptron's input.
    pub projection: Projection,
    /// `linear_1`.
    pub linear_1: Linear,
    /// What lies between.
    pub activation: Activation,
    /// `linear_2`.
    pub linear_2: Linear,
}

impl TimeEmbedding {
    /// The embedding of timestep `t`, before the class is added and before the activation. Computed in `f64` from `f32`
    /// parameters.
    ///
    /// # Panics
    /// If the projection has [no vector](Projection::missing) of `t`.
    pub fn embed(&self, t: f64) -> Vec<f64> {
        let vector = self.projection.of(t);
        let hidden: Vec<f64> = self.linear_1.apply(&vector).into_iter().map(|x| activate(self.activation, x)).collect();
        self.linear_2.apply(&hidden)
    }
}

/// An activation in `f64`.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + libm::exp(-x)),
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::Mish => x * libm::tanh(libm::log1p(libm::exp(x.min(40.0)))),
    }
}

/// A layer of the time embedding's perceptron.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// `linear_1`.
    First,
    /// `linear_2`.
    #[default]
    Second,
}

/// A table with one row per class that is added to the time embedding, or to the layer before.
#[derive(Clone, Debug, Default)]
pub struct ClassEmbedding {
    /// Number of rows.
    pub classes: usize,
    /// Whether any number is a class, and nobody said how many there are.
    pub is_assumed: bool,
    /// The layer whose result, before its activation, rows are added to.
    pub layer: Layer,
    /// Row-major (classes, outputs of the layer).
    pub table: Vec<f32>,
}

/// What a policy acts on. Normalized, it follows the time embedding in the conditioning vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// An element `x` of the observation enters as `(x − center)·gain`: a center and a gain for each.
    pub normalization: Vec<[f64; 2]>,
}

/// A classifier that guides: what the graph's nodes do not hold.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// From the timestep to the input of its layer.
    pub projection: Projection,
    /// From there to the elements of the conditioning vector that follow the network's own.
    pub time: Linear,
    /// Number of classes.
    pub classes: usize,
    /// The gradient of the class's log-probability with respect to the sample, times the step's
    /// [factor](crate::schedule::Step::gradient_factor).
    pub gradient: TensorId,
}

/// A network that predicts one tensor of the shape of its input, up to channels.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Every activation; the first is the network's input.
    pub tensors: Vec<Tensor>,
    /// Operations in execution order.
    pub nodes: Vec<Node>,
    /// The noisy sample.
    pub input: TensorId,
    /// What the network reads beside it and a run leaves as it is, if there is any.
    pub condition: Option<TensorId>,
    /// The prediction.
    pub output: TensorId,
    /// Timestep to conditioning vector.
    pub time: TimeEmbedding,
    /// What the conditioning vector passes through before it is projected.
    pub activation: Activation,
    /// Class to conditioning vector, if the model is class-conditional.
    pub classes: Option<ClassEmbedding>,
    /// What the network acts on, if it is a policy.
    pub observation: Option<Observation>,
    /// A channel `x` of the sample is an action `x·gain + offset`: a gain and an offset for each. Empty if it is a picture.
    pub actions: Vec<[f64; 2]>,
    /// Whether the prediction is the output divided by the timestep, as with Fourier features.
    pub over_timestep: bool,
    /// What the network says about the variance of a step's noise, if it learned that: of the prediction's shape.
    pub variance: Option<TensorId>,
    /// What guides it, if that is a classifier.
    pub classifier: Option<Classifier>,
    /// Number of parameters of the checkpoint.
    pub params: u64,
}

impl Graph {
    /// A network without operations that reads a sample of a shape, and nothing else but the timestep.
    pub fn new(sample: Shape, time: TimeEmbedding) -> Self {
        Self {
            tensors: vec![Tensor { name: "sample".into(), shape: sample }],
            nodes: vec![],
            input: TensorId(0),
            condition: None,
            output: TensorId(0),
            time,
            activation: Activation::Silu,
            classes: None,
            observation: None,
            actions: vec![],
            over_timestep: false,
            variance: None,
            classifier: None,
            params: 0,
        }
    }

    /// Number of classes that can be drawn, 0 for none.
    pub fn class_count(&self) -> usize {
        let own = self.classes.as_ref().map_or(0, |classes| classes.classes);
        self.classifier.as_ref().map_or(own, |classifier| classifier.classes)
    }

    /// The layer of the time embedding that classes are added to.
    pub fn class_layer(&self) -> Layer {
        self.classes.as_ref().map_or(Layer::Second, |classes| classes.layer)
    }

    /// Length of a class's row, and what follows the sum with it.
    pub fn class_row(&self) -> (usize, Activation) {
        match self.class_layer() {
            Layer::First => (self.time.linear_1.outputs, self.time.activation),
            Layer::Second => (self.time.linear_2.outputs, self.activation),
        }
    }

    /// What a step's timestep becomes before the class is added and the activation: the network's own part, then the
    /// classifier's.
    ///
    /// # Panics
    /// If the network has [no vector](Projection::missing) of it.
    pub fn embed(&self, timestep: f64) -> Vec<f64> {
        let mut embedding = match self.class_layer() {
            Layer::First => self.time.linear_1.apply(&self.time.projection.of(timestep)),
            Layer::Second => self.time.embed(timestep),
        };
        if let Some(classifier) = &self.classifier {
            embedding.extend(classifier.time.apply(&classifier.projection.of(timestep)));
        }
        embedding
    }

    /// The shape of an activation.
    pub fn shape(&self, id: TensorId) -> Shape {
        self.tensors[id.0].shape
    }

    /// Adds an activation.
    pub fn tensor(&mut self, name: impl Into<String>, shape: Shape) -> TensorId {
        self.tensors.push(Tensor { name: name.into(), shape });
        TensorId(self.tensors.len() - 1)
    }

    /// Makes two of the prediction: its first channels, and as many behind them, the learned variance, which a convolution of
    /// their own writes, the last node.
    ///
    /// # Panics
    /// If no convolution writes it, or an odd number of channels: a defect of the importer.
    pub fn split_variance(&mut self) {
        let writer = self.nodes.iter_mut().find(|node| node.output == self.output);
        let Some(Node { name, op: Op::Conv2d(conv), inputs, .. }) = writer else {
            panic!("a convolution writes the prediction")
        };
        assert!(conv.outputs.is_multiple_of(2), "{} channels are no prediction and variance", conv.outputs);
        conv.outputs /= 2;
        let mut variance = conv.clone();
        variance.weight = conv.weight.split_off(conv.weight.len() / 2);
        variance.bias = conv.bias.split_off(conv.bias.len() / 2);
        let (name, inputs) = (format!("{name} (variance)"), inputs.clone());
        self.tensors[self.output.0].shape.c /= 2;
        self.variance = Some(self.node(name, Op::Conv2d(variance), &inputs));
    }

    /// Leaves out the learned variance, if there is one, and says whether there was.
    pub fn drop_variance(&mut self) -> bool {
        let dropped = self.variance.take();
        self.nodes.retain(|node| Some(node.output) != dropped);
        dropped.is_some()
    }

    /// Adds an operation and the activation it writes, whose shape follows from the operation.
    ///
    /// # Panics
    /// If the operation does not fit its inputs: a defect of the importer, which has checked the checkpoint's shapes.
    pub fn node(&mut self, name: impl Into<String>, op: Op, inputs: &[TensorId]) -> TensorId {
        let name = name.into();
        let shapes: Vec<Shape> = inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = op.output_shape(&shapes).unwrap_or_else(|| panic!("{name}: {op:?} does not fit {shapes:?}"));
        let output = self.tensor(name.clone(), shape);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
        output
    }
}

impl Op {
    /// The shape of the result for inputs of the given shapes; `None` if they do not fit.
    pub fn output_shape(&self, inputs: &[Shape]) -> Option<Shape> {
        Some(match (self, inputs) {
            (Op::Conv2d(conv), [x]) if x.c == conv.inputs => {
                let [top, left, bottom, right] = conv.padding;
                let h = (x.h + top + bottom).checked_sub(conv.kernel[0])? / conv.stride + 1;
                let w = (x.w + left + right).checked_sub(conv.kernel[1])? / conv.stride + 1;
                Shape::new(h, w, conv.outputs)
            }
            (Op::GroupNorm(norm), [x]) if x.c == norm.gamma.len() && x.c.is_multiple_of(norm.groups) => *x,
            (Op::LayerNorm(norm), [x]) if x.c == norm.gamma.len() => *x,
            (Op::Activation(_) | Op::Affine { .. }, [x]) => *x,
            (Op::Filter(Resampling::Halve), [x]) if x.w >= 4 => Shape::new(x.h, x.w / 2, x.c),
            (Op::Filter(Resampling::Double), [x]) if x.w >= 3 => Shape::new(x.h, 2 * x.w, x.c),
            (Op::Classifier(Pass::Forward | Pass::Loss), [x]) => *x,
            (Op::Classifier(Pass::Backward | Pass::BackwardScaled), [gradient, x]) if gradient == x => *x,
            (Op::AddEmbedding(linear), [x]) if x.c == linear.outputs => *x,
            (Op::ScaleShift(linear) | Op::Film(linear), [x]) if 2 * x.c == linear.outputs => *x,
            (Op::Add, [a, b]) if a == b => *a,
            (Op::Concat, [a, b]) if (a.h, a.w) == (b.h, b.w) => Shape::new(a.h, a.w, a.c + b.c),
            (Op::Upsample, [x]) => Shape::new(2 * x.h, 2 * x.w, x.c),
            (Op::Shuffle, [x]) if x.c.is_multiple_of(2) => Shape::new(x.h, 2 * x.w, x.c / 2),
            (Op::Attention { heads, memory, .. } | Op::LinearAttention { heads, memory, .. }, [q, k, v])
                if q == k && k == v && q.c.is_multiple_of(*heads) && memory.values.len() == memory.len * 2 * q.c =>
            {
                *q
            }
            _ => return None,
        })
    }
}
