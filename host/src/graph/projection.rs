//! From a timestep to the input of its perceptron.

/// How a timestep becomes a vector.
#[derive(Clone, Debug)]
pub enum Projection {
    /// Sines and cosines of frequencies from 1 down to 1/10,000 (Ho et al., 2020, arXiv:2006.11239, appendix B; diffusers'
    /// `Timesteps`).
    Sinusoid {
        /// Length of the vector; the last element of an odd one is 0.
        channels: usize,
        /// Cosines before sines.
        flip_sin_to_cos: bool,
        /// Subtracted from the number of frequencies in the exponent's divisor.
        freq_shift: f64,
        /// The ratio of the highest to the lowest frequency, 10,000 as a rule.
        theta: f64,
        /// How the network's own code computes a frequency.
        order: FrequencyOrder,
    },
    /// The timestep itself, then sines and cosines of 2π·w·t for each frequency w.
    Frequencies {
        /// The frequencies.
        frequencies: Vec<f32>,
    },
    /// Sines, then cosines, of 2π·w·t for each frequency w.
    Angles {
        /// The frequencies.
        frequencies: Vec<f32>,
    },
    /// Sines, then cosines, of 2π·w·ln t for each frequency w (Song et al., 2021, arXiv:2011.13456, appendix H.2.1;
    /// diffusers' `GaussianFourierProjection`).
    Fourier {
        /// The frequencies.
        frequencies: Vec<f32>,
        /// Whether it is of ln t, not of t.
        of_logarithm: bool,
        /// Cosines before sines.
        flip_sin_to_cos: bool,
    },
    /// A row of a table.
    Learned {
        /// Row-major (timesteps, length).
        table: Vec<f32>,
        /// Length of a row.
        channels: usize,
    },
}

/// The order in which a frequency θ^(-i/n) is computed in single precision. Each rounds differently, which moves a sine of `t = 999`
/// by up to 6·10⁻⁵.
#[derive(Clone, Copy, Debug)]
pub enum FrequencyOrder {
    /// exp(-ln θ · i / n): diffusers and OpenAI's code.
    Product,
    /// exp(i · -(ln θ / n)): lucidrains' code, diffusion_policy and LeRobot.
    Quotient,
    /// (1/θ)^(i/n): EDM.
    Power,
}

impl FrequencyOrder {
    /// θ^(-i/n).
    fn frequency(self, theta: f64, i: usize, n: f64) -> f32 {
        let (i, logarithm) = (i as f32, libm::log(theta));
        match self {
            FrequencyOrder::Product => libm::exp(f64::from(-logarithm as f32 * i / n as f32)) as f32,
            FrequencyOrder::Quotient => libm::exp(f64::from(i * (-logarithm / n) as f32)) as f32,
            FrequencyOrder::Power => libm::pow(f64::from((1.0 / theta) as f32), f64::from(i / n as f32)) as f32,
        }
    }
}

impl Projection {
    /// The sinusoid of most networks: frequencies down to 1/10,000.
    pub const fn sinusoid(channels: usize, flip_sin_to_cos: bool, freq_shift: f64, order: FrequencyOrder) -> Self {
        Self::Sinusoid { channels, flip_sin_to_cos, freq_shift, theta: 10_000.0, order }
    }

    /// Length of the vector.
    pub fn channels(&self) -> usize {
        match self {
            Projection::Sinusoid { channels, .. } | Projection::Learned { channels, .. } => *channels,
            Projection::Fourier { frequencies, .. } | Projection::Angles { frequencies } => 2 * frequencies.len(),
            Projection::Frequencies { frequencies } => 1 + 2 * frequencies.len(),
        }
    }

    /// Why there is no vector of timestep `t`, if there is none.
    pub fn missing(&self, t: f64) -> Option<String> {
        match self {
            Projection::Sinusoid { .. } | Projection::Frequencies { .. } | Projection::Angles { .. } => None,
            Projection::Fourier { of_logarithm, .. } if t > 0.0 || !of_logarithm => None,
            Projection::Fourier { .. } => {
                Some("Fourier features of a timestep need its logarithm: it must be above 0".into())
            }
            Projection::Learned { table, channels } => {
                let rows = table.len() / channels;
                let has_row = t.fract() == 0.0 && (0.0..rows as f64).contains(&t);
                (!has_row).then(|| format!("the network has learned timesteps 0 to {} only", rows - 1))
            }
        }
    }

    /// The vector of timestep `t`.
    ///
    /// # Panics
    /// If there is [none](Self::missing).
    pub fn of(&self, t: f64) -> Vec<f64> {
        match self {
            Projection::Sinusoid { channels, flip_sin_to_cos, freq_shift, theta, order } => {
                let half = channels / 2;
                let mut vector = vec![0.0; *channels];
                let last = half as f64 - freq_shift;
                for i in 0..half {
                    // `libm`, not the platform's functions: an export is the same on every host.
                    let angle = t as f32 * order.frequency(*theta, i, last);
                    let (sin, cos) = libm::sincos(angle.into());
                    let (first, second) = if *flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
                    vector[i] = first;
                    vector[half + i] = second;
                }
                vector
            }
            Projection::Frequencies { frequencies } => {
                let angle = |w: &f32| libm::sincos(f64::from(t as f32 * w * 2.0 * std::f32::consts::PI));
                let (sines, cosines): (Vec<f64>, Vec<f64>) = frequencies.iter().map(angle).unzip();
                [vec![t], sines, cosines].concat()
            }
            Projection::Angles { frequencies } => {
                let angle = |w: &f32| libm::sincos(f64::from(t as f32 * (2.0 * std::f32::consts::PI * w)));
                let (sines, cosines): (Vec<f64>, Vec<f64>) = frequencies.iter().map(angle).unzip();
                [sines, cosines].concat()
            }
            Projection::Fourier { frequencies, of_logarithm, flip_sin_to_cos } => {
                // Angles of hundreds of turns: PyTorch's roundings to single precision are part of what was trained.
                let t = if *of_logarithm { libm::log(f64::from(t as f32)) as f32 } else { t as f32 };
                let angle = |w: &f32| libm::sincos(f64::from(t * w * 2.0 * std::f32::consts::PI));
                let (sines, cosines): (Vec<f64>, Vec<f64>) = frequencies.iter().map(angle).unzip();
                if *flip_sin_to_cos { [cosines, sines].concat() } else { [sines, cosines].concat() }
            }
            Projection::Learned { table, channels } => {
                table[t as usize * channels..][..*channels].iter().map(|&x| f64::from(x)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the layouts' own code computes (PyTorch 2.15) for t = 999, and for 500 with cosines first: sines of angles of hundreds
    /// differ by the order of roundings in the fifth digit.
    #[test]
    fn sinusoids_are_rounded_as_each_layout_rounds_them() {
        let of = |freq_shift, order| Projection::sinusoid(16, false, freq_shift, order).of(999.0);
        let expected = [
            // diffusers' `get_timestep_embedding` (0.42.1).
            (
                of(1.0, FrequencyOrder::Product),
                [
                    -0.02646075,
                    -0.82259929,
                    0.35230440,
                    0.42423254,
                    -0.89520431,
                    0.98335838,
                    0.36383951,
                    0.09973391,
                    0.99964982,
                    -0.56862152,
                    -0.93588549,
                    0.90555328,
                    0.44565600,
                    0.18167639,
                    0.93146163,
                    0.99501413,
                ]
                .to_vec(),
            ),
            (
                Projection::sinusoid(8, true, 0.0, FrequencyOrder::Product).of(500.0),
                [-0.88384926, 0.96496505, 0.28366220, 0.87758255, -0.46777170, -0.26237854, -0.95892429, 0.47942552]
                    .to_vec(),
            ),
            // lucidrains' `SinusoidalPosEmb` (2.3.4).
            (
                of(1.0, FrequencyOrder::Quotient),
                [
                    -0.02646075,
                    -0.82259929,
                    0.35230440,
                    0.42423773,
                    -0.89520431,
                    0.98335850,
                    0.36383966,
                    0.09973391,
                    0.99964982,
                    -0.56862152,
                    -0.93588549,
                    0.90555084,
                    0.44565600,
                    0.18167567,
                    0.93146157,
                    0.99501413,
                ]
                .to_vec(),
            ),
            // EDM's `PositionalEmbedding` with its endpoint.
            (
                of(1.0, FrequencyOrder::Power),
                [
                    -0.02646075,
                    -0.82258195,
                    0.35231867,
                    0.42423254,
                    -0.89520538,
                    0.98335844,
                    0.36383948,
                    0.09973392,
                    0.99964982,
                    -0.56864661,
                    -0.93588012,
                    0.90555328,
                    0.44565386,
                    0.18167603,
                    0.93146169,
                    0.99501413,
                ]
                .to_vec(),
            ),
        ];
        for (found, expected) in expected {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 2e-7, "{found}, expected {expected}");
            }
        }
    }
}
