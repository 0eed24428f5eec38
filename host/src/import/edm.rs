//! The networks that NVIDIA's EDM trains (Karras et al., 2022, arXiv:2206.00364, appendix F.1): `SongUNet`, that is DDPM++ and NCSN++
//! (Song et al., 2021, arXiv:2011.13456, appendix H), and `DhariwalUNet`, that is ADM (Dhariwal and Nichol, 2021, arXiv:2105.05233).
//!
//! Blocks are named by the size of their maps, and everything follows from names and shapes. Inside of a block the tensors are
//! brought to the names of diffusers' blocks.

use super::ImportError;
use super::attention::{Attention, Heads};
use super::builder::{Builder, Conditioning, Window, linear, quarter};
use super::config::{Fields, refuse};
use super::refuse_unused;
use super::resample::Resample;
use super::resnet::Residual;
use crate::checkpoint::edm::LABEL_DROPOUT;
use crate::checkpoint::{Checkpoint, MOST_CLASSES, NamedTensor};
use crate::graph::{
    Activation, ClassEmbedding, FrequencyOrder, Graph, Layer, Projection, Shape, TensorId, TimeEmbedding,
};

/// In what the networks differ besides their tensors.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Added to the variance of every normalization.
    epsilon: f64,
    /// What the sums of a block are divided by.
    factor: f64,
    conditioning: Conditioning,
    /// Channels of a head of an attention; one has them all if this is `None`.
    head: Option<usize>,
    /// The layer of the noise level's perceptron that a class is added to.
    class_layer: Layer,
    /// Whether cosines come before sines, and whether the last frequency is that of the largest period.
    has_cosines_first: bool,
    has_last_period: bool,
}

/// `SongUNet`.
pub(super) const SONG: Style = Style {
    epsilon: 1e-6,
    factor: std::f64::consts::SQRT_2,
    conditioning: Conditioning::Add,
    head: None,
    class_layer: Layer::First,
    has_cosines_first: false,
    has_last_period: true,
};

/// `DhariwalUNet`.
pub(super) const DHARIWAL: Style = Style {
    epsilon: 1e-5,
    factor: 1.0,
    conditioning: Conditioning::ScaleShift,
    head: Some(64),
    class_layer: Layer::Second,
    has_cosines_first: true,
    has_last_period: false,
};

/// Most channels of a picture.
const CHANNELS: usize = 64;
/// Most levels.
const LEVELS: usize = 16;

/// Names of a block's parts there, and in diffusers.
const PARTS: [(&str, &str); 8] = [
    ("norm0", "norm1"),
    ("conv0", "conv1"),
    ("affine", "time_emb_proj"),
    ("norm1", "norm2"),
    ("conv1", "conv2"),
    ("skip", "conv_shortcut"),
    ("norm2", "attention.group_norm"),
    ("proj", "attention.to_out.0"),
];

fn layout<T>(what: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Edm { what: what.into() })
}

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint, style: Style) -> Result<Graph, ImportError> {
    let (tensors, halving, doubling) = translate(checkpoint)?;
    let inner = checkpoint.with_tensors(&tensors)?;
    let size =
        |key: &str, axis: usize| inner.shape(key).and_then(|shape| shape.get(axis).copied()).filter(|&size| size > 0);
    let first = tensors.iter().find_map(|tensor| {
        let side = tensor.key.strip_prefix("enc.")?.strip_suffix("_conv.weight")?;
        let (side, other) = side.split_once('x')?;
        (side == other).then(|| side.parse::<usize>().ok())?
    });
    let Some(side) = first.filter(|side| (1..=1024).contains(side)) else {
        return layout("there is no enc.NxN_conv.weight");
    };
    let levels =
        (0..LEVELS).take_while(|&level| inner.has(&block("enc", side >> level, "block0.conv1.weight"))).count();
    let (Some(inputs), Some(noise), Some(embedding)) =
        (size(&block("enc", side, "conv.weight"), 1), size("map_layer0.weight", 1), size("map_layer1.weight", 0))
    else {
        return layout("there is no map_layer0 or map_layer1");
    };
    if inputs > CHANNELS {
        return layout(format!("it reads {inputs} channels, more than the {CHANNELS} of a picture"));
    }
    if !noise.is_multiple_of(2) || noise < 4 {
        return layout(format!("map_layer0 reads {noise} numbers, neither sines nor cosines"));
    }
    let projection = match checkpoint.has("map_noise.freqs") {
        true => Projection::Angles { frequencies: checkpoint.tensor("map_noise.freqs", &[noise / 2])? },
        false => Projection::sinusoid(
            noise,
            style.has_cosines_first,
            f64::from(u8::from(style.has_last_period)),
            FrequencyOrder::Power,
        ),
    };
    let time = TimeEmbedding {
        projection,
        linear_1: linear(&inner, "map_layer0", noise, embedding)?,
        activation: Activation::Silu,
        linear_2: linear(&inner, "map_layer1", embedding, embedding)?,
    };
    let ([h, w], has_no_class) = stated(checkpoint, side, levels)?;
    let classes = classes(&inner, &time, style.class_layer, has_no_class)?;
    let mut graph = Graph::new(Shape::new(h, w, inputs), time);
    graph.classes = classes;
    graph.params = checkpoint.params();
    let Style { conditioning, epsilon: eps, .. } = style;
    let builder = Builder { checkpoint: &inner, graph, embedding, conditioning, eps };
    let mut unet = Edm { builder, style, side, levels, halving, doubling };
    let skips = unet.encode()?;
    unet.builder.graph.output = unet.decode(skips)?;
    refuse_unused(&inner)?;
    Ok(unet.builder.graph)
}

/// The rows of the classes. A class is one of `map_label`'s inputs. Before the first layer it is multiplied by the root of their
/// number, and what that gives is added to the projected noise level: with this layer linear, the rows are columns of a product.
/// Behind the rows of the classes is that of no class if the training left out labels: the bias, if there is one.
fn classes(
    checkpoint: &Checkpoint,
    time: &TimeEmbedding,
    layer: Layer,
    has_no_class: bool,
) -> Result<Option<ClassEmbedding>, ImportError> {
    let Some(shape) = checkpoint.shape("map_label.weight") else { return Ok(None) };
    let count = shape.get(1).copied().unwrap_or(0);
    if !(1..MOST_CLASSES).contains(&count) {
        return layout(format!("map_label reads {count} classes; 1 to {} come in", MOST_CLASSES - 1));
    }
    let outputs = match layer {
        Layer::First => time.linear_1.inputs,
        Layer::Second => time.linear_2.outputs,
    };
    let weight = checkpoint.tensor("map_label.weight", &[outputs, count])?;
    let bias = match checkpoint.has("map_label.bias") {
        true => checkpoint.tensor("map_label.bias", &[outputs])?,
        false => vec![0.0; outputs],
    };
    let column = |class: Option<usize>, factor: f64| -> Vec<f64> {
        let rows = weight.chunks_exact(count).zip(&bias);
        rows.map(|(row, &bias)| factor * class.map_or(0.0, |class| f64::from(row[class])) + f64::from(bias)).collect()
    };
    let of_class = |class| match layer {
        Layer::First => time.linear_1.products(&column(class, (count as f64).sqrt())).collect(),
        Layer::Second => column(class, 1.0),
    };
    let rows = (0..count).map(Some).chain(has_no_class.then_some(None));
    let table: Vec<f32> = rows.flat_map(of_class).map(|x| x as f32).collect();
    let classes = count + usize::from(has_no_class);
    Ok(Some(ClassEmbedding { classes, layer, table, ..Default::default() }))
}

/// Height and width to draw: those in the names of the blocks, or what `--size` gives. Then whether labels were left out in the
/// training.
fn stated(checkpoint: &Checkpoint, side: usize, levels: usize) -> Result<([usize; 2], bool), ImportError> {
    let mut fields = Fields::new(checkpoint.config());
    let stated = fields.take("sample_size");
    let dropout = fields.take(LABEL_DROPOUT).and_then(|value| value.as_f64());
    fields.finish()?;
    let size = match stated.clone() {
        None => [side; 2],
        Some(value) => serde_json::from_value(value).unwrap_or([0; 2]),
    };
    let step = 1 << (levels.max(1) - 1);
    if size.iter().any(|&n| !(1..=1024).contains(&n) || !n.is_multiple_of(step)) {
        let value = stated.map_or(side.to_string(), |value| value.to_string());
        return Err(refuse("sample_size", value, format!("height and width, multiples of {step} up to 1024")));
    }
    Ok((size, dropout.is_some_and(|dropout| dropout > 0.0)))
}

/// The key of something at maps of one size.
fn block(way: &str, side: usize, rest: &str) -> String {
    format!("{way}.{side}x{side}_{rest}")
}

/// The tensors by the names of diffusers' blocks, and how maps are halved and doubled.
fn translate(checkpoint: &Checkpoint) -> Result<(Vec<NamedTensor>, Resample, Resample), ImportError> {
    let (mut tensors, mut filtered) = (vec![], None);
    for key in checkpoint.unused() {
        if key == "map_noise.freqs" {
            continue;
        }
        if key == "map_augment.weight" {
            // Of augmented pictures, which are trained with and not drawn.
            checkpoint.ignore(&key);
            continue;
        }
        let shape = checkpoint.shape(&key).unwrap_or_default().to_vec();
        let values = checkpoint.tensor(&key, &shape)?;
        if key.ends_with(".resample_filter") {
            let is_filter = is_filter(&shape, &values);
            if is_filter.is_none() || filtered.is_some_and(|filtered| Some(filtered) != is_filter) {
                return layout(format!("{key} is neither (1, 1) nor (1, 3, 3, 1), or not that of other blocks"));
            }
            filtered = is_filter;
            continue;
        }
        let parts: Vec<&str> = key.split('.').collect();
        match parts[..] {
            [way, name, "qkv", kind] => split(&format!("{way}.{name}"), kind, &shape, &values, &mut tensors)?,
            [way, name, part, kind] => {
                let Some((_, to)) = PARTS.iter().find(|(from, _)| *from == part) else {
                    return layout(format!("{key} is not a part of a block"));
                };
                let is_point = part == "proj" && shape.len() == 4 && shape[2..] == [1, 1];
                let shape = if is_point { shape[..2].to_vec() } else { shape };
                tensors.push(NamedTensor { key: format!("{way}.{name}.{to}.{kind}"), shape, values });
            }
            _ => tensors.push(NamedTensor { key, shape, values }),
        }
    }
    Ok(match filtered {
        Some(true) => (tensors, Resample::FirHalf, Resample::FirDouble),
        _ => (tensors, Resample::Mean, Resample::Nearest),
    })
}

/// Whether a resampling filter is (1, 3, 3, 1)/8 in both directions instead of (1, 1)/2; `None` if it is neither.
fn is_filter(shape: &[usize], values: &[f32]) -> Option<bool> {
    let taps: &[f32] = match shape {
        [1, 1, 4, 4] => &[0.125, 0.375, 0.375, 0.125],
        [1, 1, 2, 2] => &[0.5; 2],
        _ => return None,
    };
    let expected = taps.iter().flat_map(|row| taps.iter().map(move |column| row * column));
    values.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6).then_some(taps.len() == 4)
}

/// Queries, keys and values of a joint projection, whose outputs are one of each for every channel.
fn split(
    block: &str,
    kind: &str,
    shape: &[usize],
    values: &[f32],
    tensors: &mut Vec<NamedTensor>,
) -> Result<(), ImportError> {
    let outputs = shape.first().copied().unwrap_or(0);
    if outputs == 0 || !outputs.is_multiple_of(3) || shape.get(2..).is_some_and(|kernel| kernel.iter().any(|&n| n != 1))
    {
        return layout(format!("{block}.qkv.{kind} has shape {shape:?}"));
    }
    let row = values.len() / outputs;
    for (part, name) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
        let rows = values.chunks_exact(row.max(1)).skip(part).step_by(3);
        let (values, mut shape) = (rows.flatten().copied().collect(), shape[..shape.len().min(2)].to_vec());
        shape[0] = outputs / 3;
        tensors.push(NamedTensor { key: format!("{block}.attention.{name}.{kind}"), shape, values });
    }
    Ok(())
}

struct Edm<'c> {
    builder: Builder<'c>,
    style: Style,
    /// Height and width in the names of the first level's blocks.
    side: usize,
    levels: usize,
    halving: Resample,
    doubling: Resample,
}

impl Edm<'_> {
    fn has(&self, key: &str) -> bool {
        self.builder.checkpoint.has(key)
    }

    fn channels(&self, x: TensorId) -> usize {
        self.builder.graph.shape(x).c
    }

    /// Outputs of a block.
    fn outputs(&self, name: &str) -> usize {
        let shape = self.builder.checkpoint.shape(&format!("{name}.conv1.weight"));
        shape.and_then(|shape| shape.first().copied()).unwrap_or(0)
    }

    fn residual_block(&mut self, name: &str, inputs: &[TensorId]) -> Result<TensorId, ImportError> {
        let (channels, outputs) = (inputs.iter().map(|&x| self.channels(x)).sum(), self.outputs(name));
        let groups = [quarter(channels), quarter(outputs)];
        let x = self.builder.resnet(name, inputs, outputs, Residual { groups, factor: self.style.factor })?;
        let attention = format!("{name}.attention");
        if !self.has(&format!("{attention}.to_q.weight")) {
            return Ok(x);
        }
        let heads = match self.style.head {
            None => 1,
            Some(head) if outputs >= head && outputs.is_multiple_of(head) => outputs / head,
            Some(head) => return layout(format!("{name} attends with {outputs} channels, no multiple of {head}")),
        };
        let (groups, factor) = (Some(quarter(outputs)), self.style.factor);
        let how = Attention { heads: Heads::Count(heads), groups, factor };
        self.builder.attention(&attention, x, how)
    }

    fn resampling_block(&mut self, name: &str, x: TensorId, resample: Resample) -> Result<TensorId, ImportError> {
        let groups = [quarter(self.channels(x)); 2];
        self.builder.resampling_resnet(name, x, resample, Residual { groups, factor: self.style.factor })
    }

    /// The way down; what it leaves for the way up, the last result last.
    fn encode(&mut self) -> Result<Vec<TensorId>, ImportError> {
        let input = self.builder.graph.input;
        let (mut x, mut beside, mut skips) = (input, input, vec![]);
        for level in 0..self.levels {
            let side = self.side >> level;
            let key = |rest: &str| block("enc", side, rest);
            if level == 0 {
                let name = key("conv");
                let outputs =
                    self.builder.checkpoint.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied());
                x = self.builder.conv(&name, x, outputs.unwrap_or(0), Window::SAME)?;
            } else {
                x = self.resampling_block(&key("down"), x, self.halving)?;
                let (outputs, map) = (self.channels(x), self.builder.graph.shape(x));
                let fits = |of: Shape| (of.h, of.w) == (2 * map.h, 2 * map.w);
                let (skip, residual) = (key("aux_skip"), key("aux_residual"));
                let has_path = [&skip, &residual].iter().any(|name| self.has(&format!("{name}.weight")));
                if has_path && !fits(self.builder.graph.shape(beside)) {
                    return layout(format!("{skip}: there is none on the level before"));
                }
                if self.has(&format!("{skip}.weight")) {
                    beside = self.builder.resampled(&key("aux_down"), beside, self.halving);
                    let y = self.builder.conv(&skip, beside, outputs, Window::POINT)?;
                    x = self.builder.residual(&skip, [y, x], 1.0);
                }
                if self.has(&format!("{residual}.weight")) && fits(self.builder.graph.shape(beside)) {
                    let conv = self.builder.read_conv(&residual, self.channels(beside), outputs, Window::SAME)?;
                    let y = self.builder.filtered_conv(&residual, beside, self.halving, &conv);
                    x = self.builder.residual(&residual, [y, x], self.style.factor);
                    beside = x;
                }
            }
            skips.push(x);
            for number in 0.. {
                let name = key(&format!("block{number}"));
                if !self.has(&format!("{name}.conv1.weight")) {
                    break;
                }
                x = self.residual_block(&name, &[x])?;
                skips.push(x);
            }
        }
        Ok(skips)
    }

    /// The way up.
    fn decode(&mut self, mut skips: Vec<TensorId>) -> Result<TensorId, ImportError> {
        let Some(&last) = skips.last() else { return layout("there are no enc.NxN_block0") };
        let (mut x, mut picture) = (last, None);
        for level in (0..self.levels).rev() {
            let side = self.side >> level;
            let key = |rest: &str| block("dec", side, rest);
            if level + 1 == self.levels {
                x = self.residual_block(&key("in0"), &[x])?;
                x = self.residual_block(&key("in1"), &[x])?;
            } else {
                x = self.resampling_block(&key("up"), x, self.doubling)?;
            }
            for number in 0.. {
                let name = key(&format!("block{number}"));
                if !self.has(&format!("{name}.conv1.weight")) {
                    break;
                }
                let Some(skip) = skips.pop() else { return layout(format!("{name} has nothing to join")) };
                let [own, other] = [x, skip].map(|id| self.builder.graph.shape(id));
                if (own.h, own.w) != (other.h, other.w) {
                    return layout(format!("{name} joins maps of two sizes"));
                }
                x = self.residual_block(&name, &[x, skip])?;
            }
            let name = key("aux_conv");
            let Some(&outputs) = self.builder.checkpoint.shape(&format!("{name}.weight")).and_then(<[usize]>::first)
            else {
                continue;
            };
            let inputs = self.channels(self.builder.graph.input);
            if outputs != inputs {
                return layout(format!("{name} has {outputs} outputs, and the network {inputs} inputs"));
            }
            if let Some(before) = picture {
                picture = Some(self.builder.resampled(&key("aux_up"), before, self.doubling));
            }
            let own = self.builder.norm(&key("aux_norm"), x, quarter(self.channels(x)))?;
            let own = self.builder.activation(key("aux_act"), own);
            let own = self.builder.conv(&name, own, outputs, Window::SAME)?;
            picture = Some(match picture {
                Some(before) if self.builder.graph.shape(before) == self.builder.graph.shape(own) => {
                    self.builder.residual(&name, [before, own], 1.0)
                }
                Some(_) => return layout(format!("{name} has another shape than that of the level before")),
                None => own,
            });
        }
        if self.has("out_conv.weight") {
            let own = self.builder.norm("out_norm", x, quarter(self.channels(x)))?;
            let own = self.builder.activation("out_act".into(), own);
            let outputs = self.channels(self.builder.graph.input);
            picture = Some(self.builder.conv("out_conv", own, outputs, Window::SAME)?);
        }
        let graph = &self.builder.graph;
        match picture {
            Some(picture) if skips.is_empty() && graph.shape(picture) == graph.shape(graph.input) => Ok(picture),
            _ => layout("the way up does not join what the way down leaves"),
        }
    }
}
