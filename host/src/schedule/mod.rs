//! Noise schedules and samplers as diffusers computes them, reduced to linear maps.
//!
//! `scheduler_config.json` becomes a [`SchedulerConfig`]; a [`Solver`] turns it and a number of steps, or a list of
//! timesteps, into [`Step`]s, which are all that a device knows of a sampler. diffusers is the specification, its
//! rounding and its quirks included; where this module is said to do "as diffusers does", the tests hold it against
//! lists and samples that diffusers wrote.

mod beta;
mod betas;
mod config;
mod consistency;
mod ddim;
mod ddim_inverse;
mod ddpm;
mod dpm_solver;
mod edm;
mod error;
mod euler;
mod fields;
mod flow_match;
mod heun;
mod lcm;
mod sigma_space;
mod sigmas;
mod solver;
mod step;
mod timesteps;
mod unipc;

pub use betas::Betas;
pub use config::{PredictionType, SchedulerConfig, TimestepSpacing};
pub use ddim::Ddim;
pub use error::ScheduleError;
pub use solver::{Solver, StepRequest};
pub use step::{Level, MAX_HISTORY, Step, Thresholding, history};
