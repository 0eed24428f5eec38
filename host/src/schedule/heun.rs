//! Heun's method in the noise level (Karras et al., 2022, arXiv:2206.00364, algorithm 1), as diffusers'
//! `HeunDiscreteScheduler`. Each step but the last takes two network calls, so a list of `n` has 2n − 1 [`Step`]s.

use super::sigma_space::Grid;
use super::{PredictionType, ScheduleError, SchedulerConfig, Step};

pub(super) fn steps(config: &SchedulerConfig, grid: &Grid) -> Result<Vec<Step>, ScheduleError> {
    let mut steps = vec![];
    for (i, &timestep) in grid.timesteps.iter().enumerate() {
        steps.push(Step { timestep, ..predict(config, grid, i) });
        if let Some(&timestep) = grid.timesteps.get(i + 1) {
            steps.push(Step { timestep, ..correct(config, grid, i + 1) });
        }
    }
    match steps.iter().find(|step| !step.is_finite()) {
        Some(step) => {
            let advice = "its noise level is 0; take fewer steps";
            Err(ScheduleError::NotFinite { timestep: step.timestep, advice })
        }
        None => Ok(steps),
    }
}

/// What the steps of one configuration keep as the "clean" sample: the network's output where that is the slope, since the
/// clean sample would be a large difference at high noise.
fn keeps_slope(config: &SchedulerConfig) -> bool {
    config.prediction_type == PredictionType::Epsilon && config.clip.is_none()
}

/// Whatever is kept, at noise level `i`.
fn kept(config: &SchedulerConfig, grid: &Grid, i: usize) -> Step {
    let level = grid.level(i);
    let step = Step { level, clip: config.clip, ..Step::default() };
    if keeps_slope(config) {
        return Step { x0_m: 1.0, kept: Some(level.noise_by_clean()), ..step };
    }
    let (x0_x, x0_m) = config.clean(level.signal, level.noise);
    Step { x0_x, x0_m, ..step }
}

/// Euler's step from level `i` to the next: `x + d·(σ' − σ)` with `d = (x − x0)/σ`.
fn predict(config: &SchedulerConfig, grid: &Grid, i: usize) -> Step {
    let (from, to) = (grid.sigmas[i], grid.sigmas[i + 1]);
    let (scale, next_scale) = (grid.scale(i), grid.scale(i + 1));
    let (next_x, next_x0) = if keeps_slope(config) { (1.0, to - from) } else { (to / from, 1.0 - to / from) };
    Step { next_x: next_x * scale / next_scale, next_x0: next_x0 / next_scale, ..kept(config, grid, i) }
}

/// At the end `x'` of that step, now level `i`, the mean of both slopes takes its place: `x' + (d' − d)·(σ' − σ)/2`. As the
/// step was straight, `d` is `(x' − x0)/σ'` as well, and `d' − d` is `(x0 − x0')/σ'`.
fn correct(config: &SchedulerConfig, grid: &Grid, i: usize) -> Step {
    let half = (grid.sigmas[i] - grid.sigmas[i - 1]) / 2.0;
    let now = if keeps_slope(config) { half } else { -half / grid.sigmas[i] };
    let scale = grid.scale(i);
    Step { next_x: 1.0, next_x0: now / scale, next_history: [-now / scale, 0.0], ..kept(config, grid, i) }
}
