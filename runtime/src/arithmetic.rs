//! What each operation does to single values: shared with the kernels of a GPU, so that both compute the same by
//! construction. Hidden, because it changes with the operations.

#[cfg(any(feature = "f16", feature = "f32"))]
pub use crate::float::{Float, activate, exp};
pub use crate::guidance::{FACTOR_BITS, Moments, Spread};
#[cfg(feature = "i8")]
pub use crate::ops::requantize::requantize_each;
pub use crate::sampler::{Sample, Step, Terms, byte_fixed, guide_fixed};
#[cfg(any(feature = "f16", feature = "f32"))]
pub use crate::sampler::{byte_float, guide_float, to_float};
pub use crate::threshold::{PASSES, Search};

/// Convolution.
pub mod conv2d {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::conv2d::float::{CHAIN as FLOAT_CHAIN, gathered as gathered_float};
    #[cfg(feature = "i8")]
    pub use crate::ops::conv2d::i8::{finished, gathered, limited, raw_map, rescaled};
}

/// Group normalization.
pub mod group_norm {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::group_norm::float::{channel_map, inverse_deviation};
    #[cfg(feature = "i8")]
    pub use crate::ops::group_norm::i8::{GroupMap, to_common_scale};
}

/// Activations that are written out, and observations.
#[cfg(feature = "unet1d")]
pub mod activate {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::activate::float::activated as activated_float;
    #[cfg(feature = "i8")]
    pub use crate::ops::activate::i8::{FACTOR_BITS, SUMMAND_BITS, activated};
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::observe::float::observed as observed_float;
    #[cfg(feature = "i8")]
    pub use crate::ops::observe::i8::{OBSERVED_BITS, observed};
}

/// Normalization over the channels of each pixel.
#[cfg(feature = "layer-norm")]
pub mod layer_norm {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::layer_norm::float::{center, inverse_deviation, normalized as normalized_float, squared};
    #[cfg(feature = "i8")]
    pub use crate::ops::layer_norm::i8::{Statistics, Sums, normalized};
}

/// Attention.
#[cfg(all(feature = "attention", feature = "i8"))]
pub mod attention {
    pub use crate::ops::attention::i8::{normalizer, scores, weigh, weight};
}

/// Linear attention.
#[cfg(all(feature = "linear-attention", feature = "i8"))]
pub mod linear_attention {
    pub use crate::ops::linear_attention::i8::{context_of, key_weight, query_weight};
}

/// Classifier guidance.
#[cfg(feature = "classifier")]
pub mod classifier {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::classifier::float::{backward as backward_float, loss as loss_float, silu};
    #[cfg(feature = "i8")]
    pub use crate::ops::classifier::i8::{backward, index, loss, weight};
}

/// Resampling along rows.
#[cfg(feature = "filter")]
pub mod filter {
    #[cfg(any(feature = "f16", feature = "f32"))]
    pub use crate::ops::filter::float::{added as added_float, filtered as filtered_float};
    #[cfg(feature = "i8")]
    pub use crate::ops::filter::i8::{added, filtered};
    pub use crate::ops::filter::{reflected, taps};
}

/// Conditioning.
#[cfg(all(feature = "conditioning", feature = "i8"))]
pub mod embedding {
    pub use crate::ops::embedding::i8::{activated, projected};
}
