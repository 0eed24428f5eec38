//! The kinds of blocks that a `UNet2DModel` is made of.

use super::super::ImportError;
use super::super::attention::Attention;
use super::super::builder::Builder;
use super::super::resample::Resample;
use super::config::{Config, Resampler};
use crate::graph::TensorId;

/// A block on the way down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DownBlock {
    Down,
    AttnDown,
    ResnetDown,
}

/// A block on the way up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpBlock {
    Up,
    AttnUp,
    ResnetUp,
}

/// Old versions of diffusers wrote this before the name of a block.
const OLD_PREFIX: &str = "UNetRes";

impl DownBlock {
    pub(super) const SUPPORTED: &str = "DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D";

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "DownBlock2D" => Self::Down,
            "AttnDownBlock2D" => Self::AttnDown,
            "ResnetDownsampleBlock2D" => Self::ResnetDown,
            _ => return None,
        })
    }

    fn has_attention(self) -> bool {
        match self {
            Self::AttnDown => true,
            Self::Down | Self::ResnetDown => false,
        }
    }

    /// How it ends; diffusers reads `downsample_type` for blocks with attention only.
    fn resampler(self, config: &Config) -> Resampler {
        match self {
            Self::Down => Resampler::Conv,
            Self::AttnDown => config.downsample_type,
            Self::ResnetDown => Resampler::Resnet,
        }
    }
}

impl UpBlock {
    pub(super) const SUPPORTED: &str = "UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D";

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "UpBlock2D" => Self::Up,
            "AttnUpBlock2D" => Self::AttnUp,
            "ResnetUpsampleBlock2D" => Self::ResnetUp,
            _ => return None,
        })
    }

    fn has_attention(self) -> bool {
        match self {
            Self::AttnUp => true,
            Self::Up | Self::ResnetUp => false,
        }
    }

    /// How it ends; diffusers reads `upsample_type` for blocks with attention only.
    fn resampler(self, config: &Config) -> Resampler {
        match self {
            Self::Up => Resampler::Conv,
            Self::AttnUp => config.upsample_type,
            Self::ResnetUp => Resampler::Resnet,
        }
    }
}

impl Builder<'_> {
    /// A block on the way down; each of its results is kept for the way up.
    pub(super) fn down_block(
        &mut self,
        index: usize,
        config: &Config,
        mut x: TensorId,
        skips: &mut Vec<TensorId>,
    ) -> Result<TensorId, ImportError> {
        let (path, kind, width) = (format!("down_blocks.{index}"), config.down[index], config.channels[index]);
        for layer in 0..config.layers_per_block {
            x = self.layer(&path, layer, &[x], width, kind.has_attention().then(|| self.block_attention(config)))?;
            skips.push(x);
        }
        if index + 1 < config.channels.len() {
            let name = format!("{path}.downsamplers.0");
            x = match kind.resampler(config) {
                Resampler::Conv => self.downsample(&name, x, config.downsample_padding)?,
                Resampler::Resnet => self.resampling_resnet(&name, x, Resample::Mean)?,
            };
            skips.push(x);
        }
        Ok(x)
    }

    /// The blocks in the middle.
    pub(super) fn mid_block(&mut self, config: &Config, mut x: TensorId) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let factor = config.mid_block_scale_factor;
        x = self.resnet("mid_block.resnets.0", &[x], width, factor)?;
        if config.mid_attention {
            let groups = config.mid_groups(width)?;
            let attention = Attention { groups, factor, ..self.block_attention(config) };
            x = self.attention("mid_block.attentions.0", x, attention)?;
        }
        self.resnet("mid_block.resnets.1", &[x], width, factor)
    }

    /// A block on the way up; it takes the skips that were kept last.
    pub(super) fn up_block(
        &mut self,
        index: usize,
        config: &Config,
        mut x: TensorId,
        skips: &mut Vec<TensorId>,
    ) -> Result<TensorId, ImportError> {
        let blocks = config.channels.len();
        let (path, kind) = (format!("up_blocks.{index}"), config.up[index]);
        let width = config.channels[blocks - 1 - index];
        for layer in 0..=config.layers_per_block {
            // As many were pushed: one, and a layer or a downsampler each.
            let skip = skips.pop().expect("up blocks take what down blocks left");
            let attention = kind.has_attention().then(|| self.block_attention(config));
            x = self.layer(&path, layer, &[x, skip], width, attention)?;
        }
        if index + 1 < blocks {
            let name = format!("{path}.upsamplers.0");
            x = match kind.resampler(config) {
                Resampler::Conv => self.upsample(&name, x)?,
                Resampler::Resnet => self.resampling_resnet(&name, x, Resample::Nearest)?,
            };
        }
        Ok(x)
    }

    fn block_attention(&self, config: &Config) -> Attention {
        Attention { head: config.attention_head_dim, groups: self.groups, factor: 1.0 }
    }

    fn layer(
        &mut self,
        path: &str,
        layer: usize,
        inputs: &[TensorId],
        width: usize,
        attention: Option<Attention>,
    ) -> Result<TensorId, ImportError> {
        let x = self.resnet(&format!("{path}.resnets.{layer}"), inputs, width, 1.0)?;
        match attention {
            Some(attention) => self.attention(&format!("{path}.attentions.{layer}"), x, attention),
            None => Ok(x),
        }
    }
}
