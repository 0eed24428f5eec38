//! The choices of the `i8` precision: how reals become integers.

pub use crate::quantize::Ranges;

/// How weights and biases become integers, and what range activations get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Of weights.
    pub rounding: Rounding,
    /// Of activations.
    pub ranges: Ranges,
    /// Take the mean error that rounded weights cause out of the bias (Nagel et al., 2019, arXiv:1906.04721, 4.2).
    pub bias_correction: bool,
    /// Give the 8-bit inputs of convolutions that come through a normalization scales for each step.
    pub step_scales: bool,
    /// What two raw inputs share.
    pub shortcuts: Shortcuts,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            rounding: Rounding::Gptq,
            ranges: Ranges::Mse,
            bias_correction: true,
            step_scales: false,
            shortcuts: Shortcuts::Split,
        }
    }
}

/// How the two inputs of a shortcut over a skip join become integers of one ring.
///
/// Li et al. (2023, Q-Diffusion, arXiv:2302.04304, 4.2) give each input a scale of its own, because their ranges differ,
/// and run two convolutions. A 16-bit ring keeps the resolution of both in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortcuts {
    /// 8 bits and one scale for both.
    Joint,
    /// 16 bits, in which each input keeps the resolution of its own scale.
    #[default]
    Split,
}

/// How weights become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Each to the nearest, in the scale of least squared error.
    Nearest,
    /// So that the results over the calibration's inputs change least: see [`rounding`](crate::rounding).
    #[default]
    Gptq,
}
