//! DDPM's ancestral sampler (Ho et al., 2020, arXiv:2006.11239).

use super::timesteps::pairs;
use super::{Level, ScheduleError, SchedulerConfig, Step};

/// Variance of the noise that a step adds.
#[derive(Clone, Copy)]
enum Variance {
    /// That of the posterior, β̃.
    Small,
    /// β.
    Large,
    /// Between the two, as the network says (Nichol and Dhariwal, 2021, arXiv:2102.09672, equation 15).
    Learned,
}

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    steps_at(config, &config.timesteps(n)?)
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    let variance = variance(config)?;
    let alphas = config.alphas_cumprod();
    pairs(timesteps)
        .map(|(timestep, next_timestep)| {
            let alpha = f64::from(alphas[timestep as usize]);
            let next = usize::try_from(next_timestep).map_or(1.0, |next| f64::from(alphas[next]));
            let mut step = Step { timestep: timestep as f64, ..step(config, variance, alpha, next) };
            if timestep == 0 {
                step.noise = 0.0;
            }
            let advice = "without signal (alpha 0) use v_prediction, or a schedule without rescale_betas_zero_snr";
            if step.is_finite() { Ok(step) } else { Err(ScheduleError::NotFinite { timestep: step.timestep, advice }) }
        })
        .collect()
}

fn variance(config: &SchedulerConfig) -> Result<Variance, ScheduleError> {
    if config.fields.get("variance_type").is_some_and(|value| value.is_null()) {
        return Ok(Variance::Small);
    }
    // The logarithm of the small one is undone; that of the large one is taken for the variance itself, and the root of
    // a negative number makes every sample of diffusers NaN. So does the root of a "learned" one, which is the network's output.
    let kinds = [
        ("fixed_small", Variance::Small),
        ("fixed_small_log", Variance::Small),
        ("fixed_large", Variance::Large),
        ("learned_range", Variance::Learned),
    ];
    Ok(config.fields.choice("variance_type", &kinds)?.unwrap_or(Variance::Small))
}

/// Equations 6, 7 and 15, from ᾱ = `alpha` to ᾱ = `next`.
fn step(config: &SchedulerConfig, variance: Variance, alpha: f64, next: f64) -> Step {
    let level = Level::new(alpha.sqrt(), (1.0 - alpha).sqrt());
    let (x0_x, x0_m) = config.clean(level.signal, level.noise);
    let beta = 1.0 - alpha / next;
    let posterior = (1.0 - next) / (1.0 - alpha) * beta;
    let posterior = posterior.max(1e-20);
    let noise = match variance {
        Variance::Small => posterior,
        Variance::Large | Variance::Learned => beta,
    };
    // Half of the logarithm's range is that of the standard deviation, and half of the outputs from -1 to 1 lies below 0.
    let orders = matches!(variance, Variance::Learned).then(|| 0.25 * libm::log2(beta / posterior).max(0.0));
    config.bounded(Step {
        level,
        x0_x,
        x0_m,
        next_x0: next.sqrt() * beta / (1.0 - alpha),
        next_x: (alpha / next).sqrt() * (1.0 - next) / (1.0 - alpha),
        noise: noise.sqrt(),
        variance: orders,
        ..Step::default()
    })
}
