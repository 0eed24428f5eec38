//! Arithmetic of the float precisions: storage types and elementary functions.

use bytemuck::Pod;

/// How activations and weights are stored; arithmetic is in `f32`.
pub trait Float: Pod {
    /// In single precision.
    fn to_f32(self) -> f32;
    /// The nearest.
    fn from_f32(value: f32) -> Self;
}

impl Float for f32 {
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }
}

#[cfg(feature = "f16")]
impl Float for half::f16 {
    fn to_f32(self) -> f32 {
        half::f16::to_f32(self)
    }

    fn from_f32(value: f32) -> Self {
        half::f16::from_f32(value)
    }
}

/// `eˣ`.
#[cfg(not(feature = "micromath"))]
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// `eˣ`, about 10⁻³ relative: smaller and faster, for devices whose pictures do not show it.
#[cfg(feature = "micromath")]
pub fn exp(x: f32) -> f32 {
    micromath::F32(x).exp().0
}

/// `√x`. Always exact: a normalization divides everything by it.
pub(crate) fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

/// `x·sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}
