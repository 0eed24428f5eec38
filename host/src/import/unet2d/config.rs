//! The configuration of a `UNet2DModel`.

use serde_json::{Map, Value};

use super::super::ImportError;
use super::super::attention::Heads;
use super::super::builder::{Conditioning, quarter};
use super::super::config::{ACTIVATIONS, Fields, refuse};
use super::kind::{ClassEmbedding, DownBlock, Resampler, TimeEmbedding, UpBlock};
use crate::graph::Activation;

/// The fields that change the network, with diffusers' defaults.
pub(super) struct Config {
    pub(super) size: [usize; 2],
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) center_input_sample: bool,
    pub(super) time_embedding_type: TimeEmbedding,
    pub(super) time_embedding_dim: Option<usize>,
    pub(super) freq_shift: f64,
    pub(super) flip_sin_to_cos: bool,
    pub(super) down: Vec<DownBlock>,
    pub(super) up: Vec<UpBlock>,
    pub(super) downsample_type: Resampler,
    pub(super) upsample_type: Resampler,
    pub(super) mid_block: bool,
    pub(super) mid_attention: bool,
    pub(super) channels: Vec<usize>,
    pub(super) layers_per_block: usize,
    pub(super) mid_block_scale_factor: f64,
    pub(super) downsample_padding: usize,
    pub(super) heads: Heads,
    /// `None`: a [quarter] of the channels.
    pub(super) norm_num_groups: Option<usize>,
    pub(super) attn_norm_num_groups: Option<usize>,
    pub(super) norm_eps: f64,
    pub(super) act_fn: Activation,
    pub(super) resnet_time_scale_shift: Conditioning,
    pub(super) class_embed_type: ClassEmbedding,
    pub(super) num_class_embeds: Option<usize>,
    /// Read with learned time embeddings only.
    pub(super) num_train_timesteps: Option<usize>,
}

impl Config {
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, ImportError> {
        let mut fields = Fields::new(config);
        let resamplers = [("conv", Resampler::Conv), ("resnet", Resampler::Resnet)];
        let read = Self {
            size: size(fields.take("sample_size"))?,
            in_channels: fields.count("in_channels", 3, 1024)?,
            out_channels: fields.count("out_channels", 3, 1024)?,
            center_input_sample: fields.flag("center_input_sample", false)?,
            time_embedding_type: fields.choice("time_embedding_type", &TimeEmbedding::SUPPORTED)?,
            time_embedding_dim: fields.int("time_embedding_dim", 1 << 15)?,
            freq_shift: fields.float("freq_shift", 0.0)?,
            flip_sin_to_cos: fields.flag("flip_sin_to_cos", true)?,
            down: fields.choices("down_block_types", DownBlock::named)?.unwrap_or_else(|| {
                use DownBlock::{AttnDown, Down};
                vec![Down, AttnDown, AttnDown, AttnDown]
            }),
            up: fields.choices("up_block_types", UpBlock::named)?.unwrap_or_else(|| {
                use UpBlock::{AttnUp, Up};
                vec![AttnUp, AttnUp, AttnUp, Up]
            }),
            downsample_type: fields.choice_or_null("downsample_type", &resamplers)?,
            upsample_type: fields.choice_or_null("upsample_type", &resamplers)?,
            mid_block: match fields.take_stated("mid_block_type") {
                Some(Value::Null) => false,
                None => true,
                Some(Value::String(name)) if name == "UNetMidBlock2D" => true,
                Some(value) => return Err(refuse("mid_block_type", value, "supported: UNetMidBlock2D, null")),
            },
            mid_attention: fields.flag("add_attention", true)?,
            channels: channels(fields.take_stated("block_out_channels"))?,
            layers_per_block: fields.count("layers_per_block", 2, 64)?,
            mid_block_scale_factor: fields.float("mid_block_scale_factor", 1.0)?,
            downsample_padding: match fields.take_stated("downsample_padding") {
                None => 1,
                Some(value) => match value.as_u64() {
                    Some(padding @ 0..=1024) => padding as usize,
                    _ => return Err(refuse("downsample_padding", value, "0 or 1")),
                },
            },
            heads: match fields.int("attention_head_dim", 8192)? {
                Some(width) => Heads::Width(width),
                None if config.contains_key("attention_head_dim") => Heads::Count(1),
                None => Heads::Width(8),
            },
            norm_num_groups: match fields.int("norm_num_groups", 8192)? {
                None if config.contains_key("norm_num_groups") => None,
                stated => Some(stated.unwrap_or(32)),
            },
            attn_norm_num_groups: fields.int("attn_norm_num_groups", 8192)?,
            norm_eps: fields.float("norm_eps", 1e-5)?,
            act_fn: fields.choice_in_any_case("act_fn", &ACTIVATIONS)?,
            resnet_time_scale_shift: fields.choice(
                "resnet_time_scale_shift",
                &[("default", Conditioning::Add), ("scale_shift", Conditioning::ScaleShift)],
            )?,
            class_embed_type: match fields.take("class_embed_type") {
                None => ClassEmbedding::Table,
                Some(Value::String(name)) if name == "timestep" => ClassEmbedding::Timestep,
                Some(Value::String(name)) if name == "identity" => ClassEmbedding::Identity,
                Some(value) => return Err(refuse("class_embed_type", value, "supported: null, timestep, identity")),
            },
            num_class_embeds: fields.int("num_class_embeds", 65_534)?,
            num_train_timesteps: fields.int("num_train_timesteps", 1 << 20)?,
        };
        // It does not change what a trained network computes.
        fields.take("dropout");
        fields.finish()?;
        read.check()?;
        Ok(read)
    }

    /// Groups of the normalization before the attention in the middle; with scaling and shifting diffusers leaves it out,
    /// unless groups are stated.
    pub(super) fn mid_groups(&self) -> Option<usize> {
        match (self.attn_norm_num_groups, self.resnet_time_scale_shift) {
            (None, Conditioning::Add) => self.channels.last().map(|&channels| self.groups(channels)),
            (stated, _) => stated,
        }
    }

    /// Groups of a normalization of so many channels, where a block has none of its own.
    pub(super) fn groups(&self, channels: usize) -> usize {
        self.norm_num_groups.unwrap_or(quarter(channels))
    }

    /// Whether some block halves its map by a convolution, which `downsample_padding` is for.
    fn has_strided_convolution(&self) -> bool {
        let halving = self.down.iter().take(self.channels.len() - 1);
        halving.clone().any(|block| block.resampler(self.downsample_type) == Resampler::Conv)
    }

    /// What diffusers asks of blocks that resample by FIR filters when it runs them: pictures of three channels, of the size of
    /// the block's map.
    fn check_filters(&self) -> Result<(), ImportError> {
        let last = self.channels.len() - 1;
        let (down, up): (Vec<bool>, Vec<bool>) = (
            self.down.iter().map(|block| block.filters()).collect(),
            self.up.iter().map(|block| block.filters()).collect(),
        );
        if self.norm_num_groups.is_none() && down.iter().chain(&up).any(|filters| !filters) {
            return Err(refuse(
                "norm_num_groups",
                "null",
                "a number, where not all blocks are SkipDownBlock2D and the like",
            ));
        }
        // The last block on the way down and the last on the way up have the map of the one before and resample nothing.
        let halves = down[..last].iter().rposition(|&filters| filters);
        if let Some(index) = halves.filter(|&index| down[..index].contains(&false)) {
            let expected =
                format!("blocks that filter before block {index}, which does, or its picture is of another size");
            return Err(refuse("down_block_types", "other blocks before", expected));
        }
        let doubles = up[..last].iter().position(|&filters| filters);
        if let Some(index) = doubles.filter(|&index| up[index..].contains(&false)) {
            let expected =
                format!("blocks that filter behind block {index}, which does, or its picture is of another size");
            return Err(refuse("up_block_types", "other blocks behind", expected));
        }
        for (field, channels, filters) in [
            ("in_channels", self.in_channels, halves.is_some()),
            ("out_channels", self.out_channels, doubles.is_some()),
        ] {
            if filters && channels != PICTURE {
                return Err(refuse(field, channels, "3, as the path of pictures beside blocks that filter has"));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ImportError> {
        let blocks = self.channels.len();
        for (field, len) in [("down_block_types", self.down.len()), ("up_block_types", self.up.len())] {
            if len != blocks {
                let expected = format!("as many as block_out_channels: {blocks}");
                return Err(refuse(field, format!("{len} blocks"), expected));
            }
        }
        let step = 1 << (blocks - 1);
        if !self.size[0].is_multiple_of(step) || !self.size[1].is_multiple_of(step) {
            let expected = format!("multiples of {step}, or skip connections do not fit");
            return Err(refuse("sample_size", format!("{:?}", self.size), expected));
        }
        if self.downsample_padding > 1 && self.has_strided_convolution() {
            return Err(refuse(
                "downsample_padding",
                self.downsample_padding,
                "0 or 1, or skip connections do not fit",
            ));
        }
        if self.channels[0] < 2 {
            return Err(refuse("block_out_channels", self.channels[0], "a first entry of at least 2"));
        }
        if let (Some(groups), Some(width)) = (self.attn_norm_num_groups, self.channels.last())
            && !width.is_multiple_of(groups)
        {
            return Err(refuse("attn_norm_num_groups", groups, format!("a divisor of {width} channels")));
        }
        if self.time_embedding_type == TimeEmbedding::Learned && self.num_train_timesteps.is_none() {
            return Err(refuse("num_train_timesteps", "null", "a learned time embedding needs it"));
        }
        self.check_filters()?;
        if self.mid_block_scale_factor == 0.0 {
            return Err(refuse("mid_block_scale_factor", self.mid_block_scale_factor, "another number than 0"));
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

/// Channels of the path of pictures beside blocks that filter, whatever the network's.
pub(super) const PICTURE: usize = 3;

fn size(value: Option<Value>) -> Result<[usize; 2], ImportError> {
    let list: Option<Vec<u64>> = match &value {
        Some(Value::Number(n)) => n.as_u64().map(|n| vec![n, n]),
        Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
        _ => None,
    };
    match list.as_deref() {
        Some(&[h, w]) if (1..=1024).contains(&h) && (1..=1024).contains(&w) => Ok([h as usize, w as usize]),
        _ => {
            let value = value.unwrap_or(Value::Null);
            let expected = "the plan is for one size: give the height and width to draw, from 1 to 1024 each";
            Err(refuse("sample_size", value, expected))
        }
    }
}

fn channels(value: Option<Value>) -> Result<Vec<usize>, ImportError> {
    let Some(value) = value else { return Ok(vec![224, 448, 672, 896]) };
    serde_json::from_value::<Vec<usize>>(value.clone())
        .ok()
        .filter(|list| (1..=16).contains(&list.len()) && list.iter().all(|c| (1..=8192).contains(c)))
        .ok_or_else(|| refuse("block_out_channels", value, "1 to 16 channel counts from 1 to 8192"))
}
