//! Euler's method with the preconditioning of EDM (Karras et al., 2022, arXiv:2206.00364, algorithm 2 without churn, and
//! table 1), as diffusers' `EDMEulerScheduler`.

use super::sigma_space::single;
use super::sigmas::karras;
use super::{Level, PredictionType, ScheduleError, SchedulerConfig, Step};

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    if n == 0 || n > config.num_train_timesteps {
        let what = format!("{n} steps; ask for 1 to {}", config.num_train_timesteps);
        return Err(ScheduleError::Timesteps { what });
    }
    let fields = &config.fields;
    let [low, high] = [("sigma_min", 0.002), ("sigma_max", 80.0)].map(|(name, default)| config.positive(name, default));
    let (low, high) = (low?, high?);
    let (data, rho) = (config.positive("sigma_data", 0.5)?, config.positive("rho", 7.0)?);
    let is_exponential = fields.choice("sigma_schedule", &[("karras", false), ("exponential", true)])?.unwrap_or(false);
    let ends_at_zero = fields.choice("final_sigmas_type", &[("zero", true), ("sigma_min", false)])?.unwrap_or(true);
    let sign = match config.prediction_type {
        PredictionType::Epsilon => 1.0,
        PredictionType::VPrediction => -1.0,
        PredictionType::Sample => {
            let expected = "EDM has epsilon and v_prediction";
            return Err(ScheduleError::field("prediction_type", "sample", expected));
        }
    };
    let sigma = |i: usize| {
        let ramp = i as f64 / (n.max(2) - 1) as f64;
        let (first, last) = (libm::log(high), libm::log(low));
        single(if is_exponential { libm::exp(first + ramp * (last - first)) } else { karras(high, low, rho, ramp) })
    };
    let mut sigmas: Vec<f64> = (0..n).map(sigma).collect();
    if is_exponential && n == 1 {
        // The only entry of diffusers' rising list, turned round.
        sigmas = vec![single(libm::exp(libm::log(low)))];
    }
    sigmas.push(if ends_at_zero { 0.0 } else { sigmas[n - 1] });
    // What the network's input is the sample divided by.
    let scale = |i: usize| if i < n { (sigmas[i].powi(2) + data * data).sqrt() } else { 1.0 };
    let step = |i: usize| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let scale_now = scale(i);
        let kept = to / from;
        let step = Step {
            timestep: single(0.25 * libm::log(from)),
            level: Level {
                signal: 1.0 / scale_now,
                noise: from / scale_now,
                start: if i == 0 { (high * high + 1.0).sqrt() / scale_now } else { 1.0 },
            },
            x0_x: data * data / scale_now,
            x0_m: sign * from * data / scale_now,
            next_x: kept * scale_now / scale(i + 1),
            next_x0: (1.0 - kept) / scale(i + 1),
            ..Step::default()
        };
        let advice = "take sigma_min, sigma_max and sigma_data of ordinary size";
        if step.is_finite() { Ok(step) } else { Err(ScheduleError::NotFinite { timestep: step.timestep, advice }) }
    };
    (0..n).map(step).collect()
}
