//! A noise-aware classifier for guidance (Dhariwal and Nichol, 2021, arXiv:2105.05233, section 4): its forward pass, and the gradient
//! of a class's log-probability with respect to the sample, traced back node by node. Both follow the network's own nodes in its
//! graph.
//!
//! A folder holds `config.json` and `classifier.safetensors`, as `models/digits/train_classifier.py` writes them: 3×3 convolutions
//! with zero padding (`convs.N`), each averaged over 2×2 pixels where `pools` says so, shifted by a projection (`times.N`) of
//! the time embedding `silu(W·t + b)` (`time`) of diffusers' sinusoids (cosines first), and activated by SiLU; then a linear layer
//! (`head`) over all that is left, channels first.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use waft::format::Pass;

use crate::graph::{Activation, Classifier, Conv2d, FrequencyOrder, Graph, Linear, Op, Projection, Shape, TensorId};
use crate::schedule::{ScheduleError, SchedulerConfig};
use crate::tensors::{self, Tensors, TensorsError};

/// Longest side of a kernel of the device.
const MOST_KERNEL: usize = 15;
/// Most channels and classes.
const MOST_CHANNELS: usize = 4096;

/// Why a classifier is refused.
#[derive(Debug, Error)]
pub enum ClassifierError {
    /// Its configuration cannot be read.
    #[error("{path}: {what}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Its tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// A field that contradicts the others.
    #[error("the classifier's config.json: {field} = {value}: {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A classifier of other pictures.
    #[error("the classifier reads {classifier}, the network draws {network}; train one for these pictures")]
    Sample {
        /// What it reads.
        classifier: Shape,
        /// What the network draws.
        network: Shape,
    },
    /// A classifier of other classes.
    #[error("the classifier tells {classifier} classes apart, the network draws {network}; train one for its classes")]
    Classes {
        /// Those of the classifier.
        classifier: usize,
        /// Those of the network, without the one that means "no class".
        network: usize,
    },
    /// A classifier of other noise.
    #[error(
        "the classifier was trained with other noise levels: at timestep {timestep} its signal is {classifier:.6}, the \
         network's {network:.6} (ᾱ); train one with the network's scheduler"
    )]
    Noise {
        /// The first timestep at which they differ.
        timestep: usize,
        /// ᾱ of the classifier's scheduler; 0 where it has no such timestep.
        classifier: f32,
        /// ᾱ of the network's.
        network: f32,
    },
    /// The scheduler in its configuration cannot be read.
    #[error("the classifier's scheduler: {0}")]
    Schedule(#[from] ScheduleError),
    /// A network that no classifier can guide.
    #[error("{0}; a classifier cannot guide it")]
    Network(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    sample_size: usize,
    in_channels: usize,
    channels: Vec<usize>,
    pools: Vec<bool>,
    time_embedding_dim: usize,
    num_classes: usize,
    scheduler: Value,
}

impl Config {
    fn read(folder: &Path) -> Result<Self, ClassifierError> {
        let path = folder.join("config.json");
        let refuse = |what: String| ClassifierError::Config { path: path.clone(), what };
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        let config: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ClassifierError> {
        let refuse = |field, value: String, expected: &str| {
            Err(ClassifierError::Field { field, value, expected: expected.into() })
        };
        let sizes = [self.in_channels, self.num_classes].into_iter().chain(self.channels.iter().copied());
        if self.channels.is_empty() || !sizes.into_iter().all(|size| (1..=MOST_CHANNELS).contains(&size)) {
            let found = format!("{:?} from {} to {}", self.channels, self.in_channels, self.num_classes);
            return refuse("channels", found, "one convolution or more, each of 1 to 4096 channels and classes");
        }
        if self.pools.len() != self.channels.len() {
            return refuse("pools", format!("{:?}", self.pools), "one entry for each of channels");
        }
        let dim = self.time_embedding_dim;
        if !(4..=MOST_CHANNELS).contains(&dim) || !dim.is_multiple_of(2) {
            return refuse("time_embedding_dim", dim.to_string(), "an even number from 4 to 4096");
        }
        let halvings = self.pools.iter().filter(|&&pool| pool).count() as u32;
        let factor = 1usize.checked_shl(halvings).unwrap_or(0);
        if factor == 0 || !self.sample_size.is_multiple_of(factor) {
            return refuse("sample_size", self.sample_size.to_string(), "a multiple of two for each of pools");
        }
        if !(1..=MOST_KERNEL).contains(&(self.sample_size / factor)) {
            let expected = "1 to 15 pixels a side before the linear layer: more or fewer pools";
            return refuse("sample_size", self.sample_size.to_string(), expected);
        }
        Ok(())
    }
}

/// Reads the classifier in `folder`, checks that it is one for the graph's pictures and classes and for the noise of `scheduler`, and
/// appends it and its gradient. `classes` are those that the network draws, without the one that means "no class"; 0 if it draws
/// without.
///
/// # Errors
/// If it cannot be read, or does not fit.
pub fn add_classifier(
    graph: &mut Graph,
    folder: &Path,
    scheduler: &SchedulerConfig,
    classes: usize,
) -> Result<(), ClassifierError> {
    let config = Config::read(folder)?;
    let sample = graph.shape(graph.input);
    let shape = Shape::new(config.sample_size, config.sample_size, config.in_channels);
    if graph.observation.is_some() {
        return Err(ClassifierError::Network("the network is a policy"));
    }
    if graph.activation != Activation::Silu {
        return Err(ClassifierError::Network("the network's time embedding has another activation than SiLU"));
    }
    if sample != shape {
        return Err(ClassifierError::Sample { classifier: shape, network: sample });
    }
    if classes != 0 && classes != config.num_classes {
        return Err(ClassifierError::Classes { classifier: config.num_classes, network: classes });
    }
    check_noise(&config, scheduler)?;
    let path = folder.join("classifier.safetensors");
    let file = tensors::read(&path)?;
    let mut reader = Reader { file, read: vec![] };
    let parts = Parts::read(&config, &mut reader)?;
    let read: Vec<&str> = reader.read.iter().map(String::as_str).collect();
    let unused = reader.file.others(&read);
    if !unused.is_empty() {
        let what = format!("holds tensors that config.json does not explain: {}", unused.join(", "));
        return Err(ClassifierError::Config { path, what });
    }
    graph.params += parts.params();
    append(graph, &config, parts);
    Ok(())
}

/// Whether the classifier has seen the noise of the network's timesteps.
fn check_noise(config: &Config, scheduler: &SchedulerConfig) -> Result<(), ClassifierError> {
    let own = SchedulerConfig::from_json(&config.scheduler.to_string())?;
    if !own.follows_betas() || !scheduler.follows_betas() {
        let what = "the noise levels of the network's scheduler or the classifier's do not follow from betas";
        return Err(ClassifierError::Network(what));
    }
    let own = own.alphas_cumprod();
    for (timestep, &network) in scheduler.alphas_cumprod().iter().enumerate() {
        let classifier = own.get(timestep).copied().unwrap_or(0.0);
        if (classifier - network).abs() > 1e-6 {
            return Err(ClassifierError::Noise { timestep, classifier, network });
        }
    }
    Ok(())
}

/// Tensors by name, and which were read.
struct Reader {
    file: Tensors,
    read: Vec<String>,
}

impl Reader {
    fn get(&mut self, name: String, shape: &[usize]) -> Result<Vec<f32>, ClassifierError> {
        let (found, values) = self.file.f32(&name)?;
        if found != shape {
            let expected = format!("{shape:?}, as config.json says");
            let value = format!("{found:?}");
            let field = "shapes";
            return Err(ClassifierError::Field { field, value: format!("{name} {value}"), expected });
        }
        self.read.push(name);
        Ok(values)
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, ClassifierError> {
        let weight = self.get(format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.get(format!("{name}.bias"), &[outputs])?;
        Ok(Linear { inputs, outputs, weight, bias })
    }
}

/// A convolution as PyTorch has it: (output, input, row, column).
struct Conv {
    inputs: usize,
    outputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Conv {
    fn at(&self, output: usize, input: usize, row: usize, column: usize) -> f32 {
        self.weight[((output * self.inputs + input) * 3 + row) * 3 + column]
    }

    /// Itself, followed by an average over 2×2 pixels where `pool` says so: together a convolution of 4×4 taps.
    fn forward(&self, pool: bool) -> Conv2d {
        let size: usize = if pool { 4 } else { 3 };
        let mut weight = vec![];
        for output in 0..self.outputs {
            for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
                for input in 0..self.inputs {
                    let tap = |row: usize, column: usize| {
                        let is_inside = row < 3 && column < 3;
                        if is_inside { f64::from(self.at(output, input, row, column)) } else { 0.0 }
                    };
                    let shifts = if pool { 0..2 } else { 0..1 };
                    let around = shifts.clone().flat_map(|down| shifts.clone().map(move |right| (down, right)));
                    let sum: f64 = around
                        .filter_map(|(down, right)| Some(tap(row.checked_sub(down)?, column.checked_sub(right)?)))
                        .sum();
                    weight.push(if pool { sum / 4.0 } else { sum } as f32);
                }
            }
        }
        let stride = if pool { 2 } else { 1 };
        let (inputs, outputs, bias) = (self.inputs, self.outputs, self.bias.clone());
        Conv2d { kernel: [size; 2], stride, padding: [1; 4], inputs, outputs, weight, bias }
    }

    /// Its transpose: what it makes of a gradient. That of an average, a quarter for each pixel, is in the weights.
    fn backward(&self, pool: bool) -> Conv2d {
        let factor = if pool { 0.25 } else { 1.0 };
        let mut weight = vec![];
        for input in 0..self.inputs {
            for (row, column) in (0..3).flat_map(|row| (0..3).map(move |column| (row, column))) {
                weight.extend((0..self.outputs).map(|output| factor * self.at(output, input, 2 - row, 2 - column)));
            }
        }
        let (inputs, outputs) = (self.outputs, self.inputs);
        Conv2d { kernel: [3; 2], stride: 1, padding: [1; 4], inputs, outputs, weight, bias: vec![0.0; outputs] }
    }
}

/// What the file holds.
struct Parts {
    time: Linear,
    convs: Vec<Conv>,
    times: Vec<Linear>,
    head: Linear,
}

impl Parts {
    fn read(config: &Config, reader: &mut Reader) -> Result<Self, ClassifierError> {
        let embedding = config.time_embedding_dim;
        let time = reader.linear("time", embedding, embedding)?;
        let (mut convs, mut times) = (vec![], vec![]);
        let mut inputs = config.in_channels;
        for (index, &outputs) in config.channels.iter().enumerate() {
            let weight = reader.get(format!("convs.{index}.weight"), &[outputs, inputs, 3, 3])?;
            let bias = reader.get(format!("convs.{index}.bias"), &[outputs])?;
            convs.push(Conv { inputs, outputs, weight, bias });
            times.push(reader.linear(&format!("times.{index}"), embedding, outputs)?);
            inputs = outputs;
        }
        let side = config.sample_size >> config.pools.iter().filter(|&&pool| pool).count();
        let head = reader.linear("head", inputs * side * side, config.num_classes)?;
        Ok(Self { time, convs, times, head })
    }

    fn params(&self) -> u64 {
        let linear = |linear: &Linear| linear.weight.len() + linear.bias.len();
        let convs: usize = self.convs.iter().map(|conv| conv.weight.len() + conv.bias.len()).sum();
        (linear(&self.time) + linear(&self.head) + convs + self.times.iter().map(linear).sum::<usize>()) as u64
    }
}

/// Appends the nodes of the forward pass, then those of the gradient, from the last to the first.
fn append(graph: &mut Graph, config: &Config, Parts { time, convs, times, head }: Parts) {
    let before = graph.time.linear_2.outputs;
    let classes = head.outputs;
    let name = |what: &str, index: usize| format!("classifier.{what}.{index}");
    let mut x = graph.input;
    // Before each activation.
    let mut inputs: Vec<TensorId> = vec![];
    for (index, ((conv, linear), &pool)) in convs.iter().zip(times).zip(&config.pools).enumerate() {
        x = graph.node(name("convs", index), Op::Conv2d(conv.forward(pool)), &[x]);
        x = graph.node(name("times", index), Op::AddEmbedding(behind(before, linear)), &[x]);
        inputs.push(x);
        x = graph.node(name("silu", index), Op::Classifier(Pass::Forward), &[x]);
    }
    let Shape { h, w, c } = graph.shape(x);
    // PyTorch flattens channels first.
    let of_class =
        |class: usize, y: usize, x: usize, channel: usize| head.weight[class * c * h * w + (channel * h + y) * w + x];
    let places = || (0..h).flat_map(|y| (0..w).map(move |x| (y, x)));
    let forward = (0..classes)
        .flat_map(|class| places().flat_map(move |(y, x)| (0..c).map(move |channel| (class, y, x, channel))))
        .map(|(class, y, x, channel)| of_class(class, y, x, channel))
        .collect();
    let conv = Conv2d {
        kernel: [h, w],
        stride: 1,
        padding: [0; 4],
        inputs: c,
        outputs: classes,
        weight: forward,
        bias: head.bias.clone(),
    };
    x = graph.node("classifier.head", Op::Conv2d(conv), &[x]);

    x = graph.node("classifier.loss", Op::Classifier(Pass::Loss), &[x]);
    // The one pixel lies under another tap for each place of the result.
    let backward = (0..c)
        .flat_map(|channel| places().flat_map(move |(y, x)| (0..classes).map(move |class| (class, y, x, channel))))
        .map(|(class, y, x, channel)| of_class(class, h - 1 - y, w - 1 - x, channel))
        .collect();
    let padding = [h - 1, w - 1, h - 1, w - 1];
    let conv = Conv2d {
        kernel: [h, w],
        stride: 1,
        padding,
        inputs: classes,
        outputs: c,
        weight: backward,
        bias: vec![0.0; c],
    };
    x = graph.node("classifier.head (gradient)", Op::Conv2d(conv), &[x]);
    for (index, ((conv, &pool), &z)) in convs.iter().zip(&config.pools).zip(&inputs).enumerate().rev() {
        let pass = if index == 0 { Pass::BackwardScaled } else { Pass::Backward };
        x = graph.node(name("silu", index) + " (gradient)", Op::Classifier(pass), &[x, z]);
        if pool {
            x = graph.node(name("pool", index) + " (gradient)", Op::Upsample, &[x]);
        }
        x = graph.node(name("convs", index) + " (gradient)", Op::Conv2d(conv.backward(pool)), &[x]);
    }
    let projection = Projection::sinusoid(config.time_embedding_dim, true, 0.0, FrequencyOrder::Product);
    graph.classifier = Some(Classifier { projection, time, classes, gradient: x });
}

/// A projection of what follows `before` elements of the conditioning vector.
fn behind(before: usize, linear: Linear) -> Linear {
    let row = |row: &[f32]| [&vec![0.0; before], row].concat();
    let weight = linear.weight.chunks_exact(linear.inputs).flat_map(row).collect();
    Linear { inputs: before + linear.inputs, weight, ..linear }
}
