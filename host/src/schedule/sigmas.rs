//! Noise levels σ = √((1−ᾱ)/ᾱ), in which some solvers choose their steps.

use super::{ScheduleError, SchedulerConfig, beta};

/// How noise levels are chosen that are not those of evenly spaced timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Levels {
    /// Evenly in σ^(1/7) (Karras et al., 2022, arXiv:2206.00364, equation 5).
    Karras,
    /// Evenly in log σ, as `use_lu_lambdas` does.
    Lu,
    /// Evenly in log σ, timesteps rounded towards zero, as `use_exponential_sigmas` does.
    Exponential,
    /// At quantiles of a beta distribution (Lee et al., 2024, arXiv:2407.12173), timesteps rounded towards zero.
    Beta,
}

impl Levels {
    const FIELDS: [(&str, Self); 4] = [
        ("use_beta_sigmas", Self::Beta),
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

    /// `n` noise levels from `high` to `low`.
    pub(super) fn between(self, high: f64, low: f64, n: usize) -> Vec<f64> {
        let ramp = (0..n).map(|i| i as f64 / (n.max(2) - 1) as f64);
        let line = |from: f64, to: f64, ramp: f64| from + ramp * (to - from);
        ramp.map(|ramp| match self {
            Self::Karras => karras(high, low, 7.0, ramp),
            Self::Lu | Self::Exponential => libm::exp(line(libm::log(high), libm::log(low), ramp)),
            Self::Beta => line(low, high, beta::quantile(1.0 - ramp)),
        })
        .collect()
    }
}

/// The noise level at `ramp` from 0 to 1 (Karras et al., 2022, arXiv:2206.00364, equation 5).
pub(super) fn karras(high: f64, low: f64, rho: f64, ramp: f64) -> f64 {
    let [high, low] = [high, low].map(|sigma| libm::pow(sigma, 1.0 / rho));
    libm::pow(high + ramp * (low - high), rho)
}

/// The largest and the smallest noise level: those that the configuration names, or those that are given.
pub(super) fn ends(config: &SchedulerConfig, [high, low]: [f64; 2]) -> Result<[f64; 2], ScheduleError> {
    let named = |name, otherwise| {
        if !config.fields.has(name) {
            return Ok(otherwise);
        }
        let sigma = config.fields.number(name, otherwise)?;
        let is_level = sigma > 0.0 && sigma.is_finite();
        if is_level { Ok(sigma) } else { Err(ScheduleError::field(name, sigma, "a noise level above 0")) }
    };
    Ok([named("sigma_max", high)?, named("sigma_min", low)?])
}

/// σ of every training step, in `f32` as diffusers has it. Where there is no signal, it takes ᾱ = 2⁻²⁴.
pub(super) fn training(config: &SchedulerConfig) -> Vec<f32> {
    let mut alphas = config.alphas_cumprod();
    if let Some(last) = alphas.last_mut().filter(|_| config.rescale_betas_zero_snr) {
        *last = (-24f32).exp2();
    }
    alphas.into_iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// `n` noise levels between `ends`, and the timesteps that are nearest to them; `rounds` says whether those of Karras and Lu
/// are rounded, not cut off.
///
/// Timesteps may repeat, but for the first: diffusers would start at its second place.
pub(super) fn spread(
    levels: Levels,
    training: &[f32],
    ends: [f64; 2],
    n: usize,
    rounds: bool,
) -> Result<(Vec<i64>, Vec<f64>), ScheduleError> {
    let train = training.len();
    if n == 0 || n > train {
        return Err(ScheduleError::Timesteps { what: format!("{n} steps; ask for 1 to {train}") });
    }
    let logs = logs(training);
    // Lu's are evenly between logarithms in single precision.
    let found = match levels {
        Levels::Lu => {
            let line = |i: usize| i as f64 / (n.max(2) - 1) as f64;
            let [high, low] = [logs[train - 1], logs[0]].map(f64::from);
            (0..n).map(|i| libm::exp(high + line(i) * (low - high))).collect()
        }
        _ => levels.between(ends[0], ends[1], n),
    };
    let rounds = rounds && matches!(levels, Levels::Karras | Levels::Lu);
    let timesteps = found.iter().map(|&sigma| timestep_of(sigma, &logs));
    let timesteps: Vec<i64> = timesteps.map(|t| if rounds { t.round_ties_even() as i64 } else { t as i64 }).collect();
    check_start(&timesteps)?;
    Ok((timesteps, found))
}

/// Refuses a list that visits its first timestep twice.
pub(super) fn check_start<T: PartialEq + std::fmt::Display>(timesteps: &[T]) -> Result<(), ScheduleError> {
    match timesteps {
        [first, second, ..] if first == second => {
            let what = format!("{} steps start at timestep {first} twice; take fewer", timesteps.len());
            Err(ScheduleError::Timesteps { what })
        }
        _ => Ok(()),
    }
}

/// log σ of every training step, in `f32`.
pub(super) fn logs(training: &[f32]) -> Vec<f32> {
    training.iter().map(|&sigma| libm::log(f64::from(sigma)) as f32).collect()
}

/// The timestep of a noise level, interpolated in log σ.
pub(super) fn timestep_of(sigma: f64, logs: &[f32]) -> f64 {
    if logs.len() < 2 {
        return 0.0;
    }
    let log = libm::log(sigma.max(1e-10));
    let below = logs.iter().rposition(|&l| log >= f64::from(l)).unwrap_or(0).min(logs.len() - 2);
    let (low, high) = (logs[below], logs[below + 1]);
    let weight = ((f64::from(low) - log) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * below as f64 + weight * (below + 1) as f64
}

/// Noise levels of timesteps of training.
pub(super) fn at(timesteps: &[i64], training: &[f32]) -> Vec<f64> {
    timesteps.iter().map(|&t| f64::from(training[t as usize])).collect()
}

/// The highest and the lowest noise level of training.
pub(super) fn extremes(training: &[f32]) -> [f64; 2] {
    [training.last(), training.first()].map(|sigma| sigma.copied().map_or(0.0, f64::from))
}

/// Refuses fields that choose noise levels where a list of timesteps is given.
pub(super) fn check_evenly(config: &SchedulerConfig) -> Result<(), ScheduleError> {
    for (name, _) in Levels::FIELDS {
        if config.fields.flag(name, false)? {
            let expected = "a list of timesteps has the noise levels of these; use false";
            return Err(ScheduleError::field(name, true, expected));
        }
    }
    Ok(())
}
