//! The blocks: three residual blocks of two convolutions, with attention behind each or without, or residual blocks that the timestep
//! conditions.

use super::super::ImportError;
use super::super::attention::{Attention, Heads};
use super::super::builder::{Builder, linear};
use super::super::config::refuse;
use super::super::row::Keys;
use super::config::{Config, Down, Up};
use crate::graph::{Activation, Op, Resampling, TensorId};

/// Steps of the kernels of all convolutions but those that change the number of channels or steps.
const KERNEL: usize = 5;
/// Groups of the normalizations of residual blocks that the timestep conditions.
const GROUPS: usize = 8;
/// Channels of a head.
const HEAD: usize = 32;
/// The filter of halving, which checkpoints hold too.
const CUBIC: [f32; 8] = [
    -0.011_718_75,
    -0.035_156_25,
    0.113_281_25,
    0.433_593_75,
    0.433_593_75,
    0.113_281_25,
    -0.035_156_25,
    -0.011_718_75,
];

/// Whether a residual block ends with an activation, as all do but the last of a network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Activation,
    Bare,
}

impl Builder<'_> {
    /// A block on the way down of so many outputs, residual blocks and halvings: its result, and what it leaves for the way up.
    pub(super) fn row_down(
        &mut self,
        name: &str,
        block: Down,
        x: TensorId,
        [outputs, layers, halvings]: [usize; 3],
    ) -> Result<(TensorId, TensorId), ImportError> {
        match block {
            Down::NoSkip => self.three(name, x, [outputs; 3], (false, End::Activation)).map(|x| (x, x)),
            Down::Plain | Down::Attention => {
                let x = self.row_filtered(&format!("{name}.down"), x, Resampling::Halve)?;
                let x = self.three(name, x, [outputs; 3], (block == Down::Attention, End::Activation))?;
                Ok((x, x))
            }
            Down::Resnet => {
                let skip = self.conditioned(name, x, outputs, layers)?;
                match halvings {
                    0 => Ok((skip, skip)),
                    _ => Ok((self.row_conv(&format!("{name}.downsample.conv"), skip, outputs, [3, 2, 1])?, skip)),
                }
            }
        }
    }

    /// A block on the way up of so many inputs without the skip's, outputs, residual blocks and doublings.
    pub(super) fn row_up(
        &mut self,
        name: &str,
        block: Up,
        x: TensorId,
        [inputs, outputs, layers, doublings]: [usize; 4],
    ) -> Result<TensorId, ImportError> {
        let up = format!("{name}.up");
        match block {
            Up::NoSkip => self.three(name, x, [inputs, inputs, outputs], (false, End::Bare)),
            Up::Plain => {
                let x = self.three(name, x, [inputs, inputs, outputs], (false, End::Activation))?;
                self.row_filtered(&up, x, Resampling::Double)
            }
            Up::Attention => {
                let x = self.three(name, x, [outputs; 3], (true, End::Activation))?;
                self.row_filtered(&up, x, Resampling::Double)
            }
            Up::Resnet => {
                let x = self.conditioned(name, x, outputs, layers)?;
                match doublings {
                    0 => Ok(x),
                    _ => self.row_transposed(&format!("{name}.upsample.conv"), x),
                }
            }
        }
    }

    /// `UNetMidBlock1D`.
    pub(super) fn row_middle(&mut self, x: TensorId, channels: usize) -> Result<TensorId, ImportError> {
        let mut x = self.row_filtered("mid_block.down", x, Resampling::Halve)?;
        for index in 0..6 {
            x = self.res_conv(&format!("mid_block.resnets.{index}"), x, [channels; 2], End::Activation)?;
            x = self.row_attention(&format!("mid_block.attentions.{index}"), x)?;
        }
        self.row_filtered("mid_block.up", x, Resampling::Double)
    }

    /// `MidResTemporalBlock1D`.
    pub(super) fn row_middle_resnet(&mut self, x: TensorId, config: &Config) -> Result<TensorId, ImportError> {
        let channels = config.channels[config.channels.len() - 1];
        let x = self.conditioned("mid_block", x, channels, config.layers_per_block + 1)?;
        match config.downsample_each_block {
            false => Ok(x),
            true => self.row_conv("mid_block.downsample.conv", x, channels, [3, 2, 1]),
        }
    }

    /// `ValueFunctionMidBlock1D`.
    pub(super) fn row_middle_value(&mut self, mut x: TensorId) -> Result<TensorId, ImportError> {
        for part in 1..=2 {
            let channels = self.graph.shape(x).c / 2;
            x = self.temporal(&format!("mid_block.res{part}"), x, channels)?;
            x = self.row_conv(&format!("mid_block.down{part}.conv"), x, channels, [3, 2, 1])?;
        }
        Ok(x)
    }

    /// Cubic halving or doubling, by the one filter that diffusers has.
    fn row_filtered(&mut self, key: &str, x: TensorId, resampling: Resampling) -> Result<TensorId, ImportError> {
        let name = format!("{key}.kernel");
        let gain = if resampling == Resampling::Halve { 1.0 } else { 2.0 };
        if self.checkpoint.tensor(&name, &[CUBIC.len()])?.iter().zip(CUBIC).any(|(&tap, cubic)| tap != gain * cubic) {
            return Err(refuse(&name, "another filter", "the cubic one of diffusers"));
        }
        let (steps, fewest) = (self.graph.shape(x).w, if resampling == Resampling::Halve { 4 } else { 3 });
        if steps < fewest {
            let expected =
                format!("a longer one: at {key} it has {steps} steps, and {fewest} are needed to reflect its ends");
            return Err(refuse("sample_size", self.graph.shape(self.graph.input).w, expected));
        }
        let x = self.settled(key, x);
        Ok(self.graph.node(key, Op::Filter(resampling), &[x]))
    }

    /// Three residual blocks of these outputs, of which all but the last are also what lies within the blocks.
    fn three(
        &mut self,
        name: &str,
        mut x: TensorId,
        outputs: [usize; 3],
        (attends, end): (bool, End),
    ) -> Result<TensorId, ImportError> {
        for (index, channels) in outputs.into_iter().enumerate() {
            let end = if index == 2 { end } else { End::Activation };
            x = self.res_conv(&format!("{name}.resnets.{index}"), x, [outputs[0], channels], end)?;
            if attends {
                x = self.row_attention(&format!("{name}.attentions.{index}"), x)?;
            }
        }
        Ok(x)
    }

    /// `ResConvBlock`: convolution, normalization and GELU twice, the last two left out at a [bare](End::Bare) end, and the input
    /// beside them.
    fn res_conv(
        &mut self,
        name: &str,
        x: TensorId,
        [within, outputs]: [usize; 2],
        end: End,
    ) -> Result<TensorId, ImportError> {
        let beside = match self.graph.shape(x).c == outputs {
            true => self.settled(name, x),
            false => self.row_conv_with(&format!("{name}.conv_skip"), x, vec![0.0; outputs], [1, 1, 0])?,
        };
        let window = [KERNEL, 1, KERNEL / 2];
        let mut hidden = self.row_conv(&format!("{name}.conv_1"), x, within, window)?;
        hidden = self.row_norm(&format!("{name}.group_norm_1"), hidden, 1, Activation::Gelu)?;
        hidden = self.row_conv(&format!("{name}.conv_2"), hidden, outputs, window)?;
        if end == End::Activation {
            hidden = self.row_norm(&format!("{name}.group_norm_2"), hidden, 1, Activation::Gelu)?;
        }
        Ok(self.graph.node(format!("{name} (sum)"), Op::Add, &[hidden, beside]))
    }

    /// `SelfAttention1d`: heads of 32 channels, or what they divide into.
    fn row_attention(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let channels = self.graph.shape(x).c;
        let heads = channels / HEAD;
        if heads == 0 || !channels.is_multiple_of(heads) {
            let expected = format!("widths of blocks with attention that {HEAD} goes into as often as divides them");
            return Err(refuse("block_out_channels", channels, expected));
        }
        self.attention(name, x, Attention { heads: Heads::Count(heads), groups: Some(1), factor: 1.0 })
    }

    /// Residual blocks that the timestep conditions.
    fn conditioned(
        &mut self,
        name: &str,
        mut x: TensorId,
        outputs: usize,
        layers: usize,
    ) -> Result<TensorId, ImportError> {
        for index in 0..layers {
            x = self.temporal(&format!("{name}.resnets.{index}"), x, outputs)?;
        }
        Ok(x)
    }

    /// `ResidualTemporalBlock1D`.
    fn temporal(&mut self, name: &str, x: TensorId, outputs: usize) -> Result<TensorId, ImportError> {
        if !outputs.is_multiple_of(GROUPS) {
            return Err(refuse("block_out_channels", outputs, format!("multiples of {GROUPS} in residual blocks")));
        }
        let half = |half: &str| ["conv1d", "group_norm"].map(|part| format!("{name}.{half}.{part}"));
        let keys = Keys {
            halves: [half("conv_in"), half("conv_out")],
            embedding: format!("{name}.time_emb"),
            shortcut: format!("{name}.residual_conv"),
        };
        let projection = linear(self.checkpoint, &keys.embedding, self.embedding, outputs)?;
        self.row_residual(&keys, x, [outputs, KERNEL, GROUPS], Op::AddEmbedding(projection))
    }
}
