//! diffusers' `UNet2DModel`.

use serde_json::Value;

use super::ImportError;
use crate::checkpoint::Checkpoint;
use crate::graph::{ClassEmbedding, Conv2d, Graph, GroupNorm, Linear, Op, Shape, TensorId, TimeEmbedding};

/// The configuration's fields that change the network, with diffusers' defaults.
struct Config {
    size: [usize; 2],
    in_channels: usize,
    out_channels: usize,
    center_input_sample: bool,
    time_embedding_dim: Option<usize>,
    freq_shift: f64,
    flip_sin_to_cos: bool,
    down_attention: Vec<bool>,
    up_attention: Vec<bool>,
    mid_block: bool,
    mid_attention: bool,
    channels: Vec<usize>,
    layers_per_block: usize,
    mid_block_scale_factor: f64,
    downsample_padding: usize,
    attention_head_dim: Option<usize>,
    norm_num_groups: usize,
    attn_norm_num_groups: Option<usize>,
    norm_eps: f64,
    num_class_embeds: Option<usize>,
}

fn refuse(field: &str, value: impl ToString, expected: impl Into<String>) -> ImportError {
    ImportError::Field { field: field.into(), value: value.to_string(), expected: expected.into() }
}

/// Takes fields out of the configuration, so that what is left over is what nobody has looked at.
struct Fields(serde_json::Map<String, Value>);

impl Fields {
    fn take(&mut self, field: &str) -> Value {
        self.0.remove(field).unwrap_or(Value::Null)
    }

    fn int(&mut self, field: &str, default: Option<usize>, max: usize) -> Result<Option<usize>, ImportError> {
        match self.take(field) {
            Value::Null => Ok(default),
            value => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
                _ => Err(refuse(field, value, format!("an integer from 1 to {max}"))),
            },
        }
    }

    fn float(&mut self, field: &str, default: f64) -> Result<f64, ImportError> {
        match self.take(field) {
            Value::Null => Ok(default),
            value => match value.as_f64() {
                Some(x) if x.is_finite() && x.abs() <= 1e6 => Ok(x),
                _ => Err(refuse(field, value, "a number")),
            },
        }
    }

    fn flag(&mut self, field: &str, default: bool) -> Result<bool, ImportError> {
        match self.take(field) {
            Value::Null => Ok(default),
            Value::Bool(flag) => Ok(flag),
            value => Err(refuse(field, value, "true or false")),
        }
    }

    /// A field that must have one of the given values or be absent.
    fn only(&mut self, field: &str, allowed: &[&str]) -> Result<(), ImportError> {
        match self.take(field) {
            Value::Null => Ok(()),
            Value::String(text) if allowed.contains(&text.as_str()) => Ok(()),
            value => Err(refuse(field, value, format!("supported: {}", allowed.join(", ")))),
        }
    }

    /// A list of block types; whether each has attention.
    fn blocks(&mut self, field: &str, default: &[&str], plain: &str, attn: &str) -> Result<Vec<bool>, ImportError> {
        let expected = || format!("a list of {plain} and {attn}");
        let names: Vec<String> = match self.take(field) {
            Value::Null => default.iter().map(ToString::to_string).collect(),
            value => serde_json::from_value(value.clone()).map_err(|_| refuse(field, value, expected()))?,
        };
        names
            .into_iter()
            .map(|name| match name.strip_prefix("UNetRes").unwrap_or(&name) {
                found if found == plain => Ok(false),
                found if found == attn => Ok(true),
                _ => Err(refuse(field, format!("{name:?}"), expected())),
            })
            .collect()
    }
}

impl Config {
    fn read(config: &serde_json::Map<String, Value>) -> Result<Self, ImportError> {
        let mut fields = Fields(config.clone());
        fields.0.retain(|name, _| !name.starts_with('_'));
        let size = match fields.take("sample_size") {
            Value::Number(n) => n.as_u64().map(|n| vec![n, n]),
            Value::Array(list) => list.iter().map(Value::as_u64).collect(),
            _ => None,
        };
        let size = match size.as_deref() {
            Some(&[h, w]) if (1..=1024).contains(&h) && (1..=1024).contains(&w) => [h as usize, w as usize],
            _ => {
                let value = config.get("sample_size").cloned().unwrap_or(Value::Null);
                return Err(refuse(
                    "sample_size",
                    value,
                    "a size or [height, width] from 1 to 1024: the plan is fixed",
                ));
            }
        };
        let default_down = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"];
        let default_up = ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"];
        let mid_block = match (config.contains_key("mid_block_type"), fields.take("mid_block_type")) {
            (true, Value::Null) => false,
            (false, _) => true,
            (_, Value::String(name)) if name == "UNetMidBlock2D" => true,
            (_, value) => return Err(refuse("mid_block_type", value, "supported: UNetMidBlock2D, null")),
        };
        let channels = match fields.take("block_out_channels") {
            Value::Null => vec![224, 448, 672, 896],
            value => serde_json::from_value::<Vec<usize>>(value.clone())
                .ok()
                .filter(|list| (1..=16).contains(&list.len()) && list.iter().all(|c| (1..=8192).contains(c)))
                .ok_or_else(|| refuse("block_out_channels", value, "1 to 16 channel counts from 1 to 8192"))?,
        };
        // A null head size means one head as wide as the block; an absent one means 8.
        let head_is_null = config.get("attention_head_dim").is_some_and(Value::is_null);
        let read = Self {
            size,
            in_channels: fields.int("in_channels", Some(3), 1024)?.unwrap_or(3),
            out_channels: fields.int("out_channels", Some(3), 1024)?.unwrap_or(3),
            center_input_sample: fields.flag("center_input_sample", false)?,
            time_embedding_dim: fields.int("time_embedding_dim", None, 1 << 15)?,
            freq_shift: fields.float("freq_shift", 0.0)?,
            flip_sin_to_cos: fields.flag("flip_sin_to_cos", true)?,
            down_attention: fields.blocks("down_block_types", &default_down, "DownBlock2D", "AttnDownBlock2D")?,
            up_attention: fields.blocks("up_block_types", &default_up, "UpBlock2D", "AttnUpBlock2D")?,
            mid_block,
            mid_attention: fields.flag("add_attention", true)?,
            channels,
            layers_per_block: fields.int("layers_per_block", Some(2), 64)?.unwrap_or(2),
            mid_block_scale_factor: fields.float("mid_block_scale_factor", 1.0)?,
            downsample_padding: match fields.take("downsample_padding") {
                Value::Null => 1,
                value => match value.as_u64() {
                    Some(padding @ 0..=1) => padding as usize,
                    _ => return Err(refuse("downsample_padding", value, "0 or 1")),
                },
            },
            attention_head_dim: fields.int("attention_head_dim", (!head_is_null).then_some(8), 8192)?,
            norm_num_groups: fields.int("norm_num_groups", Some(32), 8192)?.unwrap_or(32),
            attn_norm_num_groups: fields.int("attn_norm_num_groups", None, 8192)?,
            norm_eps: fields.float("norm_eps", 1e-5)?,
            num_class_embeds: fields.int("num_class_embeds", None, 65_534)?,
        };
        fields.only("time_embedding_type", &["positional"])?;
        fields.only("downsample_type", &["conv"])?;
        fields.only("upsample_type", &["conv"])?;
        fields.only("act_fn", &["silu", "swish"])?;
        fields.only("resnet_time_scale_shift", &["default"])?;
        fields.only("class_embed_type", &[])?;
        // Neither changes what a trained network with a sinusoidal embedding computes.
        fields.take("dropout");
        fields.take("num_train_timesteps");
        if let Some((field, value)) = fields.0.into_iter().next() {
            return Err(refuse(&field, value, "waft does not know this field"));
        }
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), ImportError> {
        let blocks = self.channels.len();
        for (field, list) in [("down_block_types", &self.down_attention), ("up_block_types", &self.up_attention)] {
            if list.len() != blocks {
                let expected = format!("as many as block_out_channels: {blocks}");
                return Err(refuse(field, format!("{} blocks", list.len()), expected));
            }
        }
        let step = 1 << (blocks - 1);
        if !self.size[0].is_multiple_of(step) || !self.size[1].is_multiple_of(step) {
            let expected = format!("multiples of {step}, or skip connections do not fit");
            return Err(refuse("sample_size", format!("{:?}", self.size), expected));
        }
        if self.channels[0] % 2 == 1 || self.channels[0] < 4 {
            return Err(refuse("block_out_channels", self.channels[0], "an even first entry of at least 4"));
        }
        if let Some(channels) = self.channels.iter().find(|channels| !channels.is_multiple_of(self.norm_num_groups)) {
            return Err(refuse("norm_num_groups", self.norm_num_groups, format!("a divisor of {channels} channels")));
        }
        if self.mid_block_scale_factor <= 0.0 {
            return Err(refuse("mid_block_scale_factor", self.mid_block_scale_factor, "above 0"));
        }
        if self.norm_eps <= 0.0 {
            return Err(refuse("norm_eps", self.norm_eps, "above 0"));
        }
        if self.freq_shift >= (self.channels[0] / 2) as f64 {
            return Err(refuse("freq_shift", self.freq_shift, "below half the first channel count"));
        }
        Ok(())
    }
}

/// Imports the network.
pub(super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let config = Config::read(checkpoint.config())?;
    let first = config.channels[0];
    let embedding = config.time_embedding_dim.unwrap_or(4 * first);
    let time = TimeEmbedding {
        channels: first,
        flip_sin_to_cos: config.flip_sin_to_cos,
        freq_shift: config.freq_shift,
        linear_1: linear(checkpoint, "time_embedding.linear_1", first, embedding)?,
        linear_2: linear(checkpoint, "time_embedding.linear_2", embedding, embedding)?,
    };
    let classes = match config.num_class_embeds {
        Some(classes) => {
            let table = checkpoint.tensor("class_embedding.weight", &[classes, embedding])?;
            Some(ClassEmbedding { classes, table })
        }
        None => None,
    };
    let mut graph = Graph {
        tensors: vec![],
        nodes: vec![],
        input: TensorId(0),
        output: TensorId(0),
        time,
        classes,
        params: checkpoint.params(),
    };
    graph.input = graph.tensor("sample", Shape::new(config.size[0], config.size[1], config.in_channels));
    let mut builder = Builder { checkpoint, graph, embedding, groups: config.norm_num_groups, eps: config.norm_eps };
    builder.graph.output = builder.network(&config)?;
    Ok(builder.graph)
}

fn linear(checkpoint: &Checkpoint, key: &str, inputs: usize, outputs: usize) -> Result<Linear, ImportError> {
    Ok(Linear {
        inputs,
        outputs,
        weight: checkpoint.tensor(&format!("{key}.weight"), &[outputs, inputs])?,
        bias: checkpoint.tensor(&format!("{key}.bias"), &[outputs])?,
    })
}

struct Builder<'c> {
    checkpoint: &'c Checkpoint,
    graph: Graph,
    embedding: usize,
    groups: usize,
    eps: f64,
}

impl Builder<'_> {
    fn network(&mut self, config: &Config) -> Result<TensorId, ImportError> {
        let channels = &config.channels;
        let heads = |width: usize| match config.attention_head_dim {
            None => Ok(width),
            Some(head) if width.is_multiple_of(head) => Ok(head),
            Some(head) => Err(refuse("attention_head_dim", head, format!("a divisor of {width} channels"))),
        };
        let mut x = self.graph.input;
        if config.center_input_sample {
            x = self.graph.node("center_input_sample", Op::Affine { gain: 2.0, offset: -1.0 }, &[x]);
        }
        x = self.conv("conv_in", x, channels[0], 3, 1, [1; 4])?;

        let mut skips = vec![x];
        for (block, (&width, &attention)) in channels.iter().zip(&config.down_attention).enumerate() {
            for layer in 0..config.layers_per_block {
                let path = format!("down_blocks.{block}");
                x = self.resnet(&format!("{path}.resnets.{layer}"), &[x], width, 1.0)?;
                if attention {
                    let name = format!("{path}.attentions.{layer}");
                    x = self.attention(&name, x, heads(width)?, self.groups, 1.0)?;
                }
                skips.push(x);
            }
            if block + 1 < channels.len() {
                // Without padding diffusers pads right and bottom by one.
                let before = config.downsample_padding;
                let name = format!("down_blocks.{block}.downsamplers.0.conv");
                x = self.conv(&name, x, width, 3, 2, [before, before, 1, 1])?;
                skips.push(x);
            }
        }

        if config.mid_block {
            let width = channels[channels.len() - 1];
            let factor = config.mid_block_scale_factor;
            x = self.resnet("mid_block.resnets.0", &[x], width, factor)?;
            if config.mid_attention {
                let groups = config.attn_norm_num_groups.unwrap_or(self.groups);
                if !width.is_multiple_of(groups) {
                    return Err(refuse("attn_norm_num_groups", groups, format!("a divisor of {width} channels")));
                }
                x = self.attention("mid_block.attentions.0", x, heads(width)?, groups, factor)?;
            }
            x = self.resnet("mid_block.resnets.1", &[x], width, factor)?;
        }

        for (block, (&width, &attention)) in channels.iter().rev().zip(&config.up_attention).enumerate() {
            for layer in 0..=config.layers_per_block {
                let path = format!("up_blocks.{block}");
                // As many were pushed: one, and a layer or a downsampler each.
                let skip = skips.pop().expect("up blocks take what down blocks left");
                x = self.resnet(&format!("{path}.resnets.{layer}"), &[x, skip], width, 1.0)?;
                if attention {
                    let name = format!("{path}.attentions.{layer}");
                    x = self.attention(&name, x, heads(width)?, self.groups, 1.0)?;
                }
            }
            if block + 1 < channels.len() {
                let name = format!("up_blocks.{block}.upsamplers.0");
                x = self.graph.node(name.clone(), Op::Upsample, &[x]);
                x = self.conv(&format!("{name}.conv"), x, width, 3, 1, [1; 4])?;
            }
        }
        x = self.norm("conv_norm_out", x, self.groups)?;
        x = self.graph.node("conv_act", Op::Silu, &[x]);
        self.conv("conv_out", x, config.out_channels, 3, 1, [1; 4])
    }

    fn conv(
        &mut self,
        name: &str,
        x: TensorId,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: [usize; 4],
    ) -> Result<TensorId, ImportError> {
        let inputs = self.graph.shape(x).c;
        let weight = self.checkpoint.tensor(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])?;
        let bias = self.checkpoint.tensor(&format!("{name}.bias"), &[outputs])?;
        let weight = to_ohwi(&weight, outputs, inputs, kernel);
        let conv = Conv2d { kernel: [kernel; 2], stride, padding, inputs, outputs, weight, bias };
        Ok(self.graph.node(name, Op::Conv2d(conv), &[x]))
    }

    fn norm(&mut self, name: &str, x: TensorId, groups: usize) -> Result<TensorId, ImportError> {
        let channels = self.graph.shape(x).c;
        if !channels.is_multiple_of(groups) {
            return Err(refuse("norm_num_groups", groups, format!("a divisor of the {channels} channels of {name}")));
        }
        let gamma = self.checkpoint.tensor(&format!("{name}.weight"), &[channels])?;
        let beta = self.checkpoint.tensor(&format!("{name}.bias"), &[channels])?;
        Ok(self.graph.node(name, Op::GroupNorm(GroupNorm { groups, eps: self.eps, gamma, beta }), &[x]))
    }

    /// A residual block over one input, or two joined along the channels; its result is divided by `factor`.
    fn resnet(
        &mut self,
        name: &str,
        inputs: &[TensorId],
        outputs: usize,
        factor: f64,
    ) -> Result<TensorId, ImportError> {
        let x = match inputs {
            &[x] => x,
            _ => self.graph.node(format!("{name} (skip)"), Op::Concat, inputs),
        };
        let mut h = self.norm(&format!("{name}.norm1"), x, self.groups)?;
        h = self.graph.node(format!("{name}.act1"), Op::Silu, &[h]);
        h = self.conv(&format!("{name}.conv1"), h, outputs, 3, 1, [1; 4])?;
        let project = linear(self.checkpoint, &format!("{name}.time_emb_proj"), self.embedding, outputs)?;
        h = self.graph.node(format!("{name}.time_emb_proj"), Op::AddEmbedding(project), &[h]);
        h = self.norm(&format!("{name}.norm2"), h, self.groups)?;
        h = self.graph.node(format!("{name}.act2"), Op::Silu, &[h]);
        h = self.conv(&format!("{name}.conv2"), h, outputs, 3, 1, [1; 4])?;
        let mut shortcut = x;
        if self.graph.shape(x).c != outputs {
            shortcut = self.conv(&format!("{name}.conv_shortcut"), x, outputs, 1, 1, [0; 4])?;
        }
        let sum = self.graph.node(format!("{name} (sum)"), Op::Add, &[shortcut, h]);
        Ok(self.divided(name, sum, factor))
    }

    fn attention(
        &mut self,
        name: &str,
        x: TensorId,
        head: usize,
        groups: usize,
        factor: f64,
    ) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let normalized = self.norm(&format!("{name}.group_norm"), x, groups)?;
        let mut projections = [normalized; 3];
        for (projection, (new, old)) in
            projections.iter_mut().zip([("to_q", "query"), ("to_k", "key"), ("to_v", "value")])
        {
            *projection = self.project(name, new, old, normalized, width)?;
        }
        let scale = (head as f32).sqrt().recip();
        let op = Op::Attention { heads: width / head, scale };
        let context = self.graph.node(format!("{name} (context)"), op, &projections);
        let out = self.project(name, "to_out.0", "proj_attn", context, width)?;
        let sum = self.graph.node(format!("{name} (sum)"), Op::Add, &[x, out]);
        Ok(self.divided(name, sum, factor))
    }

    /// A linear layer over pixels, by its key or the key that old versions of diffusers used.
    fn project(
        &mut self,
        name: &str,
        new: &str,
        old: &str,
        x: TensorId,
        width: usize,
    ) -> Result<TensorId, ImportError> {
        let (new, old) = (format!("{name}.{new}"), format!("{name}.{old}"));
        let is_old = !self.checkpoint.has(&format!("{new}.weight")) && self.checkpoint.has(&format!("{old}.weight"));
        let key = if is_old { old } else { new };
        let Linear { weight, bias, .. } = linear(self.checkpoint, &key, width, width)?;
        let conv = Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs: width, outputs: width, weight, bias };
        Ok(self.graph.node(key, Op::Conv2d(conv), &[x]))
    }

    fn divided(&mut self, name: &str, x: TensorId, factor: f64) -> TensorId {
        if factor == 1.0 {
            return x;
        }
        let gain = (1.0 / factor) as f32;
        self.graph.node(format!("{name} (scale)"), Op::Affine { gain, offset: 0.0 }, &[x])
    }
}

/// PyTorch's (output, input, row, column) as (output, row, column, input).
fn to_ohwi(weight: &[f32], outputs: usize, inputs: usize, kernel: usize) -> Vec<f32> {
    let area = kernel * kernel;
    let mut permuted = Vec::with_capacity(weight.len());
    for output in 0..outputs {
        for tap in 0..area {
            permuted.extend((0..inputs).map(|input| weight[(output * inputs + input) * area + tap]));
        }
    }
    permuted
}
