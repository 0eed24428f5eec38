//! The kinds of blocks that a `UNet2DModel` is made of.

use super::super::ImportError;
use super::super::attention::Attention;
use super::super::builder::Builder;
use super::super::resample::Resample;
use super::config::Config;
use super::kind::Resampler;
use crate::graph::TensorId;

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
            x = match kind.resampler(config.downsample_type) {
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
            let groups = config.mid_groups();
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
            x = match kind.resampler(config.upsample_type) {
                Resampler::Conv => self.upsample(&name, x)?,
                Resampler::Resnet => self.resampling_resnet(&name, x, Resample::Nearest)?,
            };
        }
        Ok(x)
    }

    fn block_attention(&self, config: &Config) -> Attention {
        Attention { heads: config.heads, groups: Some(self.groups), factor: 1.0 }
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
