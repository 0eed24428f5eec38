//! The GPU's side of waft: one body for each kernel, written once for GPU and host.
//!
//! A body calls the arithmetic of the device's own operations, so that what a GPU computes is what a device computes, bit
//! for bit, by construction. It is generic over its [`Memory`] and its [`Warp`]: the crate in `ptx/` instantiates it with
//! a GPU's pointers and threads and compiles to [`PTX`]; [`HostMemory`] and [`HostWarp`] let a machine without a GPU
//! execute it over its whole grid and hold it against the runtime.
//!
//! All kernels take the same arguments: addresses of the four memories of [`Space`], the place of the kernel's parameters
//! in the constants, and the number of pictures.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_code)]

#[cfg(feature = "host")]
extern crate alloc;

pub mod activate;
pub mod attention;
pub mod classifier;
pub mod conv2d;
mod element;
pub mod embedding;
pub mod filter;
pub mod group_norm;
mod keys;
pub mod layer_norm;
pub mod linear_attention;
mod memory;
pub mod sampler;
mod warp;

use bytemuck::{Pod, Zeroable};

pub use element::Place;
pub use memory::{HostMemory, Memory, Space};
pub use warp::{HostWarp, LANES, TILE_CHANNELS, TILE_DEPTH, TILE_PIXELS, Tile, Warp, tile_place};

/// Warps of a block.
pub const BLOCK_WARPS: u32 = 4;

/// The kernels, as every driver since CUDA 11.0 takes them, for compute capability 7.5 and above.
#[cfg(feature = "host")]
pub const PTX: &str = include_str!("../waft.ptx");

/// Where a batch of pictures stands: the first bytes of [`Space::State`]. The class of each picture follows, a `u32` each,
/// then, from [`pictures_at`] on, the pictures' bytes, and from [`samples_at`] on their samples.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct State {
    /// Seed of the first picture, low word first; the others count up from it.
    pub seed: [u32; 2],
    /// Number of the step.
    pub step: u32,
    /// Guidance in 16 fractional bits.
    pub guidance: i32,
    /// The step list's places in the model file, see [`waft::format::Schedule`].
    pub rows: u32,
    /// Time embeddings.
    pub embeddings: u32,
    /// Per-step biases.
    pub biases: u32,
    /// Bytes of the biases of one step.
    pub bias_bytes: u32,
    /// How far guided predictions are rescaled, in 16 fractional bits.
    pub rescale: u32,
    /// Place of the step list's threshold in the model file, 0 if it has none.
    pub threshold: u32,
    /// Place of what learned variances mean in each step, 0 if the model has none.
    pub variances: u32,
    /// Zeros.
    pub reserved: u32,
}

/// Bytes of a [`State`].
pub const STATE_BYTES: usize = size_of::<State>();

/// Where the pictures' bytes start in [`Space::State`].
pub const fn pictures_at(batch: u32) -> usize {
    STATE_BYTES + (4 * batch as usize).next_multiple_of(16)
}

/// Where their samples start, `len` words each.
pub const fn samples_at(batch: u32, len: u32) -> usize {
    pictures_at(batch) + (len as usize * batch as usize).next_multiple_of(16)
}

/// How far apart pictures lie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Strides {
    /// Bytes of one arena.
    pub arena: u32,
    /// Bytes of one picture's scratch, a multiple of 16.
    pub scratch: u32,
}

impl Strides {
    #[inline(always)]
    fn arena(self, picture: u32) -> usize {
        self.arena as usize * picture as usize
    }

    #[inline(always)]
    fn scratch(self, picture: u32) -> usize {
        self.scratch as usize * picture as usize
    }
}

/// A kernel: its parameters, and what its warps do.
pub trait Body: Pod {
    /// Warps that it needs for a batch.
    fn warps(&self, batch: u32) -> u64;

    /// What warp `index` does. Warps may run in any order or at once.
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32);
}

/// A kernel whose threads compute one item of a picture each: an element, a pixel, a block of channels.
trait Threads: Pod {
    /// Items of a picture.
    fn items(&self) -> u32;

    /// Computes one item of a picture of a batch.
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, batch: u32);
}

impl<K: Threads> Body for K {
    fn warps(&self, batch: u32) -> u64 {
        (u64::from(self.items()) * u64::from(batch)).div_ceil(LANES as u64)
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        warp.threads(index, |thread| {
            let (picture, item) = (thread / self.items(), thread % self.items());
            if picture < batch {
                self.compute(memory, picture, item, batch);
            }
        });
    }
}

/// Gives a macro the list of kernels: the name of each in PTX, and its body.
#[macro_export]
macro_rules! kernels {
    ($apply:ident) => {
        $apply! {
            conv2d_i8_gather: $crate::conv2d::i8::GatherKernel,
            conv2d_i8_multiply: $crate::conv2d::i8::MultiplyKernel,
            conv2d_float_gather: $crate::conv2d::float::GatherKernel,
            conv2d_float_multiply: $crate::conv2d::float::MultiplyKernel,
            group_norm_i8: $crate::group_norm::IntegerKernel,
            group_norm_float: $crate::group_norm::FloatKernel,
            attention_i8_scores: $crate::attention::IntegerScoresKernel,
            attention_i8_context: $crate::attention::IntegerContextKernel,
            attention_float_scores: $crate::attention::FloatScoresKernel,
            attention_float_context: $crate::attention::FloatContextKernel,
            embed: $crate::embedding::EmbedKernel,
            linear: $crate::embedding::LinearKernel,
            activate_i8: $crate::activate::IntegerKernel,
            activate_float: $crate::activate::FloatKernel,
            observe: $crate::activate::ObserveKernel,
            layer_norm_i8: $crate::layer_norm::IntegerKernel,
            layer_norm_float: $crate::layer_norm::FloatKernel,
            linear_attention_i8_context: $crate::linear_attention::IntegerContextKernel,
            linear_attention_i8_result: $crate::linear_attention::IntegerResultKernel,
            linear_attention_float_context: $crate::linear_attention::FloatContextKernel,
            linear_attention_float_result: $crate::linear_attention::FloatResultKernel,
            classifier: $crate::classifier::ClassifierKernel,
            filter: $crate::filter::FilterKernel,
            noise: $crate::sampler::NoiseKernel,
            keep: $crate::sampler::KeepKernel,
            measure: $crate::sampler::MeasureKernel,
            search: $crate::sampler::SearchKernel,
            update: $crate::sampler::UpdateKernel,
            results: $crate::sampler::ResultsKernel,
            advance: $crate::sampler::AdvanceKernel,
        }
    };
}

/// Every kernel with its parameters.
macro_rules! kernel_enum {
    ($($name:ident: $body:ty,)*) => {
        /// A kernel and its parameters: one launch.
        #[allow(non_camel_case_types, reason = "named as in PTX")]
        #[derive(Clone, Copy, Debug)]
        pub enum Kernel {
            $(#[doc = concat!("`", stringify!($name), "`")] $name($body),)*
        }

        impl Kernel {
            /// Names of all kernels in PTX.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Its name in PTX.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// Its parameters as bytes.
            pub fn parameters(&self) -> &[u8] {
                match self {
                    $(Self::$name(body) => bytemuck::bytes_of(body),)*
                }
            }

            /// Warps that it needs for a batch.
            pub fn warps(&self, batch: u32) -> u64 {
                match self {
                    $(Self::$name(body) => body.warps(batch),)*
                }
            }

            /// Executes one warp.
            pub fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
                match self {
                    $(Self::$name(body) => body.run(memory, warp, index, batch),)*
                }
            }
        }
    };
}

kernels!(kernel_enum);
