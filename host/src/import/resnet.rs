//! diffusers' `ResnetBlock2D`.

use super::ImportError;
use super::builder::{Builder, Conditioning, Window, linear};
use super::resample::Resample;
use crate::graph::{Op, TensorId};

/// What a residual block's tensors do not say.
#[derive(Clone, Copy)]
pub(super) struct Residual {
    /// Groups of its two normalizations.
    pub(super) groups: [usize; 2],
    /// The result is divided by this.
    pub(super) factor: f64,
}

impl Builder<'_> {
    /// A residual block over one input, or two joined along the channels.
    pub(super) fn resnet(
        &mut self,
        name: &str,
        inputs: &[TensorId],
        outputs: usize,
        Residual { groups: [first, second], factor }: Residual,
    ) -> Result<TensorId, ImportError> {
        let x = match inputs {
            &[x] => x,
            _ => self.graph.node(format!("{name} (skip)"), Op::Concat, inputs),
        };
        let h = self.first_half(name, x, first)?;
        let h = self.conv(&format!("{name}.conv1"), h, outputs, Window::SAME)?;
        let h = self.second_half(name, h, outputs, second)?;
        let mut shortcut = x;
        if self.graph.shape(x).c != outputs {
            shortcut = self.conv(&format!("{name}.conv_shortcut"), x, outputs, Window::POINT)?;
        }
        Ok(self.residual(name, [shortcut, h], factor))
    }

    /// A residual block that halves or doubles the map behind its first activation, and its shortcut likewise, which may have a
    /// convolution behind that.
    pub(super) fn resampling_resnet(
        &mut self,
        name: &str,
        x: TensorId,
        resample: Resample,
        Residual { groups: [first, second], factor }: Residual,
    ) -> Result<TensorId, ImportError> {
        let channels = self.graph.shape(x).c;
        let h = self.first_half(name, x, first)?;
        let conv = self.read_conv(&format!("{name}.conv1"), channels, channels, Window::SAME)?;
        let h = self.resampled_conv(&format!("{name}.conv1"), h, resample, conv);
        let h = self.second_half(name, h, channels, second)?;
        let key = format!("{name}.conv_shortcut");
        let shortcut = if self.checkpoint.has(&format!("{key}.weight")) {
            let conv = self.read_conv(&key, channels, channels, Window::POINT)?;
            self.resampled_conv(&key, x, resample, conv)
        } else {
            self.resampled(&format!("{name} (shortcut)"), x, resample)
        };
        Ok(self.residual(name, [shortcut, h], factor))
    }

    /// What `conv1` reads.
    fn first_half(&mut self, name: &str, x: TensorId, groups: usize) -> Result<TensorId, ImportError> {
        let h = self.norm(&format!("{name}.norm1"), x, groups)?;
        Ok(self.activation(format!("{name}.act1"), h))
    }

    /// What follows `conv1`.
    fn second_half(&mut self, name: &str, h: TensorId, outputs: usize, groups: usize) -> Result<TensorId, ImportError> {
        let (project, norm) = (format!("{name}.time_emb_proj"), format!("{name}.norm2"));
        let h = match self.conditioning {
            Conditioning::Add => {
                let linear = linear(self.checkpoint, &project, self.embedding, outputs)?;
                let h = self.graph.node(project, Op::AddEmbedding(linear), &[h]);
                self.norm(&norm, h, groups)?
            }
            Conditioning::ScaleShift => {
                let linear = linear(self.checkpoint, &project, self.embedding, 2 * outputs)?;
                let h = self.norm(&norm, h, groups)?;
                self.graph.node(project, Op::ScaleShift(linear), &[h])
            }
        };
        let h = self.activation(format!("{name}.act2"), h);
        self.conv(&format!("{name}.conv2"), h, outputs, Window::SAME)
    }
}
