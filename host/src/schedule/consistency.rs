//! Multistep sampling of consistency models (Song et al., 2023, arXiv:2303.01469, algorithm 1), as diffusers'
//! `CMStochasticIterativeScheduler`.

use super::sigma_space::single;
use super::sigmas::karras;
use super::timesteps::leading;
use super::{Level, ScheduleError, SchedulerConfig, Step};

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    let train = config.num_train_timesteps;
    if n == 0 || n > train {
        return Err(ScheduleError::Timesteps { what: format!("{n} steps; ask for 1 to {train}") });
    }
    steps_at(config, &leading(n, train / n, 0))
}

/// Entries of the list are numbers of the training's noise levels, the highest level the last.
pub(super) fn steps_at(config: &SchedulerConfig, entries: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    let fields = &config.fields;
    let (low, high) = (config.positive("sigma_min", 0.002)?, config.positive("sigma_max", 80.0)?);
    let (data, rho) = (config.positive("sigma_data", 0.5)?, config.positive("rho", 7.0)?);
    let (amount, clips) = (fields.number("s_noise", 1.0)?, fields.flag("clip_denoised", true)?);
    let last = config.num_train_timesteps as f64 - 1.0;
    // diffusers reads its falling list backwards, as places between the highest and the lowest level.
    let exact: Vec<f64> = entries.iter().rev().map(|&entry| karras(high, low, rho, entry as f64 / last)).collect();
    let sigmas: Vec<f64> = exact.iter().copied().chain([low]).map(single).collect();
    let n = exact.len();
    let scale = |i: usize| if i < n { (sigmas[i].powi(2) + data * data).sqrt() } else { 1.0 };
    let step = |i: usize| {
        let (sigma, scale_now) = (sigmas[i], scale(i));
        let skip = data * data / ((sigma - low).powi(2) + data * data);
        let noise = if n > 1 { (sigmas[i + 1].clamp(low, high).powi(2) - low * low).sqrt() * amount } else { 0.0 };
        let step = Step {
            timestep: 250.0 * libm::log(exact[i]),
            level: Level {
                signal: 1.0 / scale_now,
                noise: sigma / scale_now,
                start: if i == 0 { high / scale_now } else { 1.0 },
            },
            x0_x: skip * scale_now,
            x0_m: (sigma - low) * data / scale_now,
            clip: clips.then_some(1.0),
            next_x0: 1.0 / scale(i + 1),
            noise: noise / scale(i + 1),
            ..Step::default()
        };
        let advice = "take sigma_min below sigma_max, and two training timesteps or more";
        if step.is_finite() { Ok(step) } else { Err(ScheduleError::NotFinite { timestep: step.timestep, advice }) }
    };
    if low > high {
        return Err(ScheduleError::field("sigma_min", low, "at most sigma_max"));
    }
    (0..n).map(step).collect()
}
