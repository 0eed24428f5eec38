//! The `ClassConditionedUnet` of Hugging Face's diffusion course: a `UNet2DModel` whose input has the vector of the class as
//! constant channels behind the sample's.
//!
//! At its edges the first convolution sees zeros instead of them, so that they are more than its bias. They are a map of their
//! own, which is computed as other things that depend on the class are: from the conditioning vector, which has two elements
//! for each channel, `v` and `−v`, with `f(v) − f(−v)` the channel.

use super::super::ImportError;
use super::super::config::refuse;
use super::config::Config;
use super::kind::ClassEmbedding;
use crate::checkpoint::{CLASS_CONDITIONED, Checkpoint, MOST_CLASSES, NamedTensor};
use crate::graph::{self, Activation, Conv2d, Graph, Linear, Op, TensorId, activate};

/// The vectors of the classes.
pub(super) struct ClassChannels {
    /// Length of a vector.
    pub(super) width: usize,
    /// Row-major (classes, width).
    table: Vec<f32>,
}

/// Most channels of a class.
const WIDTH: usize = 64;

/// Imports the network.
pub(in super::super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let config = Config::read(checkpoint.config())?;
    let table = "class_emb.weight";
    let (classes, width) = match checkpoint.shape(table) {
        Some(&[classes, width])
            if (1..=MOST_CLASSES).contains(&classes) && (1..config.in_channels.min(WIDTH + 1)).contains(&width) =>
        {
            (classes, width)
        }
        found => {
            let what = format!("{table} has shape {found:?}, expected (classes, at most {WIDTH} channels)");
            return Err(ImportError::ClassTable { what, inputs: config.in_channels });
        }
    };
    if config.class_embed_type != ClassEmbedding::Table || config.num_class_embeds.is_some() {
        return Err(refuse(
            "num_class_embeds",
            "stated",
            "null: the classes of this network are channels of its input",
        ));
    }
    let defaults = checkpoint.defaults();
    for (field, is_said) in [
        ("classes", defaults.classes.is_some()),
        ("class_embeddings", checkpoint.class_vectors().is_some()),
        ("condition_channels", defaults.condition_channels.is_some()),
    ] {
        if is_said {
            let expected = format!("{table} says it; leave it out of waft.json and of the command line");
            return Err(refuse(field, "stated", expected));
        }
    }
    let beside = ClassChannels { width, table: checkpoint.tensor(table, &[classes, width])? };
    let mut tensors = vec![];
    for key in checkpoint.unused() {
        if let Some(name) = key.strip_prefix(CLASS_CONDITIONED) {
            let shape = checkpoint.shape(&key).unwrap_or_default().to_vec();
            let values = checkpoint.tensor(&key, &shape)?;
            tensors.push(NamedTensor { key: name.into(), shape, values });
        }
    }
    let inner = checkpoint.with_tensors(&tensors)?;
    let graph = super::build(&inner, &config, Some(beside))?;
    super::super::refuse_unused(&inner)?;
    Ok(Graph { params: checkpoint.params(), ..graph })
}

impl ClassChannels {
    /// The map of the class's channels, without their numbers yet: nothing of the sample, and a projection.
    pub(super) fn map(&self, graph: &mut Graph) -> TensorId {
        let (inputs, outputs) = (graph.shape(graph.input).c, self.width);
        let (weight, bias) = (vec![0.0; inputs * outputs], vec![0.0; outputs]);
        let nothing = Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs, outputs, weight, bias };
        let nothing = graph.node("class_emb (map)", Op::Conv2d(nothing), &[graph.input]);
        let length = graph.time.linear_2.outputs;
        let projection =
            Linear { inputs: length, outputs, weight: vec![0.0; length * outputs], bias: vec![0.0; outputs] };
        graph.node("class_emb", Op::AddEmbedding(projection), &[nothing])
    }

    /// Appends the class's elements to the conditioning vector, of which `map` reads these and everything else the others.
    pub(super) fn condition(&self, graph: &mut Graph, map: TensorId) {
        let (length, more) = (graph.time.linear_2.outputs, 2 * self.width);
        for node in &mut graph.nodes {
            let (Op::AddEmbedding(linear) | Op::ScaleShift(linear)) = &mut node.op else { continue };
            let output = |row: usize, column: usize| match column {
                _ if node.output != map || column / 2 != row => 0.0,
                _ if column.is_multiple_of(2) => 1.0,
                _ => -1.0,
            };
            let rows = linear.weight.chunks_exact(length).enumerate();
            linear.weight = rows
                .flat_map(|(at, row)| row.iter().copied().chain((0..more).map(move |column| output(at, column))))
                .collect();
            linear.inputs += more;
        }
        let last = &mut graph.time.linear_2;
        last.weight.resize(last.weight.len() + more * last.inputs, 0.0);
        last.bias.resize(length + more, 0.0);
        last.outputs += more;
        let activation = graph.activation;
        let row = |vector: &[f32]| {
            let elements = vector.iter().flat_map(|&channel| {
                let element = odd_inverse(activation, f64::from(channel)) as f32;
                [element, -element]
            });
            vec![0.0; length].into_iter().chain(elements).collect::<Vec<f32>>()
        };
        let table = self.table.chunks_exact(self.width).flat_map(row).collect();
        let classes = self.table.len() / self.width;
        graph.classes = Some(graph::ClassEmbedding { classes, table, ..Default::default() });
    }
}

/// The `v` with `f(v) − f(−v) = y`. For functions `x·g(x)` with `g(x) + g(−x) = 1` it is `y`; Mish's is found by bisection, as the
/// left side grows with `v`, from 1.2·v at 0 to v.
fn odd_inverse(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Silu | Activation::Gelu | Activation::Relu => y,
        Activation::Mish => {
            let (mut low, mut high) = (0.0, y.abs() + 1.0);
            for _ in 0..80 {
                let middle = 0.5 * (low + high);
                let found = activate(activation, middle) - activate(activation, -middle);
                if found < y.abs() { low = middle } else { high = middle }
            }
            low.copysign(y)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_has_an_inverse() {
        for activation in [Activation::Silu, Activation::Gelu, Activation::Relu, Activation::Mish] {
            for y in [0.0, 1e-3, -0.4, 1.7, -3.0, 20.0] {
                let v = odd_inverse(activation, y);
                let found = activate(activation, v) - activate(activation, -v);
                assert!((found - y).abs() < 1e-9, "{activation:?}: {found} but {y}");
            }
        }
    }
}
