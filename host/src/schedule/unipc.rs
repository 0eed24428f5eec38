//! UniPC (Zhao et al., 2023, arXiv:2302.04867), as diffusers' `UniPCMultistepScheduler`.
//!
//! diffusers corrects the sample `x` of a step once the network has seen it, and predicts the next from the corrected one,
//! for which it keeps the corrected sample of the step before. Here nothing but the clean samples is kept: the predictor
//! went from that corrected sample to `x` by the same factor that the corrector goes by, so the corrected sample is `x`
//! plus a combination of clean samples.

use super::sigmas::{self, Levels};
use super::{Level, MAX_HISTORY, PredictionType, ScheduleError, SchedulerConfig, Step};

/// The fields that are its own, with the defaults of `UniPCMultistepScheduler`.
struct Fields {
    order: usize,
    /// Whether the function B(h) is h rather than e^h − 1.
    is_bh1: bool,
    predicts_clean: bool,
    lower_order_final: bool,
    ends_at_zero: bool,
    uncorrected: Vec<usize>,
}

impl Fields {
    fn read(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        let fields = &config.fields;
        // The names that other solvers give to theirs are taken over as diffusers does.
        let kinds = [("bh1", true), ("bh2", false), ("midpoint", false), ("heun", false), ("logrho", false)];
        if fields.has("solver_p") {
            let expected = "a second solver as the predictor is not supported; use null";
            return Err(ScheduleError::field("solver_p", "an object", expected));
        }
        let uncorrected = fields.numbers("disable_corrector")?.unwrap_or_default();
        Ok(Self {
            order: fields.count("solver_order", 2, 1..=3)?,
            is_bh1: fields.choice("solver_type", &kinds)?.unwrap_or(false),
            predicts_clean: fields.flag("predict_x0", true)?,
            lower_order_final: fields.flag("lower_order_final", true)?,
            ends_at_zero: fields.choice("final_sigmas_type", &[("zero", true), ("sigma_min", false)])?.unwrap_or(true),
            uncorrected: uncorrected.into_iter().map(|step| step as usize).collect(),
        })
    }

    /// Order of the step `i` of `n`.
    fn order_of(&self, i: usize, n: usize) -> usize {
        self.order.min(i + 1).min(if self.lower_order_final { n - i } else { usize::MAX })
    }
}

pub(super) fn steps(config: &SchedulerConfig, n: usize) -> Result<Vec<Step>, ScheduleError> {
    let fields = Fields::read(config)?;
    let training = sigmas::training(config);
    let (timesteps, mut sigmas, end) = match Levels::read(config)? {
        Some(levels) => {
            let ends = sigmas::ends(config, sigmas::extremes(&training))?;
            let (timesteps, sigmas) = sigmas::spread(levels, &training, ends, n, true)?;
            let end = sigmas[n - 1];
            (timesteps, sigmas, end)
        }
        None => {
            let timesteps = config.truncated_timesteps(n, training.len())?;
            let sigmas = sigmas::at(&timesteps, &training);
            (timesteps, sigmas, f64::from(training[0]))
        }
    };
    sigmas.push(if fields.ends_at_zero { 0.0 } else { end });
    build(config, &fields, &timesteps, &sigmas)
}

pub(super) fn steps_at(config: &SchedulerConfig, timesteps: &[i64]) -> Result<Vec<Step>, ScheduleError> {
    sigmas::check_evenly(config)?;
    let (fields, training) = (Fields::read(config)?, sigmas::training(config));
    let mut sigmas = sigmas::at(timesteps, &training);
    sigmas.push(if fields.ends_at_zero { 0.0 } else { f64::from(training[0]) });
    build(config, &fields, timesteps, &sigmas)
}

fn build(
    config: &SchedulerConfig,
    fields: &Fields,
    timesteps: &[i64],
    sigmas: &[f64],
) -> Result<Vec<Step>, ScheduleError> {
    let points: Vec<Point> = sigmas.iter().map(|&sigma| Point::new(f64::from(sigma as f32))).collect();
    let n = timesteps.len();
    let mut steps = vec![];
    for (i, &timestep) in timesteps.iter().enumerate() {
        let timestep = timestep as f64;
        let here = &points[i];
        let (x0_x, x0_m) = if fields.predicts_clean {
            config.clean(here.signal, here.noise)
        } else {
            match config.prediction_type {
                PredictionType::Epsilon => (0.0, 1.0),
                PredictionType::Sample => (1.0 / here.noise, -here.signal / here.noise),
                PredictionType::VPrediction => (here.noise, here.signal),
            }
        };
        let level = Level::new(here.signal, here.noise);
        let kept = (!fields.predicts_clean).then(|| level.noise_by_clean());
        let mut step = Step { timestep, level, x0_x, x0_m, kept, ..Step::default() };
        if fields.predicts_clean {
            step = config.thresholded(step);
        }
        // Factors of this step's clean sample and of earlier ones.
        let mut factors = [0.0; MAX_HISTORY + 2];
        let order = fields.order_of(i, n);
        let (kept, ahead) = predict(fields, &points, i, order);
        step.next_x = kept;
        add(&mut factors, 1.0, &ahead);
        if i > 0 && !fields.uncorrected.contains(&(i - 1)) {
            let order = fields.order_of(i - 1, n);
            let (_, behind) = predict(fields, &points, i - 1, order);
            add(&mut factors, kept, &correct(fields, &points, i, order));
            add(&mut factors[1..], -kept, &behind);
        }
        let [now, earlier @ ..] = factors;
        step.next_x0 = now;
        step.next_history.copy_from_slice(&earlier[..MAX_HISTORY]);
        if let Some(last) = earlier.iter().rposition(|&factor| factor != 0.0).filter(|&last| last >= MAX_HISTORY) {
            let advice = "use solver_order 2";
            return Err(ScheduleError::History { timestep, asked: last + 1, kept: MAX_HISTORY, advice });
        }
        if !step.is_finite() {
            let advice = "use solver_type bh2 and lower_order_final, or take fewer steps";
            return Err(ScheduleError::NotFinite { timestep, advice });
        }
        steps.push(step);
    }
    Ok(steps)
}

fn add(sum: &mut [f64], factor: f64, terms: &[f64]) {
    sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += factor * term);
}

/// √ᾱ, √(1−ᾱ) and the logarithm of their ratio at a noise level.
struct Point {
    signal: f64,
    noise: f64,
    lambda: f64,
}

impl Point {
    fn new(sigma: f64) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let noise = sigma * signal;
        Self { signal, noise, lambda: libm::log(signal) - libm::log(noise) }
    }
}

/// The interval from one noise level to the next, as both halves of a step see it.
struct Interval {
    /// Factor of the sample.
    kept: f64,
    /// Factor of the latest clean sample without differences.
    plain: f64,
    /// Factor of the differences.
    slope: f64,
    /// Distances of earlier levels, in units of the interval.
    distances: Vec<f64>,
    /// The right side of the order conditions.
    conditions: Vec<f64>,
}

impl Interval {
    /// From level `i` to the next; `order` − 1 levels before it count.
    fn new(fields: &Fields, points: &[Point], i: usize, order: usize) -> Self {
        let (from, to) = (&points[i], &points[i + 1]);
        let h = to.lambda - from.lambda;
        let hh = if fields.predicts_clean { -h } else { h };
        let phi = libm::expm1(hh);
        let b = if fields.is_bh1 { hh } else { phi };
        let (mut phi_k, mut factorial) = (phi / hh - 1.0, 1.0);
        let mut conditions = vec![];
        for k in 1..=order {
            conditions.push(phi_k * factorial / b);
            factorial *= (k + 1) as f64;
            phi_k = phi_k / hh - 1.0 / factorial;
        }
        let distances = (1..order).map(|k| (points[i - k].lambda - from.lambda) / h).collect();
        let (kept, weight) = if fields.predicts_clean {
            (to.noise / from.noise, to.signal)
        } else {
            (to.signal / from.signal, to.noise)
        };
        // With bh1 and an interval without end diffusers multiplies infinity by 0, and so has no sample.
        Self { kept, plain: -weight * phi - weight * b * 0.0, slope: -weight * b, distances, conditions }
    }

    /// Turns weights of difference quotients into factors of the clean samples that they are between, the latest first.
    fn factors(&self, weights: &[f64]) -> Vec<f64> {
        let mut factors = vec![self.plain];
        for (weight, distance) in weights.iter().zip(&self.distances) {
            let factor = self.slope * weight / distance;
            factors[0] -= factor;
            factors.push(factor);
        }
        factors
    }
}

/// The sample's factor, and those of the clean samples of step `i` and of earlier ones.
fn predict(fields: &Fields, points: &[Point], i: usize, order: usize) -> (f64, Vec<f64>) {
    let interval = Interval::new(fields, points, i, order);
    let weights = if order == 2 { vec![0.5] } else { solve(&interval.distances, &interval.conditions) };
    (interval.kept, interval.factors(&weights))
}

/// Factors of the clean samples of step `i` and of earlier ones in the corrected sample of step `i`.
fn correct(fields: &Fields, points: &[Point], i: usize, order: usize) -> Vec<f64> {
    let mut interval = Interval::new(fields, points, i - 1, order);
    let weights = if order == 1 {
        vec![0.5]
    } else {
        let ends: Vec<f64> = interval.distances.iter().copied().chain([1.0]).collect();
        solve(&ends, &interval.conditions)
    };
    let now = interval.slope * weights[order - 1];
    interval.plain -= now;
    [vec![now], interval.factors(&weights)].concat()
}

/// Weights `w` with `Σ wₖ·pₖ^j = bⱼ` for `j` from 0, by elimination.
fn solve(points: &[f64], right: &[f64]) -> Vec<f64> {
    let n = points.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|j| points.iter().map(|point| point.powi(j as i32)).chain([right[j]]).collect()).collect();
    for pivot in 0..n {
        let row = rows[pivot].clone();
        for other in (0..n).filter(|&other| other != pivot) {
            let factor = rows[other][pivot] / row[pivot];
            rows[other].iter_mut().zip(&row).for_each(|(value, row)| *value -= factor * row);
        }
    }
    rows.iter().enumerate().map(|(k, row)| row[n] / row[k]).collect()
}
