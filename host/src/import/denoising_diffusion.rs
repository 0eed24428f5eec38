//! The `Unet` of lucidrains' denoising-diffusion-pytorch, from version 1.0 on: residual blocks whose normalization is scaled and
//! shifted by the timestep, linear attention at every level but the innermost, learned keys and values.
//!
//! Channels, levels, kinds of attention and of normalization follow from the tensors. What does not is asked for in `config.json`,
//! under the names of the project's own options.

use serde_json::Value;

use super::builder::{Builder, Conditioning, Window, linear};
use super::config::{Fields, refuse};
use super::{ImportError, refuse_unused};
use crate::checkpoint::denoising_diffusion::PREFIXES;
use crate::checkpoint::{Checkpoint, NamedTensor};
use crate::graph::{
    self, Activation, Conv2d, FrequencyOrder, Graph, LayerNorm, Memory, Op, Projection, Shape, TensorId,
};

/// Epsilon of layer normalizations and standardized weights.
const EPSILON: f64 = 1e-5;

/// What the tensors do not say.
struct Options {
    size: [usize; 2],
    channels: Option<usize>,
    heads: Option<usize>,
    groups: Option<usize>,
    version: Option<String>,
    theta: f64,
}

impl Options {
    fn read(checkpoint: &Checkpoint) -> Result<Self, ImportError> {
        let mut fields = Fields::new(checkpoint.config());
        let stated = fields.take("image_size");
        let size = fields.take("sample_size").or(stated).unwrap_or(Value::Null);
        let pair: Option<[usize; 2]> =
            size.as_u64().map(|side| [side as usize; 2]).or_else(|| serde_json::from_value(size.clone()).ok());
        let Some(size) = pair.filter(|size| size.iter().all(|side| (1..=4096).contains(side))) else {
            return Err(refuse(
                "image_size",
                size,
                "the tensors do not say: the side of the pictures, or height and width",
            ));
        };
        for field in ["self_condition", "flash_attn", "immiscible"] {
            if fields.flag(field, false)? && field == "self_condition" {
                return Err(refuse(field, true, SELF_CONDITION));
            }
        }
        if !fields.flag("auto_normalize", true)? {
            return Err(refuse("auto_normalize", false, "true: pictures are drawn from -1 to 1"));
        }
        // What the tensors say, or what changes how it was trained or drawn.
        for field in [
            "attn_dim_head",
            "beta_schedule",
            "dim",
            "dim_mults",
            "dropout",
            "full_attn",
            "init_dim",
            "learned_sinusoidal_cond",
            "learned_sinusoidal_dim",
            "learned_variance",
            "objective",
            "out_dim",
            "random_fourier_features",
            "sampling_timesteps",
            "timesteps",
        ] {
            fields.take(field);
        }
        let options = Self {
            size,
            channels: fields.int("channels", 8192)?,
            heads: fields.int("attn_heads", 8192)?,
            groups: fields.int("resnet_block_groups", 8192)?,
            version: fields.take("version").map(|version| version.as_str().unwrap_or_default().to_string()),
            theta: fields.float("sinusoidal_pos_emb_theta", 10_000.0)?,
        };
        if options.theta <= 1.0 {
            return Err(refuse("sinusoidal_pos_emb_theta", options.theta, "a number above 1"));
        }
        fields.finish()?;
        Ok(options)
    }
}

const SELF_CONDITION: &str = "it reads its own last prediction beside the sample, which a run does not keep";
const BEFORE: &str = "it is of a version before 1.0, whose attention and convolutions were others";

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let options = Options::read(checkpoint)?;
    let inner = network(checkpoint)?;
    let shape = |key: &str| -> Result<&[usize], ImportError> {
        inner.shape(key).ok_or_else(|| ImportError::Layout { what: format!("there is no {key}") })
    };
    let first = |key: &str, axis: usize| -> Result<usize, ImportError> {
        let shape = shape(key)?;
        shape.get(axis).copied().ok_or_else(|| ImportError::Layout { what: format!("{key} has shape {shape:?}") })
    };
    if inner.shape("init_conv.weight").is_some_and(|shape| shape.len() == 3) {
        return Err(refuse("_class_name", "Unet1D", "two-dimensional networks: maps, not sequences"));
    }
    let (width, inputs) = (first("init_conv.weight", 0)?, first("init_conv.weight", 1)?);
    let outputs = first("final_conv.weight", 0)?;
    let channels = match options.channels {
        Some(channels) => channels,
        None if inputs == outputs && inputs.is_multiple_of(2) => {
            let expected = "the tensors do not say whether half of the channels in is the last prediction and half of those out \
                            variances: give the channels of pictures";
            return Err(refuse("channels", "null", expected));
        }
        None => inputs,
    };
    if inputs == 2 * outputs || inputs == 2 * channels {
        return Err(refuse("self_condition", true, SELF_CONDITION));
    }
    if inputs != channels || outputs != channels && outputs != 2 * channels {
        let what = format!("it reads {inputs} channels and predicts {outputs}, for pictures of {channels}");
        return Err(ImportError::Layout { what });
    }
    let embedding = first("time_mlp.1.weight", 0)?;
    let projected = first("time_mlp.1.weight", 1)?;
    let projection = if inner.has("time_mlp.0.weights") {
        Projection::Frequencies { frequencies: inner.tensor("time_mlp.0.weights", &[projected.saturating_sub(1) / 2])? }
    } else {
        // The number of frequencies less one is the exponent's divisor.
        if projected < 4 {
            return Err(ImportError::Layout { what: format!("{projected} elements of a timestep are too few") });
        }
        Projection::Sinusoid {
            channels: projected,
            flip_sin_to_cos: false,
            freq_shift: 1.0,
            theta: options.theta,
            order: FrequencyOrder::Quotient,
        }
    };
    let time = graph::TimeEmbedding {
        linear_1: linear(&inner, "time_mlp.1", projection.channels(), embedding)?,
        linear_2: linear(&inner, "time_mlp.3", embedding, embedding)?,
        projection,
        activation: Activation::Gelu,
    };
    let levels = (0..).take_while(|level| inner.has(&format!("downs.{level}.0.block1.proj.weight"))).count();
    let [h, w] = options.size;
    if levels == 0 || levels > 16 || !h.is_multiple_of(1 << (levels - 1)) || !w.is_multiple_of(1 << (levels - 1)) {
        let expected = format!("multiples of 2 to the power of one less than its {levels} levels");
        return Err(refuse("image_size", format!("{h}×{w}"), expected));
    }
    let mut graph = Graph::new(Shape::new(h, w, channels), time);
    graph.params = inner.params();
    let kind = Kind::find(&inner, &options)?;
    let groups = match options.groups {
        _ if kind.has_rms_blocks => 1,
        Some(groups) => groups,
        None => {
            return Err(refuse("resnet_block_groups", "null", "the tensors do not say: 8 is the project's default"));
        }
    };
    let builder =
        Builder { checkpoint: &inner, graph, embedding, conditioning: Conditioning::ScaleShift, eps: EPSILON };
    let mut unet = Unet { builder, kind, groups, heads: options.heads };
    unet.network(width, outputs, levels)?;
    refuse_unused(&inner)?;
    Ok(unet.builder.graph)
}

/// The network's own tensors, of an average if there is one.
fn network(checkpoint: &Checkpoint) -> Result<Checkpoint, ImportError> {
    let members =
        PREFIXES.iter().flat_map(|prefix| ["model.", "denoise_fn.", ""].map(|member| format!("{prefix}{member}")));
    let Some(prefix) = members.into_iter().find(|prefix| checkpoint.has(&format!("{prefix}init_conv.weight"))) else {
        return Err(ImportError::Layout { what: "there is no init_conv.weight".into() });
    };
    let diffusion = prefix.strip_suffix("model.").or(prefix.strip_suffix("denoise_fn.")).unwrap_or(&prefix).to_string();
    let mut tensors = vec![];
    for key in checkpoint.unused() {
        let name = key.strip_prefix(&prefix).filter(|name| !is_buffer(name));
        if let Some(name) = name {
            let shape = checkpoint.shape(&key).unwrap_or_default().to_vec();
            let values = checkpoint.tensor(&key, &shape)?;
            tensors.push(NamedTensor { key: name.into(), shape, values });
        } else if key.strip_prefix(&diffusion).is_some_and(is_buffer)
            || !diffusion.is_empty() && ["online_model.", "initted", "step"].iter().any(|other| key.starts_with(other))
        {
            checkpoint.ignore(&key);
        }
    }
    Ok(checkpoint.with_tensors(&tensors)?)
}

/// Whether a tensor is one of the noise schedule's.
fn is_buffer(name: &str) -> bool {
    let parts = ["betas", "alphas_cumprod", "posterior_", "loss_weight"];
    !name.contains('.') && parts.iter().any(|part| name.contains(part))
}

/// Which generation of the project a network is of.
#[derive(Clone, Copy)]
struct Kind {
    /// Residual blocks have RMSNorm, not GroupNorm.
    has_rms_blocks: bool,
    /// Attention is wrapped with its normalization, which is a layer normalization; the weights of blocks are standardized, and
    /// linear attention divides by the number of pixels.
    is_wrapped: bool,
}

impl Kind {
    fn find(checkpoint: &Checkpoint, options: &Options) -> Result<Self, ImportError> {
        let is_wrapped = checkpoint.has("mid_attn.fn.norm.g");
        if is_wrapped {
            let of_first = options.version.as_deref().and_then(|version| {
                let mut parts = version.split('.').map(str::parse::<u32>);
                Some((parts.next()?.ok()?, parts.next()?.ok()?))
            });
            match of_first {
                Some((1, 0..=5)) => {}
                Some((0, _)) => return Err(refuse("version", options.version.as_deref().unwrap_or(""), BEFORE)),
                _ => {
                    let expected = "the tensors do not say which normalization and convolutions it has: the version that trained \
                                    it, 1.0 to 1.5; others of this layout are not supported";
                    return Err(refuse("version", options.version.as_deref().unwrap_or("null"), expected));
                }
            }
        }
        Ok(Self { has_rms_blocks: checkpoint.has("mid_block1.block1.norm.g"), is_wrapped })
    }
}

struct Unet<'c> {
    builder: Builder<'c>,
    kind: Kind,
    /// Groups of normalizations.
    groups: usize,
    heads: Option<usize>,
}

impl Unet<'_> {
    fn network(&mut self, width: usize, outputs: usize, levels: usize) -> Result<(), ImportError> {
        let input = self.builder.graph.input;
        let mut x = self.builder.conv("init_conv", input, width, Window { kernel: 7, stride: 1, padding: [3; 4] })?;
        let start = x;
        let mut skips = vec![];
        for level in 0..levels {
            let name = format!("downs.{level}");
            x = self.resnet(&format!("{name}.0"), &[x])?;
            skips.push(x);
            x = self.resnet(&format!("{name}.1"), &[x])?;
            x = self.attention(&format!("{name}.2"), x)?;
            skips.push(x);
            x = self.down(&format!("{name}.3"), x)?;
        }
        x = self.resnet("mid_block1", &[x])?;
        x = self.attention("mid_attn", x)?;
        x = self.resnet("mid_block2", &[x])?;
        for level in 0..levels {
            let name = format!("ups.{level}");
            for block in 0..2 {
                let skip = skips.pop().expect("two of each level");
                x = self.resnet(&format!("{name}.{block}"), &[x, skip])?;
            }
            x = self.attention(&format!("{name}.2"), x)?;
            x = self.up(&format!("{name}.3"), x)?;
        }
        x = self.resnet("final_res_block", &[x, start])?;
        self.builder.graph.output = self.builder.conv("final_conv", x, outputs, Window::POINT)?;
        Ok(())
    }

    /// Output channels of a convolution.
    fn outputs(&self, key: &str) -> Result<usize, ImportError> {
        let shape = self.builder.checkpoint.shape(&format!("{key}.weight"));
        let outputs = shape.and_then(|shape| shape.first().copied());
        outputs.ok_or_else(|| ImportError::Layout { what: format!("there is no {key}.weight") })
    }

    fn resnet(&mut self, name: &str, inputs: &[TensorId]) -> Result<TensorId, ImportError> {
        let x = match inputs {
            &[x] => x,
            _ => {
                let shapes = inputs.iter().map(|&id| self.builder.graph.shape(id)).map(|shape| (shape.h, shape.w));
                if shapes.collect::<std::collections::HashSet<_>>().len() > 1 {
                    return Err(ImportError::Layout { what: format!("{name} joins maps of different sizes") });
                }
                self.builder.graph.node(format!("{name} (skip)"), Op::Concat, inputs)
            }
        };
        let outputs = self.outputs(&format!("{name}.block1.proj"))?;
        let shortcut = if self.builder.checkpoint.has(&format!("{name}.res_conv.weight")) {
            self.builder.conv(&format!("{name}.res_conv"), x, outputs, Window::POINT)?
        } else if self.builder.graph.shape(x).c == outputs {
            x
        } else {
            return Err(ImportError::Layout { what: format!("there is no {name}.res_conv.weight") });
        };
        let h = self.block(&format!("{name}.block1"), x, outputs)?;
        let project = format!("{name}.mlp.1");
        let scale_shift = linear(self.builder.checkpoint, &project, self.builder.embedding, 2 * outputs)?;
        let h = self.builder.graph.node(project, Op::ScaleShift(scale_shift), &[h]);
        let h = self.builder.activation(format!("{name}.block1.act"), h);
        let h = self.block(&format!("{name}.block2"), h, outputs)?;
        let h = self.builder.activation(format!("{name}.block2.act"), h);
        Ok(self.builder.residual(name, [h, shortcut], 1.0))
    }

    /// Convolution and normalization.
    fn block(&mut self, name: &str, x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        let (conv, norm) = (format!("{name}.proj"), format!("{name}.norm"));
        let inputs = self.builder.graph.shape(x).c;
        let mut read = self.builder.read_conv(&conv, inputs, outputs, Window::SAME)?;
        if self.kind.is_wrapped {
            standardize(&mut read);
        }
        let h = self.builder.graph.node(conv, Op::Conv2d(read), &[x]);
        if self.kind.has_rms_blocks { self.norm(&norm, h) } else { self.builder.norm(&norm, h, self.groups) }
    }

    /// Normalization over the channels of each pixel.
    fn norm(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let channels = self.builder.graph.shape(x).c;
        let gamma = self.builder.checkpoint.tensor(&format!("{name}.g"), &[1, channels, 1, 1])?;
        // `normalize` divides by the root of the sum of squares, at least 10⁻¹², and that by the root of the number.
        let (is_centered, eps) = if self.kind.is_wrapped { (true, EPSILON) } else { (false, 1e-24 / channels as f64) };
        let norm = LayerNorm { is_centered, eps, gamma, beta: vec![0.0; channels] };
        Ok(self.builder.graph.node(name, Op::LayerNorm(norm), &[x]))
    }

    /// Attention, full or linear, added to its input.
    fn attention(&mut self, outer: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let (norm, name) = if self.kind.is_wrapped {
            (format!("{outer}.fn.norm"), format!("{outer}.fn.fn"))
        } else {
            (format!("{outer}.norm"), outer.to_string())
        };
        let shape = self.builder.graph.shape(x);
        let key = format!("{name}.to_qkv");
        let hidden = self.outputs(&key)? / 3;
        let weight = self.builder.checkpoint.tensor(&format!("{key}.weight"), &[3 * hidden, shape.c, 1, 1])?;
        let normalized = self.norm(&norm, x)?;
        let mut parts = weight.chunks_exact((hidden * shape.c).max(1)).zip(["q", "k", "v"]);
        let projections: [TensorId; 3] = std::array::from_fn(|_| {
            let (weight, part) = parts.next().expect("three parts");
            let (weight, bias) = (weight.to_vec(), vec![0.0; hidden]);
            let conv =
                Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs: shape.c, outputs: hidden, weight, bias };
            self.builder.graph.node(format!("{key} ({part})"), Op::Conv2d(conv), &[normalized])
        });
        let is_full = self.builder.checkpoint.has(&format!("{name}.to_out.weight"));
        let (heads, memory) = self.memory(&name, hidden, is_full)?;
        let scale = ((hidden / heads) as f64).sqrt().recip();
        let op = if is_full {
            Op::Attention { heads, scale: scale as f32, memory }
        } else {
            let gain = if self.kind.is_wrapped { scale / shape.pixels() as f64 } else { scale };
            Op::LinearAttention { heads, gain: gain as f32, memory }
        };
        let mut result = self.builder.graph.node(format!("{name} (context)"), op, &projections);
        if is_full {
            result = self.builder.conv(&format!("{name}.to_out"), result, shape.c, Window::POINT)?;
        } else {
            result = self.builder.conv(&format!("{name}.to_out.0"), result, shape.c, Window::POINT)?;
            result = self.norm(&format!("{name}.to_out.1"), result)?;
        }
        Ok(self.builder.residual(outer, [result, x], 1.0))
    }

    /// Heads, and learned keys and values.
    fn memory(&self, name: &str, hidden: usize, is_full: bool) -> Result<(usize, Memory), ImportError> {
        let key = format!("{name}.mem_kv");
        let Some(shape) = self.builder.checkpoint.shape(&key) else {
            let heads = if self.kind.is_wrapped { Some(4) } else { self.heads };
            let Some(heads) = heads.filter(|heads| hidden.is_multiple_of(*heads)) else {
                let expected =
                    format!("the tensors do not say: how many, 4 is the project's default; they divide {hidden}");
                return Err(refuse("attn_heads", heads.map_or("null".into(), |heads| heads.to_string()), expected));
            };
            return Ok((heads, Memory::default()));
        };
        let &[2, heads, first, second] = shape else {
            return Err(ImportError::Layout { what: format!("{key} has shape {shape:?}") });
        };
        let (len, head) = if is_full { (first, second) } else { (second, first) };
        if heads * head != hidden || hidden == 0 || len > 4096 {
            return Err(ImportError::Layout { what: format!("{key} has shape {shape:?}, for {hidden} channels") });
        }
        let read = self.builder.checkpoint.tensor(&key, &[2, heads, first, second])?;
        let at = |part: usize, channel: usize, index: usize| {
            let of_head = (part * heads + channel / head) * len * head;
            let channel = channel % head;
            read[of_head + if is_full { index * head + channel } else { channel * len + index }]
        };
        let at = &at;
        let row = |index: usize| (0..2).flat_map(move |part| (0..hidden).map(move |channel| at(part, channel, index)));
        Ok((heads, Memory { len, values: (0..len).flat_map(row).collect() }))
    }

    /// Halving by neighbours that become channels, or a convolution at the innermost level.
    fn down(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let inner = format!("{name}.1");
        if !self.builder.checkpoint.has(&format!("{inner}.weight")) {
            return self.plain(name, x);
        }
        let (inputs, outputs) = (self.builder.graph.shape(x).c, self.outputs(&inner)?);
        let mut conv = self.builder.read_conv(&inner, 4 * inputs, outputs, Window::POINT)?;
        // (output, channel, row, column) becomes (output, row, column, channel).
        let from = std::mem::take(&mut conv.weight);
        for output in from.chunks_exact(4 * inputs) {
            for place in 0..4 {
                conv.weight.extend((0..inputs).map(|channel| output[4 * channel + place]));
            }
        }
        let conv = Conv2d { kernel: [2; 2], stride: 2, inputs, ..conv };
        Ok(self.builder.graph.node(inner, Op::Conv2d(conv), &[x]))
    }

    /// Nearest doubling and a convolution, or a convolution at the outermost level.
    fn up(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let inner = format!("{name}.1");
        if !self.builder.checkpoint.has(&format!("{inner}.weight")) {
            return self.plain(name, x);
        }
        let outputs = self.outputs(&inner)?;
        let x = self.builder.graph.node(name, Op::Upsample, &[x]);
        self.builder.conv(&inner, x, outputs, Window::SAME)
    }

    fn plain(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        if let Some(&[.., 4, 4]) = self.builder.checkpoint.shape(&format!("{name}.weight")) {
            return Err(refuse("version", "null", BEFORE));
        }
        let outputs = self.outputs(name)?;
        self.builder.conv(name, x, outputs, Window::SAME)
    }
}

/// Weights less their mean, over their deviation, for each output channel (Qiao et al., 2019, arXiv:1903.10520).
fn standardize(conv: &mut Conv2d) {
    let taps = conv.weight.len() / conv.outputs.max(1);
    for weights in conv.weight.chunks_exact_mut(taps.max(1)) {
        let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / taps as f64;
        let variance = weights.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / taps as f64;
        let factor = (variance + EPSILON).sqrt().recip();
        weights.iter_mut().for_each(|w| *w = ((f64::from(*w) - mean) * factor) as f32);
    }
}
