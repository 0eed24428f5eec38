//! DDIM backwards (Song et al., 2020, arXiv:2010.02502, equation 14 in the other direction), as diffusers'
//! `DDIMInverseScheduler`: from a picture to the noise that DDIM makes it from.

use super::timesteps::pairs;
use super::{Ddim, Level, ScheduleError, SchedulerConfig, Step, TimestepSpacing};

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    if config.timestep_spacing == Some(TimestepSpacing::Linspace) {
        let expected = "DDIM backwards has leading and trailing spacing, as in diffusers";
        return Err(ScheduleError::field("timestep_spacing", "linspace", expected));
    }
    let stride = (config.num_train_timesteps / n.max(1)) as i64;
    steps_between(config, config.timesteps(n)?.into_iter().map(|t| (t, t - stride)).collect())
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    steps_between(config, pairs(timesteps).collect())
}

/// Each step leads to the first timestep of a pair, from the second, and the network is told the first.
fn steps_between(config: &SchedulerConfig, mut pairs: Vec<(i64, i64)>) -> Result<Vec<Step>, ScheduleError> {
    let alphas = config.alphas_cumprod();
    pairs.reverse();
    let step = |(index, &(to, from)): (usize, &(i64, i64))| {
        let timestep = to as f64;
        let alpha = match usize::try_from(from) {
            Ok(from) => f64::from(alphas[from]),
            Err(_) if config.set_alpha_to_one => 1.0,
            Err(_) => f64::from(alphas[0]),
        };
        let step = Step { timestep, ..Ddim::default().step(config, alpha, f64::from(alphas[to as usize])) };
        // What it starts from is a picture without noise, whatever the level that its first step assumes.
        let level = if index == 0 { Level::new(1.0, 0.0) } else { step.level };
        let advice = "of a picture without noise a network that predicts the clean sample tells no noise; take epsilon or \
                      v_prediction, and a schedule without rescale_betas_zero_snr";
        if step.is_finite() { Ok(Step { level, ..step }) } else { Err(ScheduleError::NotFinite { timestep, advice }) }
    };
    pairs.iter().enumerate().map(step).collect()
}
