//! The `.waft` file, byte by byte.
//!
//! All integers are little-endian. Every section starts at a multiple of 16 from the start of the file; the file is
//! read in place, from flash, a file map or any slice whose address is a multiple of 4. `offset` always means bytes
//! from the start of the file, `arena offset` bytes from the start of the arena. Each record is a struct of this module;
//! bytes called zeros are zero.
#![doc = include_str!("tables.md")]
//!
//! # External weights
//! A model that streams its weights ([`WeightSource`](crate::WeightSource)) keeps those of its convolutions in a second
//! file, in the order in which they are needed. The weights of one convolution are cut into chunks of
//! [`Conv2d::chunk_blocks`] blocks of eight output channels; each chunk starts at a multiple of 16, with zeros between, and
//! its CRC-32 (zeros included) stands in the model file at [`Conv2d::checks`]. While chunk `k` is in use it lies in the
//! window tensor at `(k mod n)·s`, where `s` is the size of a whole chunk and `n` = ⌊window / s⌋.

mod activate;
mod activation;
mod attention;
mod checksum;
mod classifier;
mod conditioning;
mod conv2d;
mod filter;
mod group_norm;
mod header;
mod layer_norm;
mod linear_attention;
mod op;
mod record;
mod schedule;
mod tensor;
mod validate;
mod weight_layout;

pub use activate::{ACTION_BYTES, Activate, Film, FixedAction, FloatAction, Observe};
pub use activation::Activation;
pub use attention::Attention;
pub use checksum::{checksum, chunk_checksum, seal};
pub(crate) use checksum::{checksum_interpreted, crc32};
pub use classifier::{Classifier, Pass, SLOPE_BITS};
pub use conditioning::{Embed, Linear};
pub use conv2d::{Bias, Conv2d, Gather, Shuffle, Tiling, Upsample};
pub use filter::{Filter, Resampling};
pub use group_norm::{Affine, GroupNorm};
pub use header::{Header, Output, Precision};
pub use layer_norm::{Center, LayerNorm};
pub use linear_attention::LinearAttention;
pub use op::{OP_BYTES, Op, OpKind};
#[doc(hidden)]
pub use record::Field;
pub use record::Record;
pub(crate) use record::{bytes_at, slice_at};
pub use schedule::{
    FixedStep, FloatStep, LEVEL_BITS, Level, ORDER_BITS, START_BITS, STEP_BYTES, Schedule, StepScales, Threshold,
    Variance, WEIGHT_BITS,
};
pub use tensor::{Element, Tensor};
pub(crate) use validate::validate;
pub use weight_layout::{Chunks, WeightLayout};

/// First bytes of every file.
pub const MAGIC: [u8; 4] = *b"WAFT";
/// Version of the format that this crate reads and its exporter writes.
pub const VERSION: u16 = 8;
/// Stands for "no tensor" or "no class".
pub const NONE: u16 = 0xFFFF;
/// Sections, tensors and the arena itself are aligned to this many bytes.
pub const ALIGN: usize = 16;
/// Most tensors that may hold data at once.
pub const MAX_ALIVE: usize = 256;
/// Output channels that a convolution computes together.
pub const CHANNEL_BLOCK: usize = 8;
/// Output pixels whose activations a convolution's patches hold.
pub const PATCH_PIXELS: usize = 4;
/// Taps that stand together in a patch.
pub const PATCH_GROUP: usize = 4;
/// Input channels of a convolution by tiles of four rows, at most: 9·128·128 for each is below 2²⁵ together.
pub const MOST_TILED_INPUTS: u16 = 224;
/// Input channels of a convolution by tiles of two rows, at most; each narrows the ring, see [`Tiling::ring_limit`].
pub const MOST_WIDE_TILED_INPUTS: u16 = 512;
/// Outputs that one slice of a linear operation computes.
pub const LINEAR_BLOCK: usize = 32;

impl Header {
    /// A tensor of the plan.
    pub(crate) const fn tensor(&self, bytes: &[u8], id: u16) -> Option<Tensor> {
        if id >= self.tensors {
            return None;
        }
        Some(Tensor::read(bytes, self.tensors_at as usize + id as usize * size_of::<Tensor>()))
    }

    /// An operation.
    pub(crate) const fn op(&self, bytes: &[u8], index: u16) -> Option<Op> {
        if index >= self.ops {
            return None;
        }
        Op::read(bytes, self.ops_at as usize + index as usize * OP_BYTES)
    }

    /// A schedule.
    pub(crate) const fn schedule(&self, bytes: &[u8], index: u16) -> Option<Schedule> {
        if index >= self.schedules {
            return None;
        }
        Some(Schedule::read(bytes, self.schedules_at as usize + index as usize * size_of::<Schedule>()))
    }
}

#[cfg(test)]
mod tests;
