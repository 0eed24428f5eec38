//! `scheduler_config.json`.

use serde_json::Value;

use super::fields::Fields;
use super::{Betas, ScheduleError};

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// `√ᾱ·ε − √(1−ᾱ)·x0` (Salimans and Ho, 2022, arXiv:2202.00512).
    VPrediction,
}

/// Which training timesteps a short list visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of `T // N`, plus `steps_offset`.
    Leading,
    /// Evenly from 0 to T − 1.
    Linspace,
    /// Evenly from T − 1 downwards.
    Trailing,
}

/// What `scheduler_config.json` says. Fields that are absent have the defaults of diffusers' `DDIMScheduler`, or of the
/// solver that reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// The scheduler that the checkpoint was saved with.
    pub class_name: String,
    /// Number of training timesteps, T.
    pub num_train_timesteps: usize,
    /// How much noise each training timestep adds.
    pub betas: Betas,
    /// Rescales β so that the last timestep has no signal (Lin et al., 2023, arXiv:2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Dynamic thresholding whose largest threshold is 1, which is clipping to ±1.
    pub thresholding: bool,
    /// Bound of the predicted clean sample in DDIM and DDPM: `clip_sample_range` if `clip_sample`. Thresholding goes
    /// before it, and makes it 1.
    pub clip: Option<f64>,
    /// Whether the last step of DDIM ends at ᾱ = 1 rather than at ᾱ of timestep 0.
    pub set_alpha_to_one: bool,
    /// Which timesteps a short list visits; `None`: as the solver's class in diffusers.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to the timesteps of leading spacing.
    pub steps_offset: usize,
    /// The fields as they are, for solvers with fields of their own.
    pub(super) fields: Fields,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self::new(Fields::default()).expect("the defaults are supported")
    }
}

/// Classes whose configuration every solver can take over, as `from_config` does.
const CLASSES: [&str; 12] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
];

/// Fields that are read here or by a solver, or that say nothing of noise levels and timesteps.
const KNOWN: [&str; 33] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "tensor_format",
    "thresholding",
    "time_shift_type",
    "timestep_spacing",
    "trained_betas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// Texts with which a field changes nothing; so do null and false with any field.
const NEUTRAL: [(&str, &str); 2] = [("interpolation_type", "linear"), ("timestep_type", "discrete")];

/// Fields that no solver reads although they change noise levels or timesteps.
const REFUSED: [&str; 8] = [
    "interpolation_type",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_flow_sigmas",
];

impl SchedulerConfig {
    /// Reads a configuration of DDIM, or of another scheduler that shares its fields.
    ///
    /// # Errors
    /// If it is not JSON, or a value is not supported, by name.
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        Self::new(Fields::parse(text)?)
    }

    fn new(fields: Fields) -> Result<Self, ScheduleError> {
        let class_name = match fields.get("_class_name") {
            None => "DDIMScheduler",
            Some(value) => value.as_str().filter(|name| CLASSES.contains(name)).ok_or_else(|| {
                ScheduleError::field("_class_name", value, format!("use one of {}", CLASSES.join(", ")))
            })?,
        };
        let class_name = class_name.to_string();
        check_unread(&fields)?;
        let num_train_timesteps = fields.count("num_train_timesteps", 1000, 1..=100_000)?;
        let betas = Betas::read(&fields, &class_name, num_train_timesteps)?;
        let predictions = [
            ("epsilon", PredictionType::Epsilon),
            ("sample", PredictionType::Sample),
            ("v_prediction", PredictionType::VPrediction),
        ];
        let spacings = [
            ("leading", TimestepSpacing::Leading),
            ("linspace", TimestepSpacing::Linspace),
            ("trailing", TimestepSpacing::Trailing),
        ];
        let thresholding = thresholding(&fields)?;
        let timestep_spacing = fields.choice("timestep_spacing", &spacings)?;
        let leads = timestep_spacing.is_none_or(|spacing| spacing == TimestepSpacing::Leading);
        Ok(Self {
            class_name,
            num_train_timesteps,
            betas,
            rescale_betas_zero_snr: fields.flag("rescale_betas_zero_snr", false)?,
            prediction_type: fields.choice("prediction_type", &predictions)?.unwrap_or(PredictionType::Epsilon),
            thresholding,
            clip: if thresholding { Some(1.0) } else { clip_sample(&fields)? },
            set_alpha_to_one: fields.flag("set_alpha_to_one", true)?,
            timestep_spacing,
            steps_offset: if leads { fields.count("steps_offset", 0, 0..=num_train_timesteps)? } else { 0 },
            fields,
        })
    }

    /// The clean sample as factors of `x` and `m`, where √ᾱ is `signal` and √(1−ᾱ) is `sigma`.
    pub(super) fn clean(&self, signal: f64, sigma: f64) -> (f64, f64) {
        match self.prediction_type {
            PredictionType::Epsilon => (1.0 / signal, -sigma / signal),
            PredictionType::Sample => (0.0, 1.0),
            PredictionType::VPrediction => (signal, -sigma),
        }
    }
}

fn clip_sample(fields: &Fields) -> Result<Option<f64>, ScheduleError> {
    if !fields.flag("clip_sample", true)? {
        return Ok(None);
    }
    let range = fields.number("clip_sample_range", 1.0)?;
    if range > 0.0 && range <= 1000.0 {
        Ok(Some(range))
    } else {
        Err(ScheduleError::field("clip_sample_range", range, "above 0, at most 1000"))
    }
}

fn thresholding(fields: &Fields) -> Result<bool, ScheduleError> {
    if !fields.flag("thresholding", false)? {
        return Ok(false);
    }
    if !matches!(fields.number("sample_max_value", 1.0), Ok(1.0)) {
        return Err(ScheduleError::field("thresholding", true, "only with sample_max_value = 1, where it clips to ±1"));
    }
    let ratio = fields.number("dynamic_thresholding_ratio", 0.995)?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(true)
    } else {
        Err(ScheduleError::field("dynamic_thresholding_ratio", ratio, "between 0 and 1"))
    }
}

/// Refuses what would change the result and is not read: nothing is ignored in silence.
fn check_unread(fields: &Fields) -> Result<(), ScheduleError> {
    for (name, value) in fields.iter() {
        let is_neutral = matches!(value, Value::Null | Value::Bool(false))
            || NEUTRAL.iter().any(|&(neutral, text)| name == neutral && value.as_str() == Some(text));
        if name.starts_with('_') || is_neutral {
            continue;
        }
        if REFUSED.contains(&name) {
            let expected = "leave it out, or take noise levels that follow from the betas";
            return Err(ScheduleError::field(name, value, expected));
        }
        if !KNOWN.contains(&name) {
            return Err(ScheduleError::field(name, value, "this field is not known; remove it if it changes nothing"));
        }
    }
    Ok(())
}
