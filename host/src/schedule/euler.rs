//! Euler's method in the noise level (Karras et al., 2022, arXiv:2206.00364, algorithm 2 without churn and correction), as
//! diffusers' `EulerDiscreteScheduler`, and its ancestral form with noise, as `EulerAncestralDiscreteScheduler`.

use super::sigma_space::Grid;
use super::{PredictionType, ScheduleError, SchedulerConfig, Step};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deterministic,
    Ancestral,
}

pub(super) fn steps(config: &SchedulerConfig, kind: Kind, grid: &Grid) -> Result<Vec<Step>, ScheduleError> {
    if kind == Kind::Ancestral && config.prediction_type == PredictionType::Sample {
        let expected =
            "diffusers' EulerAncestralDiscreteScheduler has epsilon and v_prediction; choose --scheduler euler";
        return Err(ScheduleError::field("prediction_type", "sample", expected));
    }
    let advice = "its noise level is 0, or the next one is higher; take fewer steps";
    let step = |(i, &timestep): (usize, &f64)| {
        let (from, to) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let (down, up) = match kind {
            Kind::Deterministic => (to, 0.0),
            Kind::Ancestral => {
                // The noise that is added again, so that the sum has the level `to`.
                let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
                ((to * to - up * up).sqrt(), up)
            }
        };
        let step = Step { noise: up / grid.scale(i + 1), ..step(config, grid, i, down) };
        if step.is_finite() {
            Ok(Step { timestep, ..step })
        } else {
            Err(ScheduleError::NotFinite { timestep, advice })
        }
    };
    grid.timesteps.iter().enumerate().map(step).collect()
}

/// Along the line through `x` and the clean sample from noise level `i` to `to`, then to the scale of the level after.
pub(super) fn step(config: &SchedulerConfig, grid: &Grid, i: usize, to: f64) -> Step {
    let from = grid.sigmas[i];
    let (scale, next_scale) = (grid.scale(i), grid.scale(i + 1));
    let level = grid.level(i);
    let (x0_x, x0_m) = config.clean(level.signal, level.noise);
    let step = Step { level, x0_x, x0_m, ..Step::default() };
    if config.prediction_type == PredictionType::Epsilon {
        // The slope is the network's output; the clean sample would be a large difference at high noise.
        return Step { next_x: scale / next_scale, next_m: (to - from) / next_scale, ..step };
    }
    let kept = to / from;
    Step { next_x: kept * scale / next_scale, next_x0: (1.0 - kept) / next_scale, ..step }
}
