//! Dense layers, and those that others are made of.

/// A dense layer `y = W·x + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Length of `x`.
    pub inputs: usize,
    /// Length of `y`.
    pub outputs: usize,
    /// Row-major (outputs, inputs).
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

impl Linear {
    /// `W·x` in `f64`.
    pub fn products(&self, x: &[f64]) -> impl Iterator<Item = f64> {
        self.weight.chunks_exact(self.inputs).map(move |row| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * x).sum())
    }

    /// `W·x + b` in `f64`.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        self.products(x).zip(&self.bias).map(|(sum, &b)| sum + f64::from(b)).collect()
    }

    /// The map of the first `inputs` elements, bias included, and that of the rest, without a bias.
    pub fn split(&self, inputs: usize) -> [Self; 2] {
        let columns = |range: std::ops::Range<usize>| {
            self.weight.chunks_exact(self.inputs).flat_map(|row| row[range.clone()].to_vec()).collect()
        };
        let rest = self.inputs - inputs;
        let (first, second) = (columns(0..inputs), columns(inputs..self.inputs));
        [
            Self { inputs, outputs: self.outputs, weight: first, bias: self.bias.clone() },
            Self { inputs: rest, outputs: self.outputs, weight: second, bias: vec![0.0; self.outputs] },
        ]
    }

    /// The map to the factors `γ·(1 + s)`, then the summands `β·(1 + s) + t`, where this one gives `s`, then `t`.
    pub fn scaling_and_shifting(&self, gamma: &[f32], beta: &[f32]) -> Self {
        let (scales, shifts) = self.weight.split_at(gamma.len() * self.inputs);
        let (scale_bias, shift_bias) = self.bias.split_at(gamma.len());
        let rows = |weights: &[f32], by: &[f32]| -> Vec<f32> {
            weights.chunks_exact(self.inputs).zip(by).flat_map(|(row, by)| row.iter().map(move |w| w * by)).collect()
        };
        let mut weight = rows(scales, gamma);
        weight.extend(rows(scales, beta).iter().zip(shifts).map(|(scaled, shift)| scaled + shift));
        let scaled = |by: &f32, s: &f32| by * (1.0 + s);
        let mut bias: Vec<f32> = gamma.iter().zip(scale_bias).map(|(gamma, s)| scaled(gamma, s)).collect();
        let summands = beta.iter().zip(scale_bias).map(|(beta, s)| scaled(beta, s));
        bias.extend(summands.zip(shift_bias).map(|(scaled, shift)| scaled + shift));
        Self { weight, bias, ..*self }
    }
}
