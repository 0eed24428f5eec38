//! The tests that cross crates, in one program: it is linked once, and its tests keep every core busy to the end.

mod accelerator;
mod arithmetic;
mod checkpoint;
mod classes;
mod classifier;
mod condition;
mod denoising_diffusion;
mod diffusers;
mod digits;
mod graphics;
mod guidance;
mod guided_diffusion;
mod history;
mod import;
mod learned_variance;
mod model_file;
mod model_rules;
mod ops;
mod original;
mod parity;
#[cfg(target_os = "linux")]
mod placement;
mod plan;
mod policies;
mod quality;
mod range;
mod reach;
mod schedule;
mod schedule_bounds;
mod sharing;
mod stream;
mod thresholding;
