//! The samplers that there are.

use super::euler::{self, Kind};
use super::sigma_space::Grid;
use super::{
    Ddim, ScheduleError, SchedulerConfig, Step, consistency, ddim_inverse, ddpm, dpm_solver, edm, flow_match, heun,
    lcm, unipc,
};

/// Declares the solvers, each with its name in commands, its class in diffusers, and what it is, in a line.
macro_rules! solvers {
    ($($(#[$doc:meta])* $solver:ident $(($options:ty) = $default:expr)?, $name:literal, $class:literal, $summary:literal;)*) => {
        /// What turns a configuration into steps. Each is a file of its own beside this one.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Solver {
            $($(#[$doc])* $solver $(($options))?,)*
        }

        impl Solver {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$solver $(($default))?),*];

            /// Its name in commands.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$solver { .. } => $name,)*
                }
            }

            /// The class in diffusers.
            pub const fn class_name(&self) -> &'static str {
                match self {
                    $(Self::$solver { .. } => $class,)*
                }
            }

            /// What it is, in a line.
            pub const fn summary(&self) -> &'static str {
                match self {
                    $(Self::$solver { .. } => $summary,)*
                }
            }
        }
    };
}

solvers! {
    /// DDIM (Song et al., 2020, arXiv:2010.02502).
    Ddim(Ddim) = Ddim { eta: 0.0, use_clipped_model_output: false },
        "ddim", "DDIMScheduler", "DDIM (Song et al., 2020)";
    /// DDIM backwards, from a picture to its noise.
    DdimInverse, "ddim-inverse", "DDIMInverseScheduler", "DDIM backwards, from a picture to its noise; not in i8";
    /// Ancestral sampling (Ho et al., 2020, arXiv:2006.11239).
    Ddpm, "ddpm", "DDPMScheduler", "Ancestral sampling (Ho et al., 2020): noise in every step";
    /// DPM-Solver++ (Lu et al., 2022, arXiv:2211.01095).
    DpmSolver, "dpm-solver++", "DPMSolverMultistepScheduler",
        "DPM-Solver++, multistep (Lu et al., 2022): looks back on up to two steps, for which the arena has room";
    /// UniPC (Zhao et al., 2023, arXiv:2302.04867).
    UniPc, "unipc", "UniPCMultistepScheduler",
        "UniPC of orders 1 and 2 (Zhao et al., 2023): looks back on two steps";
    /// Euler's method in the noise level (Karras et al., 2022, arXiv:2206.00364).
    Euler, "euler", "EulerDiscreteScheduler", "Euler's method in the noise level (Karras et al., 2022)";
    /// Its ancestral form.
    EulerAncestral, "euler-ancestral", "EulerAncestralDiscreteScheduler", "The same with noise in every step";
    /// Heun's method in the noise level (Karras et al., 2022): `n` steps take 2n − 1 network calls, each a [`Step`].
    Heun, "heun", "HeunDiscreteScheduler",
        "Heun's method in the noise level (Karras et al., 2022): N steps take 2N - 1 network calls";
    /// Latent consistency models (Luo et al., 2023, arXiv:2310.04378).
    Lcm, "lcm", "LCMScheduler", "Latent consistency models (Luo et al., 2023): noise in every step";
    /// Euler's method for flow matching (Esser et al., 2024, arXiv:2403.03206).
    FlowMatchEuler, "flow-match-euler", "FlowMatchEulerDiscreteScheduler",
        "Euler's method for flow matching (Esser et al., 2024)";
    /// Euler's method with the preconditioning of EDM (Karras et al., 2022).
    EdmEuler, "edm-euler", "EDMEulerScheduler", "Euler's method with the preconditioning of EDM (Karras et al., 2022)";
    /// Consistency models (Song et al., 2023, arXiv:2303.01469).
    Consistency, "consistency", "CMStochasticIterativeScheduler",
        "Consistency models (Song et al., 2023): noise in every step";
}

/// What a list of steps is made from.
#[derive(Clone, Debug, PartialEq)]
pub enum StepRequest {
    /// A number of steps, spaced as the configuration says.
    Count(usize),
    /// Timesteps, strictly falling: each step leads to the next entry, the last to the end.
    Timesteps(Vec<i64>),
    /// Noise levels, strictly falling, as the solver's `set_timesteps` takes them in diffusers: Euler's last entry is where
    /// the last step ends, that of flow matching is where it starts.
    Sigmas(Vec<f64>),
}

/// Configurations that mean the same noise levels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// √ᾱ·x0 + √(1−ᾱ)·ε for ᾱ that follows from β.
    Betas,
    FlowMatching,
    Edm,
    Consistency,
}

impl SchedulerConfig {
    /// Whether a sample is √ᾱ·x0 + √(1−ᾱ)·ε for the ᾱ of [`alphas_cumprod`](Self::alphas_cumprod).
    pub(crate) fn follows_betas(&self) -> bool {
        Family::of(&self.class_name) == Family::Betas
    }
}

impl Family {
    fn of(class_name: &str) -> Self {
        match class_name {
            "FlowMatchEulerDiscreteScheduler" => Self::FlowMatching,
            "EDMEulerScheduler" => Self::Edm,
            "CMStochasticIterativeScheduler" => Self::Consistency,
            _ => Self::Betas,
        }
    }
}

impl Solver {
    /// The solver of the scheduler that a checkpoint was saved with, if there is one. Solvers whose noise levels follow from
    /// β take over configurations of each other.
    pub fn of(config: &SchedulerConfig) -> Option<Self> {
        let class_name = match config.class_name.as_str() {
            "DDIMParallelScheduler" => "DDIMScheduler",
            "DDPMParallelScheduler" => "DDPMScheduler",
            other => other,
        };
        Self::ALL.iter().copied().find(|solver| solver.class_name() == class_name)
    }

    /// Network calls that so many of its steps take, as many as their list has.
    pub const fn calls(&self, steps: usize) -> usize {
        match self {
            Self::Heun => (2 * steps).saturating_sub(1),
            _ => steps,
        }
    }

    /// Its steps in a list of so many network calls.
    pub const fn steps_in(&self, calls: usize) -> usize {
        match self {
            Self::Heun => calls.div_ceil(2),
            _ => calls,
        }
    }

    /// Fields that it reads of those that change noise levels or timesteps and that not every solver has.
    const fn reads(&self) -> &'static [&'static str] {
        match self {
            Self::Ddim(_) | Self::DdimInverse | Self::Ddpm | Self::Lcm | Self::EulerAncestral => &[],
            Self::DpmSolver => &[
                "final_sigmas_type",
                "use_beta_sigmas",
                "use_exponential_sigmas",
                "use_karras_sigmas",
                "use_lu_lambdas",
            ],
            Self::UniPc => &[
                "final_sigmas_type",
                "sigma_max",
                "sigma_min",
                "use_beta_sigmas",
                "use_exponential_sigmas",
                "use_karras_sigmas",
            ],
            Self::Euler => &[
                "final_sigmas_type",
                "interpolation_type",
                "sigma_max",
                "sigma_min",
                "timestep_type",
                "use_beta_sigmas",
                "use_exponential_sigmas",
                "use_karras_sigmas",
            ],
            Self::Heun => &["use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas"],
            Self::FlowMatchEuler => &[
                "invert_sigmas",
                "shift",
                "shift_terminal",
                "stochastic_sampling",
                "use_beta_sigmas",
                "use_dynamic_shifting",
                "use_exponential_sigmas",
                "use_karras_sigmas",
            ],
            Self::EdmEuler => &["final_sigmas_type", "rho", "sigma_data", "sigma_max", "sigma_min", "sigma_schedule"],
            Self::Consistency => &["rho", "s_noise", "sigma_data", "sigma_max", "sigma_min"],
        }
    }

    /// The configuration with this solver's defaults for absent fields, if it can take it over.
    fn adopt(&self, config: &SchedulerConfig) -> Result<SchedulerConfig, ScheduleError> {
        let class_name = self.class_name();
        if Family::of(&config.class_name) != Family::of(class_name) {
            let expected = format!("{} does not have the noise levels of this class", self.name());
            return Err(ScheduleError::field("_class_name", &config.class_name, expected));
        }
        config.check_read(self.name(), self.reads())?;
        let expected = |what: &str| format!("{} does not {what}; use false, or choose another scheduler", self.name());
        if config.thresholding.is_some()
            && matches!(self, Self::DdimInverse | Self::Euler | Self::EulerAncestral | Self::Heun)
        {
            return Err(ScheduleError::field("thresholding", true, expected("threshold")));
        }
        if config.rescale_betas_zero_snr && *self == Self::Heun {
            return Err(ScheduleError::field("rescale_betas_zero_snr", true, expected("rescale")));
        }
        config.with_defaults_of(class_name)
    }

    /// The steps of a list, first to last, as diffusers takes them.
    ///
    /// # Errors
    /// If there is no such list, the solver does not support a field, or a coefficient is not finite.
    pub fn steps_of(&self, config: &SchedulerConfig, request: &StepRequest) -> Result<Vec<Step>, ScheduleError> {
        match request {
            StepRequest::Count(n) => self.steps(config, *n),
            StepRequest::Timesteps(timesteps) => self.steps_at(config, timesteps),
            StepRequest::Sigmas(sigmas) => self.steps_through(config, sigmas),
        }
    }

    /// The steps of a list of `n`, first to last, as diffusers takes them.
    ///
    /// # Errors
    /// If there is no such list, the solver does not support a field, or a coefficient is not finite.
    pub fn steps(&self, config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
        let config = &self.adopt(config)?;
        match self {
            Self::Ddim(ddim) => ddim.steps(config, n),
            Self::DdimInverse => ddim_inverse::steps(config, n),
            Self::Ddpm => ddpm::steps(config, n),
            Self::DpmSolver => dpm_solver::steps(config, n),
            Self::UniPc => unipc::steps(config, n),
            Self::Euler => euler::steps(config, Kind::Deterministic, &Grid::new(config, n)?),
            Self::EulerAncestral => euler::steps(config, Kind::Ancestral, &Grid::new(config, n)?),
            Self::Heun => heun::steps(config, &Grid::new(config, n)?),
            Self::Lcm => lcm::steps(config, n),
            Self::FlowMatchEuler => flow_match::steps(config, n),
            Self::EdmEuler => edm::steps(config, n),
            Self::Consistency => consistency::steps(config, n),
        }
    }

    /// The steps of a given list of timesteps, strictly falling: each leads to the next entry, the last to the end. It
    /// is what students of few steps need, and how DDIM is sampled without the quirk of diffusers that a step leads to
    /// `t − T // N`.
    ///
    /// # Errors
    /// If the list is not one, the solver does not support a field, or a coefficient is not finite.
    pub fn steps_at(&self, config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
        let config = &self.adopt(config)?;
        config.check_timesteps(timesteps)?;
        match self {
            Self::Ddim(ddim) => ddim.steps_at(config, timesteps),
            Self::DdimInverse => ddim_inverse::steps_at(config, timesteps),
            Self::Ddpm => ddpm::steps_at(config, timesteps),
            Self::DpmSolver => dpm_solver::steps_at(config, timesteps),
            Self::UniPc => unipc::steps_at(config, timesteps),
            Self::Euler => euler::steps(config, Kind::Deterministic, &Grid::at(config, timesteps)?),
            Self::EulerAncestral => euler::steps(config, Kind::Ancestral, &Grid::at(config, timesteps)?),
            Self::Heun => heun::steps(config, &Grid::at(config, timesteps)?),
            Self::Lcm => lcm::steps_at(config, timesteps),
            Self::FlowMatchEuler => flow_match::steps_at(config, timesteps),
            Self::Consistency => consistency::steps_at(config, timesteps),
            Self::EdmEuler => {
                let what = "EDM's network is told log σ/4; name a number of steps".into();
                Err(ScheduleError::Timesteps { what })
            }
        }
    }

    /// The steps of a given list of noise levels, strictly falling.
    ///
    /// # Errors
    /// If the list is not one, the solver takes none, or a coefficient is not finite.
    pub fn steps_through(&self, config: &SchedulerConfig, sigmas: &[f64]) -> Result<Vec<Step>, ScheduleError> {
        let refuse = |what: String| Err(ScheduleError::Sigmas { what });
        if *self == Self::EdmEuler {
            return refuse("EDM's follow from sigma_min, sigma_max and a number of steps; name that".into());
        }
        if !matches!(self, Self::Euler | Self::FlowMatchEuler) {
            return refuse(format!("{} takes none; use euler or flow-match-euler, or name timesteps", self.name()));
        }
        if let Some(sigma) = sigmas.iter().find(|sigma| !(0.0..=1e6).contains(*sigma)) {
            return refuse(format!("{sigma} is none; name values of 0 to 1000000"));
        }
        if let Some(pair) = sigmas.windows(2).find(|pair| pair[1] >= pair[0]) {
            return refuse(format!("{} follows {}; the list must fall", pair[1], pair[0]));
        }
        let config = &self.adopt(config)?;
        let least = if *self == Self::Euler { 2 } else { 1 };
        if sigmas.len() < least {
            return refuse(format!("{} values; name at least {least}", sigmas.len()));
        }
        match self {
            Self::Euler => euler::steps(config, Kind::Deterministic, &Grid::through(config, sigmas)?),
            _ => flow_match::steps_through(config, sigmas),
        }
    }
}
