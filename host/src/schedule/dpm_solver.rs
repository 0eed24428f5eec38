//! DPM-Solver++, multistep (Lu et al., 2022, arXiv:2211.01095), orders 1 to 3, without and with noise.

use super::sigmas::{self, Levels};
use super::{Level, ScheduleError, SchedulerConfig, Step};

/// What the second-order step does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Midpoint,
    Heun,
}

/// The fields that are its own, with the defaults of `DPMSolverMultistepScheduler`.
struct Fields {
    order: usize,
    kind: Kind,
    /// Whether it solves the stochastic equation.
    is_noisy: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    /// Whether the last step ends at σ = 0 rather than at σ of timestep 0.
    ends_at_zero: bool,
    lambda_min_clipped: f64,
}

impl Fields {
    fn read(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        let fields = &config.fields;
        // The names that other solvers give to theirs are taken over as diffusers does.
        let algorithms = [("dpmsolver++", false), ("sde-dpmsolver++", true), ("deis", false)];
        let kinds = [
            ("midpoint", Kind::Midpoint),
            ("heun", Kind::Heun),
            ("logrho", Kind::Midpoint),
            ("bh1", Kind::Midpoint),
            ("bh2", Kind::Midpoint),
        ];
        if fields.has("variance_type") {
            fields.choice("variance_type", &VARIANCES)?;
        }
        Ok(Self {
            order: fields.count("solver_order", 2, 1..=3)?,
            kind: fields.choice("solver_type", &kinds)?.unwrap_or(Kind::Midpoint),
            is_noisy: fields.choice("algorithm_type", &algorithms)?.unwrap_or(false),
            lower_order_final: fields.flag("lower_order_final", true)?,
            euler_at_final: fields.flag("euler_at_final", false)?,
            ends_at_zero: fields.choice("final_sigmas_type", &[("zero", true), ("sigma_min", false)])?.unwrap_or(true),
            lambda_min_clipped: fields.number("lambda_min_clipped", f64::NEG_INFINITY)?,
        })
    }

    /// Order of the step `i` of `n`.
    fn order_of(&self, i: usize, n: usize) -> usize {
        let lowers = self.lower_order_final && n < 15;
        let most = match n - 1 - i {
            0 if self.euler_at_final || lowers || self.ends_at_zero => 1,
            1 if lowers => 2,
            _ => 3,
        };
        self.order.min(i + 1).min(most)
    }
}

/// Kinds of variance: the solver reads none, and of what a network learned it takes the prediction alone, as diffusers does.
const VARIANCES: [(&str, ()); 6] = [
    ("fixed_small", ()),
    ("fixed_small_log", ()),
    ("fixed_large", ()),
    ("fixed_large_log", ()),
    ("learned", ()),
    ("learned_range", ()),
];

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    let fields = Fields::read(config)?;
    let training = sigmas::training(config);
    let (timesteps, sigmas) = match Levels::read(config)? {
        Some(levels) => {
            let rounds = config.fields.get("beta_schedule").is_none_or(|value| value != "squaredcos_cap_v2");
            sigmas::spread(levels, &training, sigmas::extremes(&training), n, rounds)?
        }
        None => {
            let timesteps = timesteps(config, &fields, &training, n)?;
            let sigmas = sigmas::at(&timesteps, &training);
            (timesteps, sigmas)
        }
    };
    build(config, &fields, &timesteps, &sigmas, &training)
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    sigmas::check_evenly(config)?;
    let training = sigmas::training(config);
    build(config, &Fields::read(config)?, timesteps, &sigmas::at(timesteps, &training), &training)
}

fn timesteps(config: &SchedulerConfig, fields: &Fields, training: &[f32], n: usize) -> Result<Vec<i64>, ScheduleError> {
    // λ = log(√ᾱ/σ) falls with time; steps below the bound are cut off.
    let is_kept = |sigma: &&f32| f64::from(-libm::logf(**sigma)) >= fields.lambda_min_clipped;
    let last = training.iter().take_while(is_kept).count();
    if last == 0 {
        let expected = "below the logarithm of the largest signal-to-noise ratio";
        return Err(ScheduleError::field("lambda_min_clipped", fields.lambda_min_clipped, expected));
    }
    config.truncated_timesteps(n, last)
}

fn build(
    config: &SchedulerConfig,
    fields: &Fields,
    timesteps: &[i64],
    sigmas: &[f64],
    training: &[f32],
) -> Result<Vec<Step>, ScheduleError> {
    let end = if fields.ends_at_zero { 0.0 } else { f64::from(training[0]) };
    let sigmas: Vec<f64> = sigmas.iter().map(|&sigma| f64::from(sigma as f32)).chain([end]).collect();
    let mut steps = vec![];
    for (i, &timestep) in timesteps.iter().enumerate() {
        let timestep = timestep as f64;
        let order = fields.order_of(i, timesteps.len());
        let sigma = sigmas[i];
        let level = Level::new(signal(sigma), sigma * signal(sigma));
        let (x0_x, x0_m) = config.clean(level.signal, level.noise);
        let map = update(fields, order, &sigmas[i + 1 - order..i + 2]);
        let step = config.thresholded(Step { timestep, level, x0_x, x0_m, ..map });
        if !step.is_finite() {
            let advice = "two steps have the same noise level; take fewer steps, or final_sigmas_type zero";
            return Err(ScheduleError::NotFinite { timestep, advice });
        }
        steps.push(step);
    }
    Ok(steps)
}

/// √ᾱ of a noise level.
fn signal(sigma: f64) -> f64 {
    1.0 / (sigma * sigma + 1.0).sqrt()
}

/// λ = log(√ᾱ/√(1−ᾱ)).
fn lambda(sigma: f64) -> f64 {
    -libm::log(sigma)
}

/// The step from the last but one noise level to the last; those before it are of the steps whose clean samples the
/// step looks back on.
fn update(fields: &Fields, order: usize, sigmas: &[f64]) -> Step {
    let (from, to) = (sigmas[order - 1], sigmas[order]);
    let alpha = signal(to);
    let h = lambda(to) - lambda(from);
    // The integrals of 1, of s and of s²/2 over the step, weighted as the equation says; 2h where it is stochastic.
    let span = if fields.is_noisy { 2.0 * h } else { h };
    let decay = libm::expm1(-span);
    let value = -alpha * decay;
    let slope = if order == 2 && fields.kind == Kind::Midpoint { 0.5 * value } else { alpha * (decay / span + 1.0) };
    // The half has this sign in diffusers where the equation is stochastic.
    let half = if fields.is_noisy { -0.5 } else { 0.5 };
    let curve = -alpha * ((decay + span) / (span * span) - half);
    let ratio = to * alpha / (from * signal(from));
    let mut step = Step { next_x: ratio, next_x0: value, ..Step::default() };
    if fields.is_noisy {
        step.next_x *= libm::exp(-h);
        step.noise = to * alpha * (-decay).sqrt();
    }
    if order == 1 {
        return step;
    }
    // The clean sample's first and second difference quotients.
    let r0 = (lambda(from) - lambda(sigmas[order - 2])) / h;
    if order == 2 {
        step.next_x0 += slope / r0;
        step.next_history[0] = -slope / r0;
        return step;
    }
    let r1 = (lambda(sigmas[1]) - lambda(sigmas[0])) / h;
    let near = slope * (1.0 + r0 / (r0 + r1)) + curve / (r0 + r1);
    let far = slope - near;
    step.next_x0 += near / r0;
    step.next_history = [far / r1 - near / r0, -far / r1];
    step
}
