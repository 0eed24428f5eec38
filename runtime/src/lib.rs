//! Diffusion models on microcontrollers.
//!
//! `waft` runs the whole reverse diffusion process, a U-Net and its sampler, from one `.waft` file: no heap, no panics,
//! a memory plan fixed at export. The `i8` precision uses integers only, from the seed to the bytes of the picture, and
//! draws the same picture on every core, bit for bit.
//!
//! ```
//! # fn draw(bytes: &[u8], arena: &mut [u8]) -> Result<(), waft::Error> {
//! use waft::{Model, Request, Session};
//!
//! let model = Model::from_bytes(bytes)?; // everything is checked here, once
//! let mut session = Session::new(&model, arena)?; // `model.arena_bytes()` of memory, aligned to 16
//! let mut run = session.sample(Request::new().class(7).seed(42).steps(10))?;
//! while let Some(_progress) = run.step()? {
//!     // A bounded slice of work is done: feed the watchdog, serve the radio.
//! }
//! let image = run.image().expect("complete"); // (row, column, channel) bytes
//! # Ok(()) }
//! ```
//!
//! In firmware the model is part of the program, checked while it compiles, and the memory is a static:
//!
//! ```ignore
//! waft::include_model!(DIGITS, "digits.waft");
//! static ARENA: waft::Arena<{ DIGITS.arena_bytes() }> = waft::Arena::new();
//! let mut session = waft::Session::new(&DIGITS, ARENA.take().unwrap())?;
//! ```
//!
//! # Beside other work
//! [`Run::step`] never takes long, so a task gives way between two of them. With embassy:
//!
//! ```
//! use waft::{Error, Request, Session};
//!
//! async fn draw(session: &mut Session<'_>, request: Request) -> Result<(), Error> {
//!     let mut run = session.sample(request)?;
//!     while run.step()?.is_some() {
//!         embassy_futures::yield_now().await;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! In RTIC a software task of low priority is interrupted by all others, and the loop above without the `await` is enough. Where
//! a task or an interrupt should do one slice each time, it keeps the run: see [`Session::into_run`]. The repository has
//! complete programs of both kinds in `runtime/boards`.
//!
//! # The rooms
//! [`format`](mod@format) specifies the file byte by byte and validates it; [`Model`] is the validated view. [`fixed`]
//! defines the integer arithmetic, [`noise`] the generator. `ops` holds one folder for each operation and in it one
//! file for each kind of arithmetic; `arch` has their inner loops, one file for each instruction family. [`Session`] walks
//! the list of operations in slices and applies the sampler's steps.
//!
//! # Features
//! - `i8`, `f16`, `f32` (all on by default): the precisions. A firmware with `default-features = false, features = ["i8"]`
//!   carries no float code.
//! - `i4`, `step-scales` (on by default): four-bit weights, and activation scales of each step, in the `i8` precision.
//! - `attention`, `conditioning` (on by default): operations that not every model needs, self-attention and class
//!   embeddings; `history`: samplers that look back; `activations`, `scale-shift`: activations other than SiLU, and
//!   normalizations whose factors and summands depend on the timestep and the class. A session of a model that needs one that
//!   is off is refused by its name.
//! - `unet1d` (on by default): what the 1-D U-Nets of robot policies need, observations and actions among it, see
//!   [`Session::observation`] and [`Run::actions`]; with `activations` and `conditioning`.
//! - `layer-norm`, `linear-attention` (on by default): normalization over the channels of each pixel, and attention whose cost
//!   grows with the number of pixels, not its square.
//! - `classifier` (on by default): classifiers whose gradient guides a network, see [`format::Classifier`].
//! - `filter` (on by default): cubic resampling along rows, as diffusers' 1-D U-Nets do it, see [`format::Filter`].
//! - `tiles`, `stored-tiles` (on by default): Winograd's algorithm for 3×3 convolutions on Cortex-M and 32-bit RISC-V, and on every core
//!   where the file has their weights transformed.
//! - `original` (on by default): pictures to start from or to redraw in part, see [`Original`].
//! - `thresholding` (on by default): samplers with dynamic thresholding, see [`format::Threshold`].
//! - `learned-variance` (on by default): networks that learned how much noise a step adds, see [`format::Variance`].
//! - `guidance-rescale` (on by default): guidance that keeps the contrast of pictures, see [`Rescale`].
//! - `std`: for hosts, the instructions that the processor at hand has, see `Accelerator`; all precisions, and attention.
//! - `micromath`: a faster, coarser exponential in the float precisions.
//! - `defmt`: `Format` for the public types and log points at session level.
//! - `rand_core`: noise from any generator of that trait.
//! - `embedded-graphics`: pictures on displays, see `graphics`.
//! - `ed25519`: signed models, see `signature`.
//! - `embedded-storage`, `embedded-io`: streamed weights from NOR flash, files and lines, see [`weights`].
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_code)]

#[cfg(not(any(feature = "i8", feature = "f16", feature = "f32")))]
compile_error!("waft: enable at least one precision: i8, f16 or f32");

#[cfg(target_endian = "big")]
compile_error!("waft: the model file is little-endian and read in place; big-endian targets are not supported");

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
mod accelerator;
mod arch;
#[allow(unsafe_code, reason = "hands out static memory")]
mod arena;
#[doc(hidden)]
pub mod arithmetic;
#[cfg(test)]
mod draft;
mod error;
pub mod fixed;
#[cfg(any(feature = "f16", feature = "f32"))]
mod float;
pub mod format;
#[cfg(feature = "embedded-graphics")]
pub mod graphics;
mod guidance;
mod log;
mod model;
pub mod noise;
mod ops;
mod precision;
mod role;
mod sampler;
mod session;
#[cfg(feature = "ed25519")]
pub mod signature;
mod tables;
mod threshold;
pub mod weights;

#[cfg(feature = "std")]
pub use accelerator::{Accelerator, Instructions, ThreadPool};
pub use arena::Arena;
pub use error::{Error, Field, ModelError, RequestError, RunError, SessionError};
pub use format::Precision;
pub use guidance::{Guidance, Rescale};
#[doc(hidden)]
pub use model::Aligned;
pub use model::Model;
pub use noise::Noise;
pub use role::Role;
pub use session::{Image, Original, Prediction, Progress, Request, Run, Samples, SamplesMut, Session};
pub use weights::WeightSource;
