//! DDIM (Song et al., 2020, arXiv:2010.02502).

use super::timesteps::pairs;
use super::{Level, PredictionType, ScheduleError, SchedulerConfig, Step};

/// DDIM, and what its step takes that is not part of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddim {
    /// η: 0 is deterministic, 1 has DDPM's variance.
    pub eta: f64,
    /// Derives ε again from the clipped clean sample. diffusers' default is not to, which lets guidance drift.
    pub use_clipped_model_output: bool,
}

impl Ddim {
    /// As diffusers takes them: the timestep that a step leads to is `t − T // N`, whatever the list's next entry.
    pub(super) fn steps(&self, config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
        let timesteps = config.timesteps(n)?;
        let stride = (config.num_train_timesteps / n) as i64;
        self.steps_between(config, timesteps.into_iter().map(|t| (t, t - stride)))
    }

    pub(super) fn steps_at(&self, config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
        self.steps_between(config, pairs(timesteps))
    }

    fn steps_between(
        &self,
        config: &SchedulerConfig,
        pairs: impl Iterator<Item = (i64, i64)>,
    ) -> Result<Vec<Step>, ScheduleError> {
        let alphas = config.alphas_cumprod();
        pairs
            .map(|(timestep, next_timestep)| {
                let alpha = f64::from(alphas[timestep as usize]);
                let next = match usize::try_from(next_timestep) {
                    Ok(next) => f64::from(alphas[next]),
                    Err(_) if config.set_alpha_to_one => 1.0,
                    Err(_) => f64::from(alphas[0]),
                };
                let step = Step { timestep: timestep as f64, ..self.step(config, alpha, next) };
                let advice = "without signal (alpha 0) use v_prediction, or a schedule without rescale_betas_zero_snr";
                if step.is_finite() {
                    Ok(step)
                } else {
                    Err(ScheduleError::NotFinite { timestep: step.timestep, advice })
                }
            })
            .collect()
    }

    /// Equations 12 and 16, from ᾱ = `alpha` to ᾱ = `next`.
    pub(super) fn step(&self, config: &SchedulerConfig, alpha: f64, next: f64) -> Step {
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (x0_x, x0_m) = config.clean(signal, sigma);
        // ε as a combination of x and m.
        let (epsilon_x, epsilon_m) = match config.prediction_type {
            PredictionType::Epsilon => (0.0, 1.0),
            PredictionType::Sample => (1.0 / sigma, -signal / sigma),
            PredictionType::VPrediction => (sigma, signal),
        };
        let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
        let noise = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - next - noise * noise).max(0.0).sqrt();
        // ε is either the network's, or follows from x and the clipped clean sample: (x − √ᾱ·x0)/√(1−ᾱ).
        let (next_x0, next_x, next_m) = if self.use_clipped_model_output {
            (next.sqrt() - direction * signal / sigma, direction / sigma, 0.0)
        } else {
            (next.sqrt(), direction * epsilon_x, direction * epsilon_m)
        };
        let level = Level::new(signal, sigma);
        config.bounded(Step { level, x0_x, x0_m, next_x0, next_x, next_m, noise, ..Step::default() })
    }
}
