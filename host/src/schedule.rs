//! Noise schedules and the DDIM sampler as diffusers computes them, reduced to linear maps.
//!
//! diffusers is the specification, its rounding and its quirks included; where this module is said to do "as diffusers
//! does", the tests hold it against lists that diffusers wrote.

use std::f64::consts::FRAC_PI_2;

use serde::Deserialize;
use thiserror::Error;

/// Why a scheduler configuration or a step count is refused.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// Not JSON, or a field of the wrong type.
    #[error("scheduler_config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that is not supported or makes no sense.
    #[error("scheduler_config.json: {field} = {value} is not supported: {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be.
        expected: String,
    },
    /// A step count that the schedule cannot give.
    #[error("{steps} steps of {spacing:?} spacing over {train} training steps: {what}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// The spacing.
        spacing: TimestepSpacing,
        /// Training steps.
        train: usize,
        /// Why not, and what to do.
        what: String,
    },
    /// A step whose coefficients are not finite.
    #[error(
        "timestep {timestep} has no signal (alpha is 0): a model that predicts epsilon cannot start there; {advice}"
    )]
    NoSignal {
        /// The timestep.
        timestep: i64,
        /// What to do.
        advice: &'static str,
    },
}

/// How β grows over the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Linear in β (Ho et al., 2020).
    Linear,
    /// Linear in √β (latent diffusion).
    ScaledLinear,
    /// Cosine (Nichol and Dhariwal, 2021, arXiv:2102.09672, equation 17), β at most 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// `√ᾱ·ε − √(1−ᾱ)·x0` (Salimans and Ho, 2022, arXiv:2202.00512).
    VPrediction,
}

/// Which training timesteps a short list visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of `T // N`, plus `steps_offset`.
    Leading,
    /// Evenly from 0 to T − 1.
    Linspace,
    /// Evenly from T − 1 downwards.
    Trailing,
}

/// What `scheduler_config.json` says, with the defaults of diffusers' `DDIMScheduler`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// Number of training timesteps, T.
    pub num_train_timesteps: usize,
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// How β grows.
    pub beta_schedule: BetaSchedule,
    /// Explicit β instead.
    pub trained_betas: Option<Vec<f32>>,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Whether the predicted clean sample is clipped.
    pub clip_sample: bool,
    /// To ± this.
    pub clip_sample_range: f64,
    /// Whether the last step ends at ᾱ = 1 rather than at ᾱ of timestep 0.
    pub set_alpha_to_one: bool,
    /// Which timesteps a short list visits.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of leading spacing.
    pub steps_offset: usize,
    /// Rescales β so that the last timestep has no signal (Lin et al., 2023, arXiv:2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// Dynamic thresholding; with `sample_max_value` 1 it is clipping to ±1.
    pub thresholding: bool,
    /// Largest threshold.
    pub sample_max_value: f64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: "DDIMScheduler".into(),
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            prediction_type: PredictionType::Epsilon,
            clip_sample: true,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            thresholding: false,
            sample_max_value: 1.0,
        }
    }
}

/// Options of the DDIM step that are not part of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DdimOptions {
    /// η: 0 is deterministic, 1 has DDPM's variance.
    pub eta: f64,
    /// Derives ε again from the clipped clean sample. diffusers' default is not to, which lets guidance drift.
    pub use_clipped_model_output: bool,
}

/// One step for a sample `x`, a model output `m` and standard Gaussian noise `z`:
/// `x0 = clamp(x0_x·x + x0_m·m, ±clip)`, `x' = prev_x0·x0 + prev_x·x + prev_m·m + noise·z`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DdimStep {
    /// The timestep that the network is told.
    pub timestep: i64,
    /// The timestep that the step leads to; negative at the end.
    pub prev_timestep: i64,
    /// Factor of `x` in the clean sample.
    pub x0_x: f64,
    /// Factor of `m` in the clean sample.
    pub x0_m: f64,
    /// Bound of the clean sample.
    pub clip: Option<f64>,
    /// Factor of the clean sample.
    pub prev_x0: f64,
    /// Factor of `x`.
    pub prev_x: f64,
    /// Factor of `m`.
    pub prev_m: f64,
    /// Factor of `z`.
    pub noise: f64,
}

/// Schedulers whose configuration DDIM can take over, as `DDIMScheduler.from_config` does.
const COMPATIBLE: [&str; 12] = [
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

fn field(field: &'static str, value: impl ToString, expected: impl Into<String>) -> ScheduleError {
    ScheduleError::Field { field, value: value.to_string(), expected: expected.into() }
}

impl SchedulerConfig {
    /// Reads a configuration of DDIM, or of another scheduler that shares its fields.
    ///
    /// # Errors
    /// If it is not JSON, or a value is not supported, by name.
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        let mut value: serde_json::Value = serde_json::from_str(text)?;
        // A null means the default, as in diffusers.
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, value| !value.is_null());
            for name in ["beta_schedule", "prediction_type", "timestep_spacing"] {
                if let Some(text) = object.get(name).and_then(|v| v.as_str()) {
                    let supported: &[&str] = match name {
                        "beta_schedule" => &["linear", "scaled_linear", "squaredcos_cap_v2"],
                        "prediction_type" => &["epsilon", "sample", "v_prediction"],
                        _ => &["leading", "linspace", "trailing"],
                    };
                    if !supported.contains(&text) {
                        let field_name = match name {
                            "beta_schedule" => "beta_schedule",
                            "prediction_type" => "prediction_type",
                            _ => "timestep_spacing",
                        };
                        return Err(field(field_name, text, format!("use one of {}", supported.join(", "))));
                    }
                }
            }
        }
        let config: Self = serde_json::from_value(value)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ScheduleError> {
        if !COMPATIBLE.contains(&self.class_name.as_str()) {
            let expected = format!("DDIM takes over configurations of {}", COMPATIBLE.join(", "));
            return Err(field("_class_name", &self.class_name, expected));
        }
        if !(1..=100_000).contains(&self.num_train_timesteps) {
            return Err(field("num_train_timesteps", self.num_train_timesteps, "1 to 100000"));
        }
        for (name, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(field(name, beta, "between 0 and 1"));
            }
        }
        if let Some(betas) = &self.trained_betas {
            if betas.len() != self.num_train_timesteps {
                let expected = format!("num_train_timesteps = {} values", self.num_train_timesteps);
                return Err(field("trained_betas", format!("{} values", betas.len()), expected));
            }
            if let Some(beta) = betas.iter().find(|&&beta| !(beta > 0.0 && beta < 1.0)) {
                return Err(field("trained_betas", beta, "values between 0 and 1"));
            }
        }
        if !(self.clip_sample_range > 0.0 && self.clip_sample_range <= 1000.0) {
            return Err(field("clip_sample_range", self.clip_sample_range, "above 0, at most 1000"));
        }
        if self.thresholding && self.sample_max_value != 1.0 {
            return Err(field("thresholding", true, "only with sample_max_value = 1, where it clips to ±1"));
        }
        if self.steps_offset > self.num_train_timesteps {
            return Err(field("steps_offset", self.steps_offset, "at most num_train_timesteps"));
        }
        Ok(())
    }

    /// β of every training step, as diffusers has them in `f32`.
    fn betas(&self) -> Vec<f32> {
        let count = self.num_train_timesteps;
        if let Some(betas) = &self.trained_betas {
            return betas.clone();
        }
        match self.beta_schedule {
            BetaSchedule::Linear => linspace(self.beta_start as f32, self.beta_end as f32, count),
            BetaSchedule::ScaledLinear => {
                let roots = linspace(self.beta_start.sqrt() as f32, self.beta_end.sqrt() as f32, count);
                roots.into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredcosCapV2 => {
                let alpha_bar = |t: f64| libm::cos((t + 0.008) / 1.008 * FRAC_PI_2).powi(2);
                let at = |i: usize| alpha_bar(i as f64 / count as f64);
                (0..count).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
            }
        }
    }

    /// ᾱ of every training step: the running product of 1 − β, accumulated in double precision and rounded to `f32`
    /// entry by entry, as PyTorch does on a CPU.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let mut betas = self.betas();
        if self.rescale_betas_zero_snr {
            betas = rescale_zero_snr(&betas);
        }
        cumprod(betas.iter().map(|beta| 1.0 - beta))
    }

    /// The timesteps of a list of `n`, first to last.
    ///
    /// # Errors
    /// If there is no such list.
    pub fn timesteps(&self, n: usize) -> Result<Vec<i64>, ScheduleError> {
        let train = self.num_train_timesteps;
        let refuse = |what: String| ScheduleError::Steps { steps: n, spacing: self.timestep_spacing, train, what };
        if n == 0 || n > train {
            return Err(refuse(format!("ask for 1 to {train}")));
        }
        let list = self.raw_timesteps(n);
        if list.len() != n || list.iter().any(|&t| t < 0) {
            let good = |m: usize| m >= 1 && m <= train && self.raw_timesteps(m).len() == m;
            let near = (1..train).find_map(|d| [n.saturating_sub(d), n + d].into_iter().find(|&m| good(m)));
            return Err(refuse(format!(
                "diffusers' rounding makes a list of {} that ends at timestep −1; take {} steps",
                list.len(),
                near.unwrap_or(1)
            )));
        }
        if let Some(t) = list.iter().find(|&&t| t >= train as i64) {
            return Err(refuse(format!("timestep {t} does not exist; lower steps_offset")));
        }
        Ok(list)
    }

    fn raw_timesteps(&self, n: usize) -> Vec<i64> {
        let train = self.num_train_timesteps;
        match self.timestep_spacing {
            TimestepSpacing::Leading => {
                let ratio = train / n;
                (0..n).rev().map(|i| (i * ratio + self.steps_offset) as i64).collect()
            }
            TimestepSpacing::Linspace => {
                // numpy: the last value is set, the others are multiples of the step.
                let stop = (train - 1) as f64;
                let step = stop / (n.max(2) - 1) as f64;
                let at = |i: usize| if n > 1 && i == n - 1 { stop } else { i as f64 * step };
                (0..n).rev().map(|i| at(i).round_ties_even() as i64).collect()
            }
            TimestepSpacing::Trailing => {
                // numpy.arange(T, 0, −T/n): its length is the rounded-up quotient, whatever that rounding error gives.
                let ratio = train as f64 / n as f64;
                let len = ((0.0 - train as f64) / -ratio).ceil() as usize;
                (0..len).map(|i| (train as f64 - i as f64 * ratio).round_ties_even() as i64 - 1).collect()
            }
        }
    }

    /// The steps of a DDIM list of `n` (Song et al., 2020, arXiv:2010.02502, equations 12 and 16), as diffusers takes
    /// them: the timestep that a step leads to is `t − T // n`, whatever the list's next entry.
    ///
    /// # Errors
    /// If there is no such list, or a coefficient is not finite.
    pub fn ddim(&self, n: usize, options: DdimOptions) -> Result<Vec<DdimStep>, ScheduleError> {
        let timesteps = self.timesteps(n)?;
        let alphas = self.alphas_cumprod();
        let stride = (self.num_train_timesteps / n) as i64;
        timesteps
            .into_iter()
            .map(|timestep| {
                let prev_timestep = timestep - stride;
                let alpha = f64::from(alphas[timestep as usize]);
                let prev = match usize::try_from(prev_timestep) {
                    Ok(prev) => f64::from(alphas[prev]),
                    Err(_) if self.set_alpha_to_one => 1.0,
                    Err(_) => f64::from(alphas[0]),
                };
                self.ddim_step(timestep, prev_timestep, alpha, prev, options)
            })
            .collect()
    }

    fn ddim_step(
        &self,
        timestep: i64,
        prev_timestep: i64,
        alpha: f64,
        prev: f64,
        options: DdimOptions,
    ) -> Result<DdimStep, ScheduleError> {
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let advice = "use v_prediction, or a schedule without rescale_betas_zero_snr";
        if alpha <= 0.0 && self.prediction_type == PredictionType::Epsilon {
            return Err(ScheduleError::NoSignal { timestep, advice });
        }
        // The clean sample and ε as combinations of x and m.
        let ((x0_x, x0_m), (epsilon_x, epsilon_m)) = match self.prediction_type {
            PredictionType::Epsilon => ((1.0 / signal, -sigma / signal), (0.0, 1.0)),
            PredictionType::Sample => ((0.0, 1.0), (1.0 / sigma, -signal / sigma)),
            PredictionType::VPrediction => ((signal, -sigma), (sigma, signal)),
        };
        let clip = match (self.thresholding, self.clip_sample) {
            (true, _) => Some(1.0),
            (false, true) => Some(self.clip_sample_range),
            (false, false) => None,
        };
        let variance = (1.0 - prev) / (1.0 - alpha) * (1.0 - alpha / prev);
        let deviation = options.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - prev - deviation * deviation).max(0.0).sqrt();
        // ε is either the network's, or follows from x and the clipped clean sample: (x − √ᾱ·x0)/√(1−ᾱ).
        let (prev_x0, prev_x, prev_m) = if options.use_clipped_model_output {
            (prev.sqrt() - direction * signal / sigma, direction / sigma, 0.0)
        } else {
            (prev.sqrt(), direction * epsilon_x, direction * epsilon_m)
        };
        let step = DdimStep { timestep, prev_timestep, x0_x, x0_m, clip, prev_x0, prev_x, prev_m, noise: deviation };
        let values = [x0_x, x0_m, prev_x0, prev_x, prev_m, deviation];
        if values.iter().all(|value| value.is_finite()) {
            Ok(step)
        } else {
            Err(ScheduleError::NoSignal { timestep, advice })
        }
    }
}

/// `torch.linspace` in `f32`: the first half counts up from the start, the second down from the end.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(
            |i| {
                if i < count / 2 { step.mul_add(i as f32, start) } else { step.mul_add(-((count - 1 - i) as f32), end) }
            },
        )
        .collect()
}

fn cumprod(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    factors
        .scan(1.0f64, |product, factor| {
            *product *= f64::from(factor);
            Some(*product as f32)
        })
        .collect()
}

/// Shifts and scales √ᾱ so that the last is 0 and the first is kept.
fn rescale_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumprod(betas.iter().map(|beta| 1.0 - beta)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return vec![] };
    let squares: Vec<f32> = roots
        .iter()
        .map(|root| {
            let shifted = (root - last) * (first / (first - last));
            shifted * shifted
        })
        .collect();
    let ratios = std::iter::once(squares[0]).chain(squares.windows(2).map(|pair| pair[1] / pair[0]));
    ratios.map(|alpha| 1.0 - alpha).collect()
}
