//! One step of any sampler.

/// Most clean samples of earlier steps that a step may look back on.
pub const MAX_HISTORY: usize = 2;

/// What a sample consists of before a step, in the scale in which the network reads it: `signal·x0 + noise·ε` for a clean
/// sample `x0` and standard Gaussian noise `ε`. This is the forward process in closed form (Ho et al., 2020,
/// arXiv:2006.11239, equation 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Factor of the clean sample.
    pub signal: f64,
    /// Factor of the noise.
    pub noise: f64,
    /// Factor of the noise where there is no clean sample, as diffusers has it: near `noise` in a first step, 1 in others.
    pub start: f64,
}

/// Dynamic thresholding (Saharia et al., 2022, arXiv:2205.11487, section 2.3), as diffusers' `_threshold_sample`: the clean
/// sample is clamped to ±s and divided by s, a quantile of its magnitudes, at least 1 and at most a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholding {
    /// Which quantile, 0 to 1.
    pub ratio: f64,
    /// Largest s, infinity for none.
    pub limit: f64,
}

impl Thresholding {
    /// Bounds the clean sample of one picture.
    pub fn apply(&self, clean: &mut [f64]) {
        let mut magnitudes: Vec<f64> = clean.iter().map(|x| x.abs()).collect();
        magnitudes.sort_by(f64::total_cmp);
        let place = self.ratio * (magnitudes.len() as f64 - 1.0);
        let [low, high] = [place.floor(), place.ceil()].map(|rank| magnitudes[rank as usize]);
        let s = (low + place.fract() * (high - low)).max(1.0).min(self.limit);
        clean.iter_mut().for_each(|x| *x = x.clamp(-s, s) / s);
    }
}

impl Default for Level {
    /// Noise alone.
    fn default() -> Self {
        Self::new(0.0, 1.0)
    }
}

impl Level {
    /// A level whose initial sample is standard Gaussian.
    pub fn new(signal: f64, noise: f64) -> Self {
        Self { signal, noise, start: 1.0 }
    }

    /// What a change of the clean sample changes the noise by, in the same sample.
    pub(super) fn noise_by_clean(&self) -> f64 {
        -self.signal / self.noise
    }

    /// Whether a device can hold it, see the record of the same name in the model file.
    fn is_small(&self) -> bool {
        self.signal.abs() < 8.0 && self.noise.abs() < 8.0 && self.start.abs() < 128.0
    }
}

/// One step as a linear map of a sample `x`, a model output `m`, standard Gaussian noise `z`, and the clean samples `h0`
/// of the step before and `h1` of the one before that:
///
/// `x0 = clamp(x0_x·x + x0_m·m, ±clip)`,
/// `x' = next_x0·x0 + next_x·x + next_m·m + noise·z + next_history[0]·h0 + next_history[1]·h1`,
///
/// where `z` is [multiplied](Self::varied) before by what a network that learned variances says.
///
/// The device keeps the sample as the network reads it. Solvers that keep `x = x0 + σ·ε` and scale it for each call,
/// by `1/√(σ²+1)` or the like, have both scales folded into these factors; the last step gives the picture unscaled.
///
/// What a solver calls the clean sample may be another combination that its later steps look back on.
/// A history holds clean samples after clamping. The first step has none, so its `next_history` is zero, and so is the
/// second entry of the second step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The timestep that the network is told; some solvers have fractional ones.
    pub timestep: f64,
    /// What the sample before the step consists of.
    pub level: Level,
    /// Factor of `x` in the clean sample.
    pub x0_x: f64,
    /// Factor of `m` in the clean sample.
    pub x0_m: f64,
    /// What a change of the clean sample changes what is kept in its place by, where that is another combination.
    pub kept: Option<f64>,
    /// Bound of the clean sample.
    pub clip: Option<f64>,
    /// How the clean sample is bounded besides, the same in all steps of a list.
    pub thresholding: Option<Thresholding>,
    /// Factor of the clean sample.
    pub next_x0: f64,
    /// Factor of `x`.
    pub next_x: f64,
    /// Factor of `m`.
    pub next_m: f64,
    /// Factor of `z`.
    pub noise: f64,
    /// Where the network says how much noise there is: binary orders from the standard deviation at a variance of 1, for which
    /// `noise` is the factor, to that at 0.
    pub variance: Option<f64>,
    /// Factors of the clean samples of earlier steps, the latest first.
    pub next_history: [f64; MAX_HISTORY],
}

impl Step {
    /// The clean sample, clamped.
    pub fn clean(&self, x: f64, m: f64) -> f64 {
        let x0 = self.x0_x * x + self.x0_m * m;
        self.clip.map_or(x0, |clip| x0.clamp(-clip, clip))
    }

    /// The sample after the step, from the clean sample that [`clean`](Self::clean) gives.
    pub fn next(&self, x: f64, m: f64, z: f64, x0: f64, history: [f64; MAX_HISTORY]) -> f64 {
        let past: f64 = self.next_history.iter().zip(history).map(|(factor, h)| factor * h).sum();
        self.next_x0 * x0 + self.next_x * x + self.next_m * m + self.noise * z + past
    }

    /// Noise times what the network's output `v` for the variance makes of it.
    pub fn varied(&self, z: f64, v: f64) -> f64 {
        self.variance.map_or(z, |orders| z * (orders * (v - 1.0)).exp2())
    }

    /// What the gradient `∇ log p(y | x)` of a class's log-probability with respect to the sample is multiplied by to be added to the
    /// model output. By Tweedie's formula it moves the clean sample by `noise²/signal` times itself, whatever the network
    /// predicts; for a network that predicts noise the factor is −noise (Dhariwal and Nichol, 2021, arXiv:2105.05233,
    /// algorithm 2). 0 where there is no signal, or no noise.
    pub fn gradient_factor(&self) -> f64 {
        let Level { signal, noise, .. } = self.level;
        if self.leaves_gradient_out() {
            return 0.0;
        }
        self.kept.unwrap_or(1.0) * noise * noise / (signal * self.x0_m)
    }

    /// Whether a classifier's gradient has no factor.
    pub(crate) fn leaves_gradient_out(&self) -> bool {
        self.level.signal == 0.0 || self.x0_m == 0.0
    }

    pub(super) fn is_finite(&self) -> bool {
        let [h0, h1] = self.next_history;
        let variance = self.variance.unwrap_or(0.0);
        let factors = [self.x0_x, self.x0_m, self.next_x0, self.next_x, self.next_m, self.noise, variance, h0, h1];
        self.timestep.is_finite() && self.level.is_small() && factors.iter().all(|factor| factor.is_finite())
    }
}

/// How many clean samples of earlier steps a device must keep for these steps: 0 to [`MAX_HISTORY`].
pub fn history(steps: &[Step]) -> usize {
    let used = |step: &Step| step.next_history.iter().rposition(|&factor| factor != 0.0).map_or(0, |last| last + 1);
    steps.iter().map(used).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Tweedie's formula `x0 + noise²/signal·∇`, where `x0 = … + x0_m·m`.
    #[test]
    fn gradients_have_no_factor_without_signal_or_prediction() {
        let level = Level { signal: 0.5, noise: 0.25, start: 1.0 };
        let step = Step { level, x0_m: 2.0, ..Step::default() };
        assert_eq!((step.gradient_factor(), step.leaves_gradient_out()), (0.0625, false));
        for (silent, leaves) in [
            (Step { level: Level { signal: 0.0, ..level }, ..step }, true),
            (Step { x0_m: 0.0, ..step }, true),
            (Step { level: Level { noise: 0.0, ..level }, ..step }, false),
        ] {
            assert_eq!((silent.gradient_factor(), silent.leaves_gradient_out()), (0.0, leaves), "{silent:?}");
        }
    }

    #[test]
    fn levels_are_what_a_device_can_hold() {
        let steps = |level| Step { level, ..Step::default() };
        assert!(steps(Level { signal: -7.9, noise: 7.9, start: -127.9 }).is_finite());
        let level = Level { signal: 1.0, noise: 1.0, start: 1.0 };
        for large in [
            Level { signal: 8.0, ..level },
            Level { noise: -8.0, ..level },
            Level { start: 128.0, ..level },
            Level { noise: f64::NAN, ..level },
        ] {
            assert!(!steps(large).is_finite(), "{large:?}");
        }
    }

    #[test]
    fn the_history_that_is_needed_is_the_longest_that_a_step_uses() {
        let with = |next_history| Step { next_history, ..Step::default() };
        assert_eq!(history(&[]), 0);
        assert_eq!(history(&[with([0.0, 0.0])]), 0);
        assert_eq!(history(&[with([0.0, 0.0]), with([0.5, 0.0])]), 1);
        assert_eq!(history(&[with([0.0, -0.5]), with([0.5, 0.0])]), 2);
    }

    #[test]
    fn the_clean_sample_is_clamped_and_the_next_one_is_not() {
        let step = Step { x0_x: 2.0, x0_m: -1.0, next_x0: 3.0, next_history: [10.0, 100.0], ..Step::default() };
        assert_eq!(step.clean(3.0, 1.0), 5.0);
        let step = Step { clip: Some(1.0), ..step };
        assert_eq!(step.clean(3.0, 1.0), 1.0);
        assert_eq!(step.clean(-3.0, 1.0), -1.0);
        assert_eq!(step.next(3.0, 1.0, 0.0, 1.0, [0.1, 0.01]), 5.0);
    }
}
