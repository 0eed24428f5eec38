//! What the samplers share that step in the noise level σ of `x = x0 + σ·ε`: Euler, Euler ancestral, Heun.

use super::sigmas::{self, Levels};
use super::timesteps::{leading, trailing};
use super::{Level, ScheduleError, SchedulerConfig, TimestepSpacing};

/// Timesteps, fractional as a rule, and their noise levels with the one after the last.
pub(super) struct Grid {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f64>,
    /// Standard deviation of the initial sample.
    initial: f64,
}

impl Grid {
    /// The `n` noise levels that the configuration chooses, then 0 or the lowest of training.
    pub(super) fn new(config: &SchedulerConfig, n: usize) -> Result<Self, ScheduleError> {
        let training = sigmas::training(config);
        let mut timesteps = timesteps(config, n)?;
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&training, t)).collect();
        let interpolations = [("linear", false), ("log_linear", true)];
        if config.fields.choice("interpolation_type", &interpolations)?.unwrap_or(false) {
            sigmas = log_linear(&training, n);
        }
        if let Some(levels) = Levels::read(config)? {
            let given = [sigmas[0], sigmas[sigmas.len() - 1]];
            let [high, low] = sigmas::ends(config, given)?;
            sigmas = levels.between(high, low, n);
            let logs = sigmas::logs(&training);
            timesteps = sigmas.iter().map(|&sigma| single(sigmas::timestep_of(sigma, &logs))).collect();
        }
        Self::finish(config, timesteps, sigmas, &training)
    }

    /// The noise levels of given timesteps.
    pub(super) fn at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Self, ScheduleError> {
        sigmas::check_evenly(config)?;
        let training = sigmas::training(config);
        let sigmas = sigmas::at(timesteps, &training);
        Self::finish(config, timesteps.iter().map(|&t| t as f64).collect(), sigmas, &training)
    }

    /// Given noise levels, the last of which is where the last step ends.
    pub(super) fn through(config: &SchedulerConfig, sigmas: &[f64]) -> Result<Self, ScheduleError> {
        let training = sigmas::training(config);
        let (sigmas, logs) = (sigmas.iter().map(|&sigma| single(sigma)), sigmas::logs(&training));
        let sigmas: Vec<f64> = sigmas.collect();
        let steps = &sigmas[..sigmas.len() - 1];
        let timesteps = steps.iter().map(|&sigma| single(sigmas::timestep_of(sigma, &logs))).collect();
        Self::told(config, timesteps, sigmas)
    }

    fn finish(
        config: &SchedulerConfig,
        timesteps: Vec<f64>,
        mut sigmas: Vec<f64>,
        training: &[f32],
    ) -> Result<Self, ScheduleError> {
        let ends = [("zero", 0.0), ("sigma_min", f64::from(training[0]))];
        sigmas.push(config.fields.choice("final_sigmas_type", &ends)?.unwrap_or(0.0));
        Self::told(config, timesteps, sigmas.into_iter().map(single).collect())
    }

    fn told(config: &SchedulerConfig, mut timesteps: Vec<f64>, sigmas: Vec<f64>) -> Result<Self, ScheduleError> {
        if config.tells_sigma()? {
            timesteps = sigmas.iter().zip(&timesteps).map(|(&sigma, _)| single(0.25 * libm::log(sigma))).collect();
        }
        sigmas::check_start(&timesteps)?;
        let highest = sigmas.iter().fold(0.0, |highest: f64, &sigma| highest.max(sigma));
        let initial = match config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace) {
            TimestepSpacing::Leading => (highest * highest + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => highest,
        };
        Ok(Self { timesteps, sigmas, initial })
    }

    /// By how much the network's input is smaller than the sample at noise level `i`. The end is no input.
    pub(super) fn scale(&self, i: usize) -> f64 {
        if i < self.timesteps.len() { (self.sigmas[i].powi(2) + 1.0).sqrt() } else { 1.0 }
    }

    /// What the network's input at noise level `i` consists of.
    pub(super) fn level(&self, i: usize) -> Level {
        let scale = self.scale(i);
        Level {
            signal: 1.0 / scale,
            noise: self.sigmas[i] / scale,
            start: if i == 0 { self.initial / scale } else { 1.0 },
        }
    }
}

impl SchedulerConfig {
    /// Whether the network is told log σ/4 rather than a timestep.
    fn tells_sigma(&self) -> Result<bool, ScheduleError> {
        let types = [("discrete", false), ("continuous", true)];
        let is_continuous = self.fields.choice("timestep_type", &types)?.unwrap_or(false);
        Ok(is_continuous && self.prediction_type == super::PredictionType::VPrediction)
    }
}

/// `n` timesteps as diffusers' Euler samplers space them: linspace does not round.
fn timesteps(config: &SchedulerConfig, n: usize) -> Result<Vec<f64>, ScheduleError> {
    let train = config.num_train_timesteps;
    let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
    if spacing == TimestepSpacing::Linspace && (1..=train).contains(&n) {
        let step = (train - 1) as f64 / (n.max(2) - 1) as f64;
        return Ok((0..n).rev().map(|i| single(i as f64 * step)).collect());
    }
    let list = config.checked_timesteps(spacing, n, |n| match spacing {
        TimestepSpacing::Leading => leading(n, train / n, config.steps_offset),
        _ => trailing(n, train, train),
    })?;
    Ok(list.into_iter().map(|t| t as f64).collect())
}

/// σ between two timesteps of training, as `numpy.interp` has it.
fn interpolate(training: &[f32], t: f64) -> f64 {
    let below = t as usize;
    let low = f64::from(training[below]);
    match training.get(below + 1) {
        Some(&high) => (f64::from(high) - low) * (t - below as f64) + low,
        None => low,
    }
}

/// `n` + 1 noise levels evenly in log σ, in single precision, from the highest of training to the lowest.
fn log_linear(training: &[f32], n: usize) -> Vec<f64> {
    let [high, low] = [training[training.len() - 1], training[0]].map(|sigma| libm::log(f64::from(sigma)) as f32);
    super::betas::linspace(high, low, n + 1).into_iter().map(|log| single(libm::exp(f64::from(log)))).collect()
}

/// Rounded to single precision.
pub(super) fn single(value: f64) -> f64 {
    f64::from(value as f32)
}
