//! A precision as a type: `i8`, `half::f16` and `f32` say what a model's arithmetic is, and code that is generic over them
//! is written once.

use crate::ops::Operations;
use crate::sampler::Sample;

/// How a precision computes: its operations, and its samples outside of the network.
pub(crate) trait Arithmetic: Operations {
    /// An element of the sample, the model output and the noise.
    type Sample: Sample;
}

#[cfg(feature = "i8")]
impl Arithmetic for i8 {
    type Sample = i32;
}

#[cfg(feature = "f16")]
impl Arithmetic for half::f16 {
    type Sample = f32;
}

#[cfg(feature = "f32")]
impl Arithmetic for f32 {
    type Sample = f32;
}

/// Evaluates an expression with the name `$P` for the type of a [`Precision`](crate::Precision), another one if the crate
/// was built without it. The one place where a value becomes a type.
macro_rules! with_precision {
    ($precision:expr, $P:ident => $then:expr, else $otherwise:expr) => {
        match $precision {
            #[cfg(feature = "i8")]
            $crate::format::Precision::I8 => {
                type $P = i8;
                $then
            }
            #[cfg(feature = "f16")]
            $crate::format::Precision::F16 => {
                type $P = half::f16;
                $then
            }
            #[cfg(feature = "f32")]
            $crate::format::Precision::F32 => {
                type $P = f32;
                $then
            }
            #[allow(unreachable_patterns, reason = "reachable when a precision's feature is off")]
            _ => $otherwise,
        }
    };
}
pub(crate) use with_precision;
