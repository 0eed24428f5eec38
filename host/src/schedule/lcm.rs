//! Latent consistency models (Luo et al., 2023, arXiv:2310.04378), as diffusers' `LCMScheduler`.

use super::timesteps::pairs;
use super::{Level, ScheduleError, SchedulerConfig, Step};

/// The `n` timesteps of those that the model was distilled at.
pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    let train = config.num_train_timesteps;
    let original = config.fields.count("original_inference_steps", 50, 1..=train)?;
    if n == 0 || n > original {
        let what = format!("{n} steps; ask for 1 to original_inference_steps = {original}");
        return Err(ScheduleError::Timesteps { what });
    }
    // Multiples of the stride less 1, from the highest; every so many of them, rounded down as numpy's linspace is.
    let (stride, step) = (train / original, original as f64 / n as f64);
    let timesteps = (0..n).map(|i| ((original - (i as f64 * step) as usize) * stride) as i64 - 1);
    steps_at(config, &timesteps.collect::<Vec<_>>())
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    let scaling = config.fields.number("timestep_scaling", 10.0)?;
    let alphas = config.alphas_cumprod();
    let step = |(t, next): (i64, i64)| {
        let timestep = t as f64;
        let alpha = f64::from(alphas[t as usize]);
        let level = Level::new(alpha.sqrt(), (1.0 - alpha).sqrt());
        let (x0_x, x0_m) = config.clean(level.signal, level.noise);
        // Boundary conditions of a consistency function, for data of standard deviation ½.
        let (scaled, data) = (timestep * scaling, 0.5f64);
        let (skip, out) =
            (data * data / (scaled * scaled + data * data), scaled / (scaled * scaled + data * data).sqrt());
        // The last step ends at the clean sample, the others at the noise level of the next.
        let (signal, noise) = match usize::try_from(next) {
            Ok(next) => (f64::from(alphas[next]).sqrt(), f64::from(1.0 - alphas[next]).sqrt()),
            Err(_) => (1.0, 0.0),
        };
        let (next_x0, next_x) = (signal * out, signal * skip);
        let step = Step { timestep, level, x0_x, x0_m, next_x0, next_x, noise, ..Step::default() };
        let step = config.bounded(step);
        let advice = "without signal (alpha 0) use v_prediction, or a schedule without rescale_betas_zero_snr";
        if step.is_finite() { Ok(step) } else { Err(ScheduleError::NotFinite { timestep, advice }) }
    };
    pairs(timesteps).map(step).collect()
}
