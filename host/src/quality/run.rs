//! Whether two files draw in the same way, whatever their precision.

use std::path::Path;

use waft::fixed::SAMPLE_BITS;
use waft::format::{FixedStep, FloatStep, Precision, Schedule, Threshold, Variance};
use waft::{Model, Request};

use super::QualityError;
use crate::sample::timesteps;

/// What the steps of a list make of the network's predictions, in real numbers: equal, but for rounding, in files of two
/// precisions that draw in the same way.
struct Run {
    /// Timesteps, rounded.
    timesteps: Vec<i32>,
    /// Of each step the factors of its clean sample, those of the next sample, and its clip, or infinity.
    factors: Vec<[Vec<f64>; 3]>,
    /// Factor of the first noise.
    start: i32,
    /// Bounds of dynamic thresholding.
    threshold: Option<Threshold>,
    /// What a learned variance makes of each step's noise.
    variances: Vec<Variance>,
}

impl Run {
    fn new(model: &Model<'_>, list: &Schedule) -> Self {
        let reals = |mantissas: &[i32], bits: u32| -> Vec<f64> {
            mantissas.iter().map(|&mantissa| f64::from(mantissa) / 2f64.powi(bits as i32)).collect()
        };
        let fixed = |step: FixedStep| {
            let next = [&step.next[..], &step.history].concat();
            let clip = if step.clip == i32::MAX { vec![f64::INFINITY] } else { reals(&[step.clip], SAMPLE_BITS) };
            [reals(&step.x0, step.x0_shift), reals(&next, step.next_shift), clip]
        };
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
        let float =
            |step: FloatStep| [wide(&step.x0), wide(&[&step.next[..], &step.history].concat()), wide(&[step.clip])];
        let factors = match model.precision() {
            Precision::I8 => model.fixed_steps(list).map(fixed).collect(),
            Precision::F16 | Precision::F32 => model.float_steps(list).map(float).collect(),
        };
        let threshold = (list.threshold != 0).then(|| Threshold::read(model.bytes(), list.threshold as usize));
        let variances = if model.header().variance == 0 { 0 } else { list.steps as usize };
        let variance = |step| Variance::read(model.bytes(), list.variances() as usize + step * size_of::<Variance>());
        let variances = (0..variances).map(variance).collect();
        Self { timesteps: timesteps(model, list), factors, start: list.start, threshold, variances }
    }

    /// Whether both make the same of the same predictions.
    fn is_like(&self, other: &Self) -> bool {
        /// Of the largest factor of a group; its mantissas have 29 bits, single precision has 24.
        const ROUNDED: f64 = 1e-5;
        let near = |(one, other): (&Vec<f64>, &Vec<f64>)| {
            let largest = one.iter().fold(0f64, |largest, factor| largest.max(factor.abs()));
            one.iter().zip(other).all(|(one, other)| one == other || (one - other).abs() <= ROUNDED * largest)
        };
        let [one, other_factors] = [self, other].map(|run| run.factors.iter().flatten());
        // These are written alike in every precision.
        let [alike, other_alike] = [self, other].map(|run| (run.start, &run.threshold, &run.variances));
        alike == other_alike && self.factors.len() == other.factors.len() && one.zip(other_factors).all(near)
    }
}

/// Refuses a file whose pictures are of another run than those of its checkpoint: they say nothing about precision.
pub(super) fn check(path: &Path, file: &Model<'_>, reference: &Model<'_>, steps: u32) -> Result<(), QualityError> {
    let run = |model| Request::new().steps(steps).schedule(model).ok().map(|list| Run::new(model, &list));
    // What it lacks is told where it is drawn.
    let (Some(found), Some(expected)) = (run(file), run(reference)) else { return Ok(()) };
    let path = path.display();
    if found.timesteps != expected.timesteps {
        return Err(QualityError::Option(format!(
            "{path} draws at timesteps {:?}, its checkpoint at {:?}: pictures of two runs say nothing about precision; name the \
             file's timesteps, or export it again",
            found.timesteps, expected.timesteps
        )));
    }
    if !found.is_like(&expected) {
        return Err(QualityError::Option(format!(
            "{path} draws with another sampler than its checkpoint: pictures of two runs say nothing about precision; name the file's \
             scheduler, or export it again"
        )));
    }
    Ok(())
}
