//! The kinds of blocks that a `UNet2DModel` is made of.

use super::super::ImportError;
use super::super::attention::Attention;
use super::super::builder::{Builder, Window, quarter};
use super::super::resample::Resample;
use super::super::resnet::Residual;
use super::config::{Config, PICTURE};
use super::kind::{Resampler, UpBlock};
use crate::graph::{Activation, Op, TensorId};

/// What blocks leave for others.
pub(super) struct Left {
    /// Results on the way down; the way up takes the last first.
    pub(super) skips: Vec<TensorId>,
    /// What blocks that filter halve beside their map: the sample.
    pub(super) sample: TensorId,
    /// What they double and add to, and the prediction in the end.
    pub(super) picture: Option<TensorId>,
}

/// Groups of the attention of blocks that filter.
const FILTERED_ATTENTION_GROUPS: usize = 32;

impl Builder<'_> {
    /// A block on the way down; each of its results is kept for the way up.
    pub(super) fn down_block(
        &mut self,
        index: usize,
        config: &Config,
        mut x: TensorId,
        left: &mut Left,
    ) -> Result<TensorId, ImportError> {
        let (path, kind, width) = (format!("down_blocks.{index}"), config.down[index], config.channels[index]);
        let is_filtered = kind.filters();
        for layer in 0..config.layers_per_block {
            let first = is_filtered.then(|| quarter(self.graph.shape(x).c));
            x = self.resnet(&format!("{path}.resnets.{layer}"), &[x], width, config.residual(first, width))?;
            if kind.has_attention() {
                let attention = config.attention(is_filtered, width);
                x = self.attention(&format!("{path}.attentions.{layer}"), x, attention)?;
            }
            left.skips.push(x);
        }
        if index + 1 < config.channels.len() {
            let (name, residual) = (format!("{path}.downsamplers.0"), config.residual(None, width));
            x = match kind.resampler(config.downsample_type) {
                Resampler::Conv => self.downsample(&name, x, config.downsample_padding)?,
                Resampler::Resnet => self.resampling_resnet(&name, x, Resample::Mean, residual)?,
                Resampler::Fir => {
                    let residual = config.residual(Some(quarter(width)), width);
                    let h = self.resampling_resnet(&format!("{path}.resnet_down"), x, Resample::FirHalf, residual)?;
                    left.sample = self.resampled(&name, left.sample, Resample::FirHalf);
                    let name = format!("{path}.skip_conv");
                    let sample = self.conv(&name, left.sample, width, Window::POINT)?;
                    self.residual(&name, [sample, h], 1.0)
                }
            };
            left.skips.push(x);
        }
        Ok(x)
    }

    /// The blocks in the middle.
    pub(super) fn mid_block(&mut self, config: &Config, mut x: TensorId) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let factor = config.mid_block_scale_factor;
        let residual = Residual { groups: [config.groups(width); 2], factor };
        x = self.resnet("mid_block.resnets.0", &[x], width, residual)?;
        if config.mid_attention {
            let groups = config.mid_groups();
            let attention = Attention { heads: config.heads, groups, factor };
            x = self.attention("mid_block.attentions.0", x, attention)?;
        }
        self.resnet("mid_block.resnets.1", &[x], width, residual)
    }

    /// A block on the way up; it takes the skips that were kept last.
    pub(super) fn up_block(
        &mut self,
        index: usize,
        config: &Config,
        mut x: TensorId,
        left: &mut Left,
    ) -> Result<TensorId, ImportError> {
        let blocks = config.channels.len();
        let (path, kind) = (format!("up_blocks.{index}"), config.up[index]);
        let width = config.channels[blocks - 1 - index];
        let is_filtered = kind.filters();
        for layer in 0..=config.layers_per_block {
            // As many were pushed: one, and a layer or a downsampler each.
            let skip = left.skips.pop().expect("up blocks take what down blocks left");
            let [own, kept] = [x, skip].map(|id| self.graph.shape(id).c);
            let first = match kind {
                // diffusers divides the skip's channels only.
                UpBlock::AttnSkipUp => Some((own + kept / 4).min(32)),
                _ => is_filtered.then(|| quarter(own + kept)),
            };
            x = self.resnet(&format!("{path}.resnets.{layer}"), &[x, skip], width, config.residual(first, width))?;
            if kind.has_attention(layer, config.layers_per_block) {
                let number = if is_filtered { 0 } else { layer };
                let attention = config.attention(is_filtered, width);
                x = self.attention(&format!("{path}.attentions.{number}"), x, attention)?;
            }
        }
        if let Some(picture) = left.picture.filter(|_| is_filtered) {
            left.picture = Some(self.resampled(&format!("{path}.upsampler"), picture, Resample::FirDouble));
        }
        if index + 1 < blocks {
            let (name, residual) = (format!("{path}.upsamplers.0"), config.residual(None, width));
            x = match kind.resampler(config.upsample_type) {
                Resampler::Conv => self.upsample(&name, x)?,
                Resampler::Resnet => self.resampling_resnet(&name, x, Resample::Nearest, residual)?,
                Resampler::Fir => {
                    left.picture = Some(self.picture(&path, x, left.picture)?);
                    let residual = config.residual(Some(quarter(width)), width);
                    self.resampling_resnet(&format!("{path}.resnet_up"), x, Resample::FirDouble, residual)?
                }
            };
        }
        Ok(x)
    }

    /// What a block that filters adds to the picture on the way up.
    fn picture(&mut self, path: &str, x: TensorId, picture: Option<TensorId>) -> Result<TensorId, ImportError> {
        let groups = quarter(self.graph.shape(x).c);
        let own = self.norm(&format!("{path}.skip_norm"), x, groups)?;
        // Whatever the activation of the blocks.
        let own = self.graph.node(format!("{path}.act"), Op::Activation(Activation::Silu), &[own]);
        let name = format!("{path}.skip_conv");
        let own = self.conv(&name, own, PICTURE, Window::SAME)?;
        Ok(picture.map_or(own, |picture| self.residual(&name, [picture, own], 1.0)))
    }
}

impl Config {
    /// What residual blocks of so many channels have that the tensors do not say; blocks that filter have groups of their own,
    /// of which `filtered` is the first normalization's.
    fn residual(&self, filtered: Option<usize>, width: usize) -> Residual {
        match filtered {
            Some(first) => Residual { groups: [first, quarter(width)], factor: std::f64::consts::SQRT_2 },
            None => Residual { groups: [self.groups(width); 2], factor: 1.0 },
        }
    }

    /// The same of attentions.
    fn attention(&self, is_filtered: bool, width: usize) -> Attention {
        let (groups, factor) =
            if is_filtered { (FILTERED_ATTENTION_GROUPS, std::f64::consts::SQRT_2) } else { (self.groups(width), 1.0) };
        Attention { heads: self.heads, groups: Some(groups), factor }
    }
}
