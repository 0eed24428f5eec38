//! The samplers that there are.

use super::{Ddim, ScheduleError, SchedulerConfig, Step, ddpm, dpm_solver, sigmas};

/// What turns a configuration into steps. Each is a file of its own beside this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Solver {
    /// DDIM (Song et al., 2020, arXiv:2010.02502), as diffusers' `DDIMScheduler`.
    Ddim(Ddim),
    /// Ancestral sampling (Ho et al., 2020, arXiv:2006.11239), as diffusers' `DDPMScheduler`.
    Ddpm,
    /// DPM-Solver++ (Lu et al., 2022, arXiv:2211.01095), as diffusers' `DPMSolverMultistepScheduler`.
    DpmSolver,
}

impl Solver {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ddim(_) => "DDIM",
            Self::Ddpm => "DDPM",
            Self::DpmSolver => "DPM-Solver++",
        }
    }

    /// The solver of the scheduler that a checkpoint was saved with, if there is one. Every solver takes over
    /// configurations of other schedulers too.
    pub fn of(config: &SchedulerConfig) -> Option<Self> {
        match config.class_name.as_str() {
            "DDIMScheduler" | "DDIMParallelScheduler" => Some(Self::Ddim(Ddim::default())),
            "DDPMScheduler" | "DDPMParallelScheduler" => Some(Self::Ddpm),
            "DPMSolverMultistepScheduler" => Some(Self::DpmSolver),
            _ => None,
        }
    }

    /// The steps of a list of `n`, first to last, as diffusers takes them.
    ///
    /// # Errors
    /// If there is no such list, the solver does not support a field, or a coefficient is not finite.
    pub fn steps(&self, config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
        match self {
            Self::Ddim(ddim) => {
                sigmas::check_none(config, "DDIM")?;
                ddim.steps(config, n)
            }
            Self::Ddpm => {
                sigmas::check_none(config, "DDPM")?;
                ddpm::steps(config, n)
            }
            Self::DpmSolver => dpm_solver::steps(config, n),
        }
    }

    /// The steps of a given list of timesteps, strictly falling: each leads to the next entry, the last to the end. It
    /// is what students of few steps need, and how DDIM is sampled without the quirk of diffusers that a step leads to
    /// `t − T // N`.
    ///
    /// # Errors
    /// If the list is not one, the solver does not support a field, or a coefficient is not finite.
    pub fn steps_at(&self, config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
        config.check_timesteps(timesteps)?;
        match self {
            Self::Ddim(ddim) => {
                sigmas::check_none(config, "DDIM")?;
                ddim.steps_at(config, timesteps)
            }
            Self::Ddpm => {
                sigmas::check_none(config, "DDPM")?;
                ddpm::steps_at(config, timesteps)
            }
            Self::DpmSolver => {
                sigmas::check_none(config, "a list of timesteps")?;
                dpm_solver::steps_at(config, timesteps)
            }
        }
    }
}
