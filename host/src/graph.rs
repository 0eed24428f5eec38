//! The network as mathematics: what a checkpoint says, before any decision about memory or numbers.
//!
//! A [`Graph`] is a list of nodes in execution order over activations of shape (height, width, channels). It is in
//! single-assignment form: each tensor is written by one node. Importers ([`crate::import`]) build it, rewrites
//! ([`crate::rewrite`]) fold it into the operators that a device runs.

use std::fmt;

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

/// A dense layer `y = W·x + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Length of `x`.
    pub inputs: usize,
    /// Length of `y`.
    pub outputs: usize,
    /// Row-major (outputs, inputs).
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
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

/// What a node computes. Inputs are the activations in [`Node::inputs`], in order.
#[derive(Clone, Debug)]
pub enum Op {
    /// One input.
    Conv2d(Conv2d),
    /// One input.
    GroupNorm(GroupNorm),
    /// `x·sigmoid(x)`, one input.
    Silu,
    /// Elementwise sum of two inputs of the same shape.
    Add,
    /// Two inputs joined along the channels.
    Concat,
    /// Nearest-neighbour doubling of height and width, one input.
    Upsample,
    /// Adds to every pixel the projection of the conditioning vector: `x + W·silu(e) + b`, one input.
    AddEmbedding(Linear),
    /// Scaled dot-product self-attention over pixels, three inputs Q, K, V of the same shape whose channels are
    /// `heads` runs of equal length: softmax(Q·Kᵀ·`scale`)·V (Vaswani et al., 2017, equation 1).
    Attention {
        /// Number of heads.
        heads: usize,
        /// Factor of the scores, 1/√(channels per head).
        scale: f32,
    },
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

/// Sinusoidal embedding of the timestep followed by a two-layer perceptron with SiLU between
/// (Ho et al., 2020, appendix B; diffusers' `Timesteps` and `TimestepEmbedding`).
#[derive(Clone, Debug)]
pub struct TimeEmbedding {
    /// Length of the sinusoidal vector, even.
    pub channels: usize,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the exponent's divisor.
    pub freq_shift: f64,
    /// `linear_1`.
    pub linear_1: Linear,
    /// `linear_2`.
    pub linear_2: Linear,
}

impl TimeEmbedding {
    /// The embedding of timestep `t`, before the class is added and before the SiLU. Computed in `f64` from `f32`
    /// parameters.
    pub fn embed(&self, t: f64) -> Vec<f64> {
        let half = self.channels / 2;
        let mut sinusoid = vec![0.0; self.channels];
        for i in 0..half {
            // `libm`, not the platform's functions: an export is the same on every host.
            let frequency = libm::exp(-libm::log(10_000.0) * i as f64 / (half as f64 - self.freq_shift));
            let (sin, cos) = libm::sincos(t * frequency);
            let (first, second) = if self.flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            sinusoid[i] = first;
            sinusoid[half + i] = second;
        }
        let hidden: Vec<f64> = self.linear_1.apply(&sinusoid).into_iter().map(silu).collect();
        self.linear_2.apply(&hidden)
    }
}

impl Linear {
    /// `W·x + b` in `f64`.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.weight
            .chunks_exact(self.inputs)
            .zip(&self.bias)
            .map(|(row, &b)| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * x).sum::<f64>() + f64::from(b))
            .collect()
    }
}

/// `x·sigmoid(x)` (Hendrycks and Gimpel, 2016; also called swish).
pub fn silu(x: f64) -> f64 {
    x / (1.0 + libm::exp(-x))
}

/// A table with one row per class that is added to the time embedding.
#[derive(Clone, Debug)]
pub struct ClassEmbedding {
    /// Number of rows.
    pub classes: usize,
    /// Row-major (classes, embedding length).
    pub table: Vec<f32>,
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
    /// The prediction.
    pub output: TensorId,
    /// Timestep to conditioning vector.
    pub time: TimeEmbedding,
    /// Class to conditioning vector, if the model is class-conditional.
    pub classes: Option<ClassEmbedding>,
    /// Number of parameters of the checkpoint.
    pub params: u64,
}

impl Graph {
    /// The shape of an activation.
    pub fn shape(&self, id: TensorId) -> Shape {
        self.tensors[id.0].shape
    }

    /// Adds an activation.
    pub fn tensor(&mut self, name: impl Into<String>, shape: Shape) -> TensorId {
        self.tensors.push(Tensor { name: name.into(), shape });
        TensorId(self.tensors.len() - 1)
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
            (Op::Silu | Op::Affine { .. }, [x]) => *x,
            (Op::AddEmbedding(linear), [x]) if x.c == linear.outputs => *x,
            (Op::Add, [a, b]) if a == b => *a,
            (Op::Concat, [a, b]) if (a.h, a.w) == (b.h, b.w) => Shape::new(a.h, a.w, a.c + b.c),
            (Op::Upsample, [x]) => Shape::new(2 * x.h, 2 * x.w, x.c),
            (Op::Attention { heads, .. }, [q, k, v]) if q == k && k == v && q.c.is_multiple_of(*heads) => *q,
            _ => return None,
        })
    }
}
