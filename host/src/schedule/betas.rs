//! How much noise each training timestep adds, in `f32` as PyTorch computes it.

use std::f64::consts::FRAC_PI_2;

use super::fields::Fields;
use super::{ScheduleError, SchedulerConfig};

/// How β grows over the training steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Betas {
    /// Linear in β (Ho et al., 2020, arXiv:2006.11239).
    Linear {
        /// First β.
        start: f64,
        /// Last β.
        end: f64,
    },
    /// Linear in √β (Rombach et al., 2022, arXiv:2112.10752).
    ScaledLinear {
        /// First β.
        start: f64,
        /// Last β.
        end: f64,
    },
    /// Cosine (Nichol and Dhariwal, 2021, arXiv:2102.09672, equation 17), β at most 0.999: `squaredcos_cap_v2`.
    Cosine,
    /// A sigmoid from −6 to 6, scaled (Xu et al., 2022, arXiv:2203.02923).
    Sigmoid {
        /// Where β comes from.
        start: f64,
        /// Where β goes to.
        end: f64,
    },
    /// The logarithm of the signal-to-noise ratio has a Laplace distribution (Hang et al., 2024, arXiv:2407.03297).
    Laplace,
    /// ᾱ falls as e^(−12t), β at most 0.999: `exp`, which Heun's scheduler has.
    Exponential,
    /// β of each step.
    Given(Vec<f32>),
}

/// The shape of β, without its ends.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Linear,
    ScaledLinear,
    Cosine,
    Sigmoid,
    Laplace,
    Exponential,
}

/// What a class of diffusers takes for absent fields.
#[derive(Clone, Copy)]
pub(super) struct BetaDefaults {
    pub shape: Shape,
    pub start: f64,
    pub end: f64,
}

impl Betas {
    /// From the fields of one class, to be read by another.
    pub(super) fn read(
        fields: &Fields,
        classes: [&str; 2],
        defaults: BetaDefaults,
        count: usize,
    ) -> Result<Self, ScheduleError> {
        if let Some(betas) = fields.numbers("trained_betas")? {
            if betas.len() != count {
                let expected = format!("num_train_timesteps = {count} values");
                return Err(ScheduleError::field("trained_betas", format!("{} values", betas.len()), expected));
            }
            if let Some(beta) = betas.iter().find(|&&beta| !(beta > 0.0 && beta < 1.0)) {
                return Err(ScheduleError::field("trained_betas", beta, "values between 0 and 1"));
            }
            return Ok(Self::Given(betas));
        }
        let shapes = [
            ("linear", Shape::Linear),
            ("scaled_linear", Shape::ScaledLinear),
            ("squaredcos_cap_v2", Shape::Cosine),
            ("sigmoid", Shape::Sigmoid),
            ("laplace", Shape::Laplace),
            ("exp", Shape::Exponential),
        ];
        // Three are of one class alone.
        let has = |name| classes.iter().any(|class| class.starts_with(name));
        let known: Vec<_> = shapes
            .into_iter()
            .filter(|(_, shape)| match shape {
                Shape::Sigmoid | Shape::Laplace => has("DDPM"),
                Shape::Exponential => has("Heun"),
                Shape::Linear | Shape::ScaledLinear | Shape::Cosine => true,
            })
            .collect();
        let shape = fields.choice("beta_schedule", &known)?.unwrap_or(defaults.shape);
        let end = |name, default| {
            let beta = fields.number(name, default)?;
            let is_beta = beta > 0.0 && beta < 1.0;
            if is_beta { Ok(beta) } else { Err(ScheduleError::field(name, beta, "between 0 and 1")) }
        };
        let (first, last) = (|| end("beta_start", defaults.start), || end("beta_end", defaults.end));
        Ok(match shape {
            Shape::Linear => Self::Linear { start: first()?, end: last()? },
            Shape::ScaledLinear => Self::ScaledLinear { start: first()?, end: last()? },
            Shape::Cosine => Self::Cosine,
            Shape::Sigmoid => Self::Sigmoid { start: first()?, end: last()? },
            Shape::Laplace => Self::Laplace,
            Shape::Exponential => Self::Exponential,
        })
    }

    fn values(&self, count: usize) -> Vec<f32> {
        match *self {
            Self::Linear { start, end } => linspace(start as f32, end as f32, count),
            Self::ScaledLinear { start, end } => {
                let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, count);
                roots.into_iter().map(|root| root * root).collect()
            }
            Self::Cosine => from_alpha_bar(count, |t| libm::cos((t + 0.008) / 1.008 * FRAC_PI_2).powi(2)),
            Self::Sigmoid { start, end } => {
                let scale = |x: f32| 1.0 / (1.0 + libm::expf(-x)) * (end - start) as f32 + start as f32;
                linspace(-6.0, 6.0, count).into_iter().map(scale).collect()
            }
            Self::Laplace => from_alpha_bar(count, |t| {
                let lambda = -(0.5f64.copysign(0.5 - t)) * libm::log(1.0 - 2.0 * (0.5 - t).abs() + 1e-6);
                let ratio = libm::exp(lambda);
                (ratio / (1.0 + ratio)).sqrt()
            }),
            Self::Exponential => from_alpha_bar(count, |t| libm::exp(-12.0 * t)),
            Self::Given(ref betas) => betas.clone(),
        }
    }
}

impl SchedulerConfig {
    /// ᾱ of every training step: the running product of 1 − β, accumulated in double precision and rounded to `f32`
    /// entry by entry, as PyTorch does on a CPU.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let mut betas = self.betas.values(self.num_train_timesteps);
        if self.rescale_betas_zero_snr {
            betas = rescale_zero_snr(&betas);
        }
        cumprod(betas.iter().map(|beta| 1.0 - beta))
    }
}

/// β from ᾱ as a function of time from 0 to 1, at most 0.999.
fn from_alpha_bar(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

/// `torch.linspace` in `f32`: the first half counts up from the start, the second down from the end.
pub(super) fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    let up = |i: usize| step.mul_add(i as f32, start);
    let down = |i: usize| step.mul_add(-((count - 1 - i) as f32), end);
    (0..count).map(|i| if i < count / 2 { up(i) } else { down(i) }).collect()
}

fn cumprod(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    factors
        .scan(1.0f64, |product, factor| {
            *product *= f64::from(factor);
            Some(*product as f32)
        })
        .collect()
}

/// Shifts and scales √ᾱ so that the last is 0 and the first is kept.
fn rescale_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumprod(betas.iter().map(|beta| 1.0 - beta)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return vec![] };
    let squares: Vec<f32> = roots
        .iter()
        .map(|root| {
            let shifted = (root - last) * (first / (first - last));
            shifted * shifted
        })
        .collect();
    let ratios = std::iter::once(squares[0]).chain(squares.windows(2).map(|pair| pair[1] / pair[0]));
    ratios.map(|alpha| 1.0 - alpha).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits of `torch.linspace(start, end, count, dtype=torch.float32)`, around its middle.
    #[test]
    fn linspace_is_torchs() {
        for (start, end, count, at, expected) in [
            (0.1, 0.7, 4, 1, [0x3e99_9999, 0x3f00_0000]),
            (1e-4, 0.02, 1000, 499, [0x3c24_7efb, 0x3c24_d287]),
            (0.1, 0.3, 10, 4, [0x3e41_6c18, 0x3e58_2d83]),
        ] {
            let found = linspace(start, end, count);
            assert_eq!([found[at], found[at + 1]].map(f32::to_bits), expected, "{start} to {end}");
        }
    }
}
