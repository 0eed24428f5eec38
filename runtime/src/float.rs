//! Arithmetic of the float precisions: storage types and elementary functions.

use bytemuck::Pod;

use crate::format::Activation;

/// How activations and weights are stored; arithmetic is in `f32`.
pub trait Float: Pod + Send + Sync {
    /// Whether convolutions add their products in short chains. In half precision the rounding of what is stored outweighs that of sums.
    const SUMS_IN_CHAINS: bool;

    /// In single precision.
    fn to_f32(self) -> f32;
    /// The nearest.
    fn from_f32(value: f32) -> Self;
}

impl Float for f32 {
    const SUMS_IN_CHAINS: bool = true;

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
    const SUMS_IN_CHAINS: bool = false;

    #[cfg(not(vfp))]
    fn to_f32(self) -> f32 {
        half::f16::to_f32(self)
    }

    #[cfg(not(vfp))]
    fn from_f32(value: f32) -> Self {
        half::f16::from_f32(value)
    }

    #[cfg(vfp)]
    #[inline(always)]
    fn to_f32(self) -> f32 {
        crate::arch::vfp::convert::half_to_single(self.to_bits())
    }

    #[cfg(vfp)]
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from_bits(crate::arch::vfp::convert::single_to_half(value))
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
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x·Φ(x)`.
#[cfg(feature = "activations")]
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * erfc(-core::f32::consts::FRAC_1_SQRT_2 * x)
}

/// The complementary error function, with a relative error of 1.2·10⁻⁷ before rounding: the rational Chebyshev fit of Press et
/// al., Numerical Recipes, section 6.2. Short enough to be inlined into a kernel of a GPU, which `libm`'s is not.
#[cfg(feature = "activations")]
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "as published")]
fn erfc(x: f32) -> f32 {
    const FIT: [f32; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let magnitude = x.abs();
    let t = 1.0 / (1.0 + 0.5 * magnitude);
    let exponent = FIT.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = t * exp(exponent - magnitude * magnitude);
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// `x·tanh(ln(1 + eˣ))`, as `x·n/(n + 2)` with `n = eˣ(eˣ + 2)`; beyond 20 the factor is 1.
#[cfg(feature = "activations")]
fn mish(x: f32) -> f32 {
    let power = exp(x.min(20.0));
    let n = power * (power + 2.0);
    x * (n / (n + 2.0))
}

/// An activation; without the feature `activations` it is `silu`: sessions refuse models with another.
#[inline(always)]
pub fn activate(activation: Activation, x: f32) -> f32 {
    #[cfg(feature = "activations")]
    match activation {
        Activation::Silu => {}
        Activation::Relu => return x.max(0.0),
        Activation::Gelu => return gelu(x),
        Activation::Mish => return mish(x),
    }
    let _ = activation;
    silu(x)
}
