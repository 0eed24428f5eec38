//! Noise levels σ = √((1−ᾱ)/ᾱ), in which some solvers choose their steps.

use super::{ScheduleError, SchedulerConfig};

/// How noise levels are chosen that are not those of evenly spaced timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Levels {
    /// Evenly in σ^(1/7) (Karras et al., 2022, arXiv:2206.00364, equation 5).
    Karras,
    /// Evenly in log σ, as `use_lu_lambdas` does.
    Lu,
    /// Evenly in log σ, timesteps rounded towards zero, as `use_exponential_sigmas` does.
    Exponential,
}

impl Levels {
    const FIELDS: [(&str, Self); 3] = [
        ("use_karras_sigmas", Self::Karras),
        ("use_lu_lambdas", Self::Lu),
        ("use_exponential_sigmas", Self::Exponential),
    ];

    /// What the configuration asks for; `None`: the noise levels of the timesteps.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Option<Self>, ScheduleError> {
        // diffusers adds these up, which None ends.
        for name in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
            if config.fields.get(name).is_some_and(|value| value.is_null()) {
                return Err(ScheduleError::field(name, "null", "true or false"));
            }
        }
        let mut read = None;
        for (name, levels) in Self::FIELDS {
            if config.fields.flag(name, false)? && read.replace(levels).is_some() {
                return Err(ScheduleError::field(name, true, "choose one way to set noise levels"));
            }
        }
        Ok(read)
    }
}

/// Refuses noise levels that are not those of the timesteps, for a solver or a list that knows no others.
pub(super) fn check_none(config: &SchedulerConfig, what: &str) -> Result<(), ScheduleError> {
    for (name, _) in Levels::FIELDS {
        if config.fields.flag(name, false)? {
            let expected = format!("{what} takes the noise levels of the timesteps; use false");
            return Err(ScheduleError::field(name, true, expected));
        }
    }
    Ok(())
}

/// σ of every training step, in `f32` as diffusers has it. Where there is no signal, it takes ᾱ = 2⁻²⁴.
pub(super) fn training(config: &SchedulerConfig) -> Vec<f32> {
    let mut alphas = config.alphas_cumprod();
    if let Some(last) = alphas.last_mut().filter(|_| config.rescale_betas_zero_snr) {
        *last = (-24f32).exp2();
    }
    alphas.into_iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// `n` noise levels from the highest of training to the lowest, and the timesteps that are nearest to them.
///
/// Timesteps may repeat, but for the first: diffusers would start at its second place.
pub(super) fn spread(
    config: &SchedulerConfig,
    levels: Levels,
    sigmas: &[f32],
    n: usize,
) -> Result<(Vec<i64>, Vec<f64>), ScheduleError> {
    let train = config.num_train_timesteps;
    if n == 0 || n > train {
        return Err(ScheduleError::Timesteps { what: format!("{n} steps; ask for 1 to {train}") });
    }
    let (low, high) = (sigmas[0], sigmas[train - 1]);
    let logs: Vec<f32> = sigmas.iter().map(|&sigma| libm::log(f64::from(sigma)) as f32).collect();
    let between = |from: f64, to: f64, i: usize| from + i as f64 / (n.max(2) - 1) as f64 * (to - from);
    let (low, high) = (f64::from(low), f64::from(high));
    let found: Vec<f64> = (0..n)
        .map(|i| match levels {
            Levels::Karras => between(high.powf(1.0 / 7.0), low.powf(1.0 / 7.0), i).powi(7),
            Levels::Lu => libm::exp(between(f64::from(logs[logs.len() - 1]), f64::from(logs[0]), i)),
            Levels::Exponential => libm::exp(between(libm::log(high), libm::log(low), i)),
        })
        .collect();
    let is_cosine = config.fields.get("beta_schedule").is_some_and(|value| value == "squaredcos_cap_v2");
    let rounds = !is_cosine && levels != Levels::Exponential;
    let timesteps = found.iter().map(|&sigma| timestep_of(sigma, &logs));
    let timesteps = timesteps.map(|t| if rounds { t.round_ties_even() as i64 } else { t as i64 });
    let timesteps: Vec<i64> = timesteps.collect();
    if timesteps.get(1) == timesteps.first() {
        let what = format!("{n} steps start at timestep {} twice; take fewer", timesteps[0]);
        return Err(ScheduleError::Timesteps { what });
    }
    Ok((timesteps, found))
}

/// The timestep of a noise level, interpolated in log σ.
fn timestep_of(sigma: f64, logs: &[f32]) -> f64 {
    if logs.len() < 2 {
        return 0.0;
    }
    let log = libm::log(sigma.max(1e-10));
    let below = logs.iter().rposition(|&l| log >= f64::from(l)).unwrap_or(0).min(logs.len() - 2);
    let (low, high) = (logs[below], logs[below + 1]);
    let weight = ((f64::from(low) - log) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * below as f64 + weight * (below + 1) as f64
}
