//! The `UNetModel` of OpenAI's improved-diffusion and guided-diffusion (Nichol and Dhariwal, 2021, arXiv:2102.09672; Dhariwal
//! and Nichol, 2021, arXiv:2105.05233): its tensors under the names that diffusers has for the same network.
//!
//! Levels, channels, blocks, attention and conditioning follow from the tensors. What does not is asked for in `config.json`,
//! under the names of these projects' own options.

use serde_json::{Map, Value, json};

use super::super::ImportError;
use super::super::attention::Heads;
use super::super::config::{Fields, refuse};
use super::config::Config;
use super::layout::Layout;
use crate::checkpoint::{Checkpoint, NamedTensor};
use crate::graph::Graph;

/// Groups of every normalization.
const GROUPS: usize = 32;

/// What the tensors do not say.
struct Options {
    image_size: Value,
    heads: Option<Heads>,
    /// Whether the joint projection has all queries first; else each head's queries, keys and values are neighbours.
    use_new_attention_order: Option<bool>,
}

impl Options {
    fn read(checkpoint: &Checkpoint) -> Result<Self, ImportError> {
        let mut config = checkpoint.config().clone();
        // What `--size` gives.
        let size = config.remove("sample_size");
        let mut fields = Fields::new(&config);
        let stated = fields.take("image_size");
        // -1 stands for "by the other one".
        let width = fields.take("num_head_channels").filter(|value| *value != -1);
        let heads = fields.int("num_heads", 8192)?.map(Heads::Count);
        let heads = match width {
            None => heads,
            Some(value) => match value.as_u64() {
                Some(width @ 1..=8192) => Some(Heads::Width(width as usize)),
                _ => return Err(refuse("num_head_channels", value, "-1, or an integer from 1 to 8192")),
            },
        };
        let use_new_attention_order = match fields.take("use_new_attention_order") {
            None => None,
            Some(Value::Bool(flag)) => Some(flag),
            Some(value) => return Err(refuse("use_new_attention_order", value, "true or false")),
        };
        if let Some(value) = fields.take("num_heads_upsample").filter(|value| *value != -1) {
            return Err(refuse("num_heads_upsample", value, "-1: as many heads on the way up as on the way down"));
        }
        if fields.flag("rescale_timesteps", false)?
            && checkpoint.scheduler().is_ok_and(|scheduler| scheduler.num_train_timesteps != 1000)
        {
            return Err(refuse("rescale_timesteps", true, "false, or 1000 timesteps, which are not rescaled"));
        }
        // They change how it was trained or runs, or follow from the tensors.
        for field in [
            "attention_resolutions",
            "channel_mult",
            "class_cond",
            "dropout",
            "learn_sigma",
            "num_channels",
            "num_classes",
            "num_res_blocks",
            "resblock_updown",
            "use_checkpoint",
            "use_fp16",
            "use_scale_shift_norm",
        ] {
            fields.take(field);
        }
        fields.finish()?;
        let image_size = size.or(stated).unwrap_or(Value::Null);
        Ok(Self { image_size, heads, use_new_attention_order })
    }
}

/// Imports the network.
pub(in super::super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let options = Options::read(checkpoint)?;
    let layout = Layout::find(checkpoint)?;
    let has_attention = checkpoint.has("middle_block.1.qkv.weight");
    let heads = match options.heads {
        Some(heads) => heads,
        None if has_attention => {
            return Err(refuse("num_heads", "null", "the tensors do not say: give num_heads or num_head_channels"));
        }
        None => Heads::Count(1),
    };
    let mut config = Config::read(&configuration(checkpoint, &layout, options.image_size)?)?;
    config.heads = heads;
    let order = match (heads, options.use_new_attention_order) {
        // With one head both are the same.
        (Heads::Count(1), _) => Order::ByPart,
        (_, Some(true)) => Order::ByPart,
        (_, Some(false)) => Order::ByHead,
        (_, None) => {
            let expected = "the tensors do not say: true or false, as the training had it; false is its own default, and what \
                            improved-diffusion does";
            return Err(refuse("use_new_attention_order", "null", expected));
        }
    };
    let mut translation = Translation { from: checkpoint, heads, order, tensors: vec![] };
    translation.network(&layout)?;
    let translated = checkpoint.with_tensors(&translation.tensors)?;
    let graph = super::build(&translated, &config, None)?;
    super::super::refuse_unused(&translated)?;
    Ok(Graph { params: checkpoint.params(), ..graph })
}

/// The configuration of the same network in diffusers.
fn configuration(
    checkpoint: &Checkpoint,
    layout: &Layout,
    image_size: Value,
) -> Result<Map<String, Value>, ImportError> {
    let first = |key: &str, axis: usize| -> Result<usize, ImportError> {
        let shape = checkpoint.shape(key).ok_or_else(|| ImportError::Layout { what: format!("there is no {key}") })?;
        shape.get(axis).copied().ok_or_else(|| ImportError::Layout { what: format!("{key} has shape {shape:?}") })
    };
    let projected = first("middle_block.0.emb_layers.1.weight", 0)?;
    let width = first("middle_block.0.out_layers.3.weight", 0)?;
    let resample = if layout.resnets_resample { "resnet" } else { "conv" };
    let blocks = |attention: &str, resnet: &str, plain: &str| -> Vec<String> {
        let last = layout.levels.len() - 1;
        let name = |(at, level): (usize, &super::layout::Level)| match (level.attention, layout.resnets_resample) {
            (true, _) => attention,
            (false, true) if at < last => resnet,
            (false, _) => plain,
        };
        layout.levels.iter().enumerate().map(|level| name(level).to_string()).collect()
    };
    let mut up = blocks("AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D");
    // The first level is the last on the way up, which doubles nothing; the last level is the first and does.
    if layout.resnets_resample && layout.levels.len() > 1 {
        for (name, level) in up.iter_mut().zip(&layout.levels).skip(1) {
            *name = if level.attention { "AttnUpBlock2D" } else { "ResnetUpsampleBlock2D" }.into();
        }
    }
    up.reverse();
    let config = json!({
        "sample_size": image_size,
        "in_channels": first("input_blocks.0.0.weight", 1)?,
        "out_channels": first("out.2.weight", 0)?,
        "block_out_channels": layout.levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
        "layers_per_block": layout.layers,
        "down_block_types": blocks("AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": up,
        "downsample_type": resample,
        "upsample_type": resample,
        "add_attention": checkpoint.has("middle_block.1.qkv.weight"),
        "norm_num_groups": GROUPS,
        "attn_norm_num_groups": GROUPS,
        "time_embedding_dim": first("time_embed.0.weight", 0)?,
        "resnet_time_scale_shift": if projected == 2 * width { "scale_shift" } else { "default" },
        "num_class_embeds": checkpoint.shape("label_emb.weight").and_then(|shape| shape.first().copied()),
    });
    let Value::Object(config) = config else { unreachable!("an object was written") };
    Ok(config)
}

/// How a joint projection orders its outputs.
#[derive(Clone, Copy)]
enum Order {
    /// Queries of all heads, then keys, then values.
    ByPart,
    /// Of each head its queries, keys and values.
    ByHead,
}

/// Tensors on their way to other names.
struct Translation<'c> {
    from: &'c Checkpoint,
    heads: Heads,
    order: Order,
    tensors: Vec<NamedTensor>,
}

impl Translation<'_> {
    fn network(&mut self, layout: &Layout) -> Result<(), ImportError> {
        for (from, to) in [
            ("input_blocks.0.0", "conv_in"),
            ("time_embed.0", "time_embedding.linear_1"),
            ("time_embed.2", "time_embedding.linear_2"),
            ("out.0", "conv_norm_out"),
            ("out.2", "conv_out"),
        ] {
            self.layer(from, to)?;
        }
        if self.from.has("label_emb.weight") {
            self.tensor("label_emb.weight", "class_embedding.weight")?;
        }
        let levels = layout.levels.len();
        for (index, level) in layout.levels.iter().enumerate() {
            let to = format!("down_blocks.{index}");
            for layer in 0..layout.layers {
                let from = format!("input_blocks.{}", layout.input(index, layer));
                self.resnet(&format!("{from}.0"), &format!("{to}.resnets.{layer}"))?;
                if level.attention {
                    self.attention(&format!("{from}.1"), &format!("{to}.attentions.{layer}"))?;
                }
            }
            if index + 1 < levels {
                let from = format!("input_blocks.{}.0", layout.input(index, layout.layers));
                let to = format!("{to}.downsamplers.0");
                if layout.resnets_resample {
                    self.resnet(&from, &to)?;
                } else {
                    self.layer(&format!("{from}.op"), &format!("{to}.conv"))?;
                }
            }
            let to = format!("up_blocks.{}", levels - 1 - index);
            for layer in 0..=layout.layers {
                let from = format!("output_blocks.{}", layout.output(index, layer));
                self.resnet(&format!("{from}.0"), &format!("{to}.resnets.{layer}"))?;
                if level.attention {
                    self.attention(&format!("{from}.1"), &format!("{to}.attentions.{layer}"))?;
                }
            }
            if index > 0 {
                let part = 1 + usize::from(level.attention);
                let from = format!("output_blocks.{}.{part}", layout.output(index, layout.layers));
                let to = format!("{to}.upsamplers.0");
                if layout.resnets_resample {
                    self.resnet(&from, &to)?;
                } else {
                    self.layer(&format!("{from}.conv"), &format!("{to}.conv"))?;
                }
            }
        }
        self.resnet("middle_block.0", "mid_block.resnets.0")?;
        if self.from.has("middle_block.1.qkv.weight") {
            self.attention("middle_block.1", "mid_block.attentions.0")?;
            return self.resnet("middle_block.2", "mid_block.resnets.1");
        }
        self.resnet("middle_block.1", "mid_block.resnets.1")
    }

    fn resnet(&mut self, from: &str, to: &str) -> Result<(), ImportError> {
        for (part, name) in [
            ("in_layers.0", "norm1"),
            ("in_layers.2", "conv1"),
            ("emb_layers.1", "time_emb_proj"),
            ("out_layers.0", "norm2"),
            ("out_layers.3", "conv2"),
        ] {
            self.layer(&format!("{from}.{part}"), &format!("{to}.{name}"))?;
        }
        let shortcut = format!("{from}.skip_connection");
        if self.from.has(&format!("{shortcut}.weight")) {
            self.layer(&shortcut, &format!("{to}.conv_shortcut"))?;
        }
        Ok(())
    }

    fn attention(&mut self, from: &str, to: &str) -> Result<(), ImportError> {
        self.layer(&format!("{from}.norm"), &format!("{to}.group_norm"))?;
        let key = format!("{from}.norm.weight");
        let width = self.from.shape(&key).and_then(|shape| shape.first().copied()).unwrap_or(0);
        let head = match self.heads {
            Heads::Width(head) => head,
            Heads::Count(count) => width / count,
        };
        if head == 0
            || !width.is_multiple_of(head)
            || matches!(self.heads, Heads::Count(count) if count * head != width)
        {
            let value = format!("{head} channels a head");
            return Err(refuse("num_heads", value, format!("heads of equal width of the {width} channels of {from}")));
        }
        let weight = self.from.tensor(&format!("{from}.qkv.weight"), &[3 * width, width, 1])?;
        let bias = self.from.tensor(&format!("{from}.qkv.bias"), &[3 * width])?;
        for (part, name) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
            let row = |output: usize| match self.order {
                Order::ByPart => part * width + output,
                Order::ByHead => output / head * 3 * head + part * head + output % head,
            };
            let weight: Vec<f32> =
                (0..width).flat_map(|output| &weight[row(output) * width..][..width]).copied().collect();
            let bias = (0..width).map(|output| bias[row(output)]).collect();
            self.push(format!("{to}.{name}.weight"), vec![width; 2], weight);
            self.push(format!("{to}.{name}.bias"), vec![width], bias);
        }
        let weight = self.from.tensor(&format!("{from}.proj_out.weight"), &[width, width, 1])?;
        self.push(format!("{to}.to_out.0.weight"), vec![width; 2], weight);
        self.tensor(&format!("{from}.proj_out.bias"), &format!("{to}.to_out.0.bias"))
    }

    /// The weight and the bias of a layer.
    fn layer(&mut self, from: &str, to: &str) -> Result<(), ImportError> {
        for part in ["weight", "bias"] {
            self.tensor(&format!("{from}.{part}"), &format!("{to}.{part}"))?;
        }
        Ok(())
    }

    /// A tensor as it is.
    fn tensor(&mut self, from: &str, to: &str) -> Result<(), ImportError> {
        let shape = self.from.shape(from).unwrap_or_default().to_vec();
        let values = self.from.tensor(from, &shape)?;
        self.push(to.into(), shape, values);
        Ok(())
    }

    fn push(&mut self, key: String, shape: Vec<usize>, values: Vec<f32>) {
        self.tensors.push(NamedTensor { key, shape, values });
    }
}
