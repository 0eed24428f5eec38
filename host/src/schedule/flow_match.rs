//! Euler's method for flow matching (Lipman et al., 2023, arXiv:2210.02747; Esser et al., 2024, arXiv:2403.03206), as
//! diffusers' `FlowMatchEulerDiscreteScheduler`: the sample is `(1 − σ)·x0 + σ·ε`, the network predicts `ε − x0`.

use super::sigma_space::single;
use super::sigmas::{self, Levels};
use super::{Level, ScheduleError, SchedulerConfig, Step};

/// The fields that are its own.
struct Fields {
    train: f64,
    shift: f64,
    shift_terminal: Option<f64>,
    is_inverted: bool,
    is_stochastic: bool,
}

impl Fields {
    fn read(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        let fields = &config.fields;
        if fields.flag("use_dynamic_shifting", false)? {
            let expected = "it needs a shift for the size of each picture; set shift instead";
            return Err(ScheduleError::field("use_dynamic_shifting", true, expected));
        }
        let shift = fields.number("shift", 1.0)?;
        if !(shift > 0.0 && shift.is_finite()) {
            return Err(ScheduleError::field("shift", shift, "a number above 0"));
        }
        let has_terminal = fields.has("shift_terminal") && fields.number("shift_terminal", 0.0)? != 0.0;
        let shift_terminal = if has_terminal { Some(fields.number("shift_terminal", 0.0)?) } else { None };
        Ok(Self {
            train: config.num_train_timesteps as f64,
            shift,
            shift_terminal,
            is_inverted: fields.flag("invert_sigmas", false)?,
            is_stochastic: fields.flag("stochastic_sampling", false)?,
        })
    }

    /// Time spent at high noise is stretched (Esser et al., 2024, equation 23).
    fn shifted(&self, sigma: f64) -> f64 {
        self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma)
    }

    /// The highest and the lowest noise level of training, in single precision; shifted once, and again in a list.
    fn extremes(&self) -> [f64; 2] {
        let shift = self.shift as f32;
        [1.0, (1.0 / self.train) as f32].map(|sigma: f32| f64::from(shift * sigma / (1.0 + (shift - 1.0) * sigma)))
    }
}

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    if n == 0 || n > config.num_train_timesteps {
        let what = format!("{n} steps; ask for 1 to {}", config.num_train_timesteps);
        return Err(ScheduleError::Timesteps { what });
    }
    let fields = Fields::read(config)?;
    let [high, low] = fields.extremes().map(|sigma| sigma * fields.train);
    let step = (low - high) / (n.max(2) - 1) as f64;
    build(config, &fields, (0..n).map(|i| (high + i as f64 * step) / fields.train).collect(), None)
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    let fields = Fields::read(config)?;
    let given: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
    build(config, &fields, given.iter().map(|&t| single(t) / fields.train).collect(), Some(given))
}

/// Given noise levels, before they are shifted; the last step ends without noise.
pub(super) fn steps_through(config: &SchedulerConfig, sigmas: &[f64]) -> Result<Vec<Step>, ScheduleError> {
    build(config, &Fields::read(config)?, sigmas.to_vec(), None)
}

fn build(
    config: &SchedulerConfig,
    fields: &Fields,
    sigmas: Vec<f64>,
    given: Option<Vec<f64>>,
) -> Result<Vec<Step>, ScheduleError> {
    let mut sigmas: Vec<f64> = sigmas.into_iter().map(|sigma| fields.shifted(sigma)).collect();
    let last = sigmas[sigmas.len() - 1];
    if let Some(terminal) = fields.shift_terminal {
        let factor = (1.0 - last) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
    }
    if let Some(levels) = Levels::read(config)? {
        sigmas = levels.between(sigmas[0], sigmas[sigmas.len() - 1], sigmas.len());
    }
    sigmas.iter_mut().for_each(|sigma| *sigma = single(*sigma));
    let train = fields.train as f32;
    let told = |sigmas: &[f64]| sigmas.iter().map(|&sigma| f64::from(sigma as f32 * train)).collect::<Vec<_>>();
    let mut timesteps = given.unwrap_or_else(|| told(&sigmas));
    let mut end = 0.0;
    if fields.is_inverted {
        sigmas.iter_mut().for_each(|sigma| *sigma = f64::from(1.0 - *sigma as f32));
        timesteps = told(&sigmas);
        end = 1.0;
    }
    sigmas::check_start(&timesteps)?;
    let ends = sigmas.iter().skip(1).chain([&end]);
    let step = |((&timestep, &from), &to): ((&f64, &f64), &f64)| {
        let step = Step {
            timestep,
            level: Level::new(1.0 - from, from),
            x0_x: 1.0,
            x0_m: -from,
            ..if fields.is_stochastic {
                Step { next_x0: 1.0 - to, noise: to, ..Step::default() }
            } else {
                Step { next_x: 1.0, next_m: to - from, ..Step::default() }
            }
        };
        let advice = "set shift and shift_terminal so that noise levels are numbers";
        if step.is_finite() { Ok(step) } else { Err(ScheduleError::NotFinite { timestep, advice }) }
    };
    timesteps.iter().zip(&sigmas).zip(ends).map(step).collect()
}
