//! `scheduler_config.json`.

use serde_json::Value;

use super::betas::{BetaDefaults, Shape};
use super::fields::Fields;
use super::{Betas, ScheduleError, Step, Thresholding};

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
/// solver that reads them. It is what the file says, so that a solver can read it again with its own defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// The scheduler that the checkpoint was saved with.
    pub(crate) class_name: String,
    /// Number of training timesteps, T.
    pub(crate) num_train_timesteps: usize,
    /// How much noise each training timestep adds.
    pub(crate) betas: Betas,
    /// Rescales β so that the last timestep has no signal (Lin et al., 2023, arXiv:2305.08891, algorithm 1).
    pub(crate) rescale_betas_zero_snr: bool,
    /// What the network predicts.
    pub(crate) prediction_type: PredictionType,
    /// Dynamic thresholding of the predicted clean sample.
    pub(crate) thresholding: Option<Thresholding>,
    /// Bound of the predicted clean sample in DDIM and DDPM: `clip_sample_range` if `clip_sample`, without
    /// thresholding.
    pub(crate) clip: Option<f64>,
    /// Whether the last step of DDIM ends at ᾱ = 1 rather than at ᾱ of timestep 0.
    pub(crate) set_alpha_to_one: bool,
    /// Which timesteps a short list visits; `None`: as the solver's class in diffusers.
    pub(crate) timestep_spacing: Option<TimestepSpacing>,
    /// Added to the timesteps of leading spacing.
    pub(crate) steps_offset: usize,
    /// The fields as they are, for solvers with fields of their own.
    pub(super) fields: Fields,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self::new(Fields::default()).expect("the defaults are supported")
    }
}

/// Classes whose configuration is read. Those whose noise levels follow from β take over each other's, as `from_config` does.
const CLASSES: [&str; 18] = [
    "DDIMScheduler",
    "DDIMInverseScheduler",
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
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "EDMEulerScheduler",
    "CMStochasticIterativeScheduler",
];

/// Fields that are read here or by a solver, or that say nothing of noise levels and timesteps.
const KNOWN: [&str; 36] = [
    "algorithm_type",
    "base_image_seq_len",
    "base_shift",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_denoised",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "flow_shift",
    "lambda_min_clipped",
    "lower_order_final",
    "max_image_seq_len",
    "max_shift",
    "num_train_timesteps",
    "original_inference_steps",
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
    "timestep_scaling",
    "timestep_spacing",
    "trained_betas",
    "variance_type",
];

/// Fields that change noise levels or timesteps and that not every solver reads.
const OF_SOME: [&str; 19] = [
    "final_sigmas_type",
    "interpolation_type",
    "invert_sigmas",
    "rho",
    "s_noise",
    "shift",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "stochastic_sampling",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
];

/// Texts with which a field changes nothing; so do null and false with any field, and a shift of 1.
const NEUTRAL: [(&str, &str); 3] =
    [("final_sigmas_type", "zero"), ("interpolation_type", "linear"), ("timestep_type", "discrete")];

/// Whether a value is the same as no field.
fn is_neutral(name: &str, value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
        || NEUTRAL.iter().any(|&(neutral, text)| name == neutral && value.as_str() == Some(text))
        || (name == "shift" && value.as_f64() == Some(1.0))
}

/// What a class of diffusers takes for absent fields, where classes differ.
struct Defaults {
    num_train_timesteps: usize,
    betas: BetaDefaults,
    clip_sample: bool,
}

impl Defaults {
    fn of(class_name: &str) -> Self {
        let betas = |shape, start, end| BetaDefaults { shape, start, end };
        let (num_train_timesteps, betas, clip_sample) = match class_name {
            "LCMScheduler" => (1000, betas(Shape::ScaledLinear, 0.00085, 0.012), false),
            "HeunDiscreteScheduler" => (1000, betas(Shape::Linear, 0.00085, 0.012), false),
            "CMStochasticIterativeScheduler" => (40, betas(Shape::Linear, 1e-4, 0.02), false),
            _ => (1000, betas(Shape::Linear, 1e-4, 0.02), true),
        };
        Self { num_train_timesteps, betas, clip_sample }
    }
}

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
        check_known(&fields)?;
        Self::read(class_name.clone(), &class_name, fields)
    }

    /// The same fields as `reader` reads them, which has defaults of its own for absent ones.
    pub(super) fn with_defaults_of(&self, reader: &str) -> Result<Self, ScheduleError> {
        Self::read(self.class_name.clone(), reader, self.fields.clone())
    }

    fn read(class_name: String, reader: &str, fields: Fields) -> Result<Self, ScheduleError> {
        let defaults = Defaults::of(reader);
        let num_train_timesteps = fields.count("num_train_timesteps", defaults.num_train_timesteps, 1..=100_000)?;
        let betas = Betas::read(&fields, [&class_name, reader], defaults.betas, num_train_timesteps)?;
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
            clip: if thresholding.is_some() { None } else { clip_sample(&fields, defaults.clip_sample)? },
            set_alpha_to_one: fields.flag("set_alpha_to_one", true)?,
            timestep_spacing,
            steps_offset: if leads { fields.count("steps_offset", 0, 0..=num_train_timesteps)? } else { 0 },
            fields,
        })
    }

    /// The scheduler that the checkpoint was saved with.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Number of training timesteps, T.
    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps
    }

    /// What the network predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    /// Bound of the predicted clean sample in DDIM and DDPM, if there is one.
    pub fn clip(&self) -> Option<f64> {
        self.clip
    }

    /// Refuses a field that changes noise levels or timesteps and that the solver does not read.
    pub(super) fn check_read(&self, solver: &str, reads: &[&str]) -> Result<(), ScheduleError> {
        let unread = |(name, value): &(&str, &Value)| {
            OF_SOME.contains(name) && !reads.contains(name) && !is_neutral(name, value)
        };
        match self.fields.iter().find(unread) {
            Some((name, value)) => {
                let expected = format!("{solver} does not read it; leave it out, or choose another scheduler");
                Err(ScheduleError::field(name, value, expected))
            }
            None => Ok(()),
        }
    }

    /// A number above 0.
    pub(super) fn positive(&self, name: &str, default: f64) -> Result<f64, ScheduleError> {
        let value = self.fields.number(name, default)?;
        let is_positive = value > 0.0 && value.is_finite();
        if is_positive { Ok(value) } else { Err(ScheduleError::field(name, value, "a number above 0")) }
    }

    /// A step whose clean sample is bounded by thresholding, if the configuration says so.
    pub(super) fn thresholded(&self, step: Step) -> Step {
        match self.thresholding {
            None => step,
            // Whatever the quantile, the threshold is the largest one.
            Some(Thresholding { limit, .. }) if limit <= 1.0 => {
                let [x0_x, x0_m] = [step.x0_x / limit, step.x0_m / limit];
                Step { x0_x, x0_m, kept: Some(1.0 / limit), clip: Some(1.0), ..step }
            }
            thresholding => Step { thresholding, ..step },
        }
    }

    /// The same, or else by clipping, if the configuration says so.
    pub(super) fn bounded(&self, step: Step) -> Step {
        self.thresholded(Step { clip: self.clip, ..step })
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

fn clip_sample(fields: &Fields, default: bool) -> Result<Option<f64>, ScheduleError> {
    if !fields.flag("clip_sample", default)? {
        return Ok(None);
    }
    let range = fields.number("clip_sample_range", 1.0)?;
    if range > 0.0 && range <= 1000.0 {
        Ok(Some(range))
    } else {
        Err(ScheduleError::field("clip_sample_range", range, "above 0, at most 1000"))
    }
}

fn thresholding(fields: &Fields) -> Result<Option<Thresholding>, ScheduleError> {
    if !fields.flag("thresholding", false)? {
        return Ok(None);
    }
    // None is no bound to PyTorch.
    let is_bounded = fields.get("sample_max_value").is_none_or(|value| !value.is_null());
    let limit = if is_bounded { fields.number("sample_max_value", 1.0)? } else { f64::INFINITY };
    if limit.is_nan() || limit <= 0.0 {
        return Err(ScheduleError::field("sample_max_value", limit, "a number above 0"));
    }
    let ratio = fields.number("dynamic_thresholding_ratio", 0.995)?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(Some(Thresholding { ratio, limit }))
    } else {
        Err(ScheduleError::field("dynamic_thresholding_ratio", ratio, "between 0 and 1"))
    }
}

/// Refuses what nobody knows: nothing is ignored in silence.
fn check_known(fields: &Fields) -> Result<(), ScheduleError> {
    for (name, value) in fields.iter() {
        let is_known = name.starts_with('_') || KNOWN.contains(&name) || OF_SOME.contains(&name);
        if !is_known && !is_neutral(name, value) {
            return Err(ScheduleError::field(name, value, "this field is not known; remove it if it changes nothing"));
        }
    }
    Ok(())
}
