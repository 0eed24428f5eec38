//! The field's measures of generated pictures, each with the paper that defines it.

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rayon::prelude::*;

/// Feature vectors of a set of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Length of one vector.
    pub dim: usize,
    /// One vector after the other.
    pub values: Vec<f64>,
}

impl Features {
    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }
}

/// A Gaussian fitted to feature vectors.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Gaussian {
    /// Fits the vectors that `pick` names; the covariance is the unbiased one.
    pub fn fit(features: &Features, pick: impl Iterator<Item = usize>) -> Self {
        let columns: Vec<f64> = pick.flat_map(|index| features.row(index).iter().copied()).collect();
        let count = columns.len() / features.dim.max(1);
        let mut columns = DMatrix::from_vec(features.dim, count, columns);
        let mean = columns.column_mean();
        columns.column_iter_mut().for_each(|mut column| column -= &mean);
        let covariance = &columns * columns.transpose() / (count.max(2) - 1) as f64;
        Self { mean, covariance }
    }
}

/// Fréchet distance of two Gaussians, `|μ₁ − μ₂|² + tr(C₁ + C₂ − 2·(C₁·C₂)^½)`: Heusel et al., 2017, arXiv:1706.08500,
/// equation 6. The trace of the root is that of `(C₁^½·C₂·C₁^½)^½`, which is symmetric.
pub fn frechet(a: &Gaussian, b: &Gaussian) -> f64 {
    let root = |matrix: DMatrix<f64>| {
        let eigen = SymmetricEigen::new(matrix);
        let roots = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
        (eigen.eigenvectors, roots)
    };
    let (vectors, roots) = root(a.covariance.clone());
    let half = &vectors * DMatrix::from_diagonal(&roots) * vectors.transpose();
    let product = &half * &b.covariance * &half;
    let (_, roots) = root((&product + product.transpose()) / 2.0);
    (&a.mean - &b.mean).norm_squared() + a.covariance.trace() + b.covariance.trace() - 2.0 * roots.sum()
}

/// Inception Score, `exp(E[KL(p(y|x) ‖ p(y))])`: Salimans et al., 2016, arXiv:1606.03498, section 4; over all pictures at
/// once. `probabilities` holds one row of class probabilities for each picture.
pub fn inception_score(probabilities: &[Vec<f64>], pick: &[usize]) -> f64 {
    let Some(first) = pick.first() else { return f64::NAN };
    let count = pick.len() as f64;
    let mut marginal = vec![0.0; probabilities[*first].len()];
    for &index in pick {
        marginal.iter_mut().zip(&probabilities[index]).for_each(|(sum, p)| *sum += p / count);
    }
    let divergence = |row: &Vec<f64>| -> f64 {
        row.iter().zip(&marginal).filter(|(p, _)| **p > 0.0).map(|(p, m)| p * (p / m).ln()).sum()
    };
    (pick.iter().map(|&index| divergence(&probabilities[index])).sum::<f64>() / count).exp()
}

/// For each vector of `of`, whether it lies within the distance from some vector of `manifold` to that one's `k`-th
/// neighbour there: Kynkäänniemi et al., 2019, arXiv:1904.06991, equation 1. The mean over generated pictures and the
/// manifold of real ones is precision; the other way round it is recall (equation 2).
pub fn within_manifold(of: &Features, manifold: &Features, k: usize) -> Vec<bool> {
    let squared = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum() };
    let count = manifold.len();
    let radii: Vec<f64> = (0..count)
        .into_par_iter()
        .map(|index| {
            let others = (0..count).filter(|&other| other != index);
            let mut distances: Vec<f64> =
                others.map(|other| squared(manifold.row(index), manifold.row(other))).collect();
            let kth = k.clamp(1, distances.len().max(1)) - 1;
            if distances.is_empty() { 0.0 } else { *distances.select_nth_unstable_by(kth, f64::total_cmp).1 }
        })
        .collect();
    let inside = |index: usize| (0..count).any(|center| squared(of.row(index), manifold.row(center)) <= radii[center]);
    (0..of.len()).into_par_iter().map(inside).collect()
}

/// Peak signal-to-noise ratio in decibels of values whose peak is 2; equal pictures have 120 dB.
pub fn psnr(found: &[f32], expected: &[f32]) -> f64 {
    let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2));
    let mean = squares.sum::<f64>() / found.len().max(1) as f64;
    10.0 * (4.0 / mean.max(4e-12)).log10()
}

/// Side of the window of [`ssim`].
const WINDOW: usize = 7;

/// Structural similarity: Wang et al., 2004, doi:10.1109/TIP.2003.819861, equation 13, with K₁ = 0.01, K₂ = 0.03, peak 2,
/// a uniform window of 7×7 (or the picture's size, if it is smaller) at every place where it fits, and unbiased
/// variances; the mean over windows and channels.
pub fn ssim(found: &[f32], expected: &[f32], [rows, columns, channels]: [usize; 3]) -> f64 {
    let (height, width) = (WINDOW.min(rows), WINDOW.min(columns));
    let count = (height * width) as f64;
    let unbiased = count / (count - 1.0).max(1.0);
    let (c1, c2) = ((0.01f64 * 2.0).powi(2), (0.03f64 * 2.0).powi(2));
    let mut sum = 0.0;
    let mut windows = 0usize;
    for top in 0..=rows - height {
        for left in 0..=columns - width {
            for channel in 0..channels {
                let mut sums = [0f64; 5];
                for y in top..top + height {
                    for x in left..left + width {
                        let at = (y * columns + x) * channels + channel;
                        let (a, b) = (f64::from(found[at]), f64::from(expected[at]));
                        let terms = [a, b, a * a, b * b, a * b];
                        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                    }
                }
                let [a, b, aa, bb, ab] = sums.map(|sum| sum / count);
                let covariance = |product: f64, x: f64, y: f64| (product - x * y) * unbiased;
                let (va, vb, vab) = (covariance(aa, a, a), covariance(bb, b, b), covariance(ab, a, b));
                sum += (2.0 * a * b + c1) * (2.0 * vab + c2) / ((a * a + b * b + c1) * (va + vb + c2));
                windows += 1;
            }
        }
    }
    sum / windows.max(1) as f64
}

/// The middle of the picked values.
pub fn median(values: &[f64], pick: &[usize]) -> f64 {
    let mut picked: Vec<f64> = pick.iter().map(|&index| values[index]).collect();
    picked.sort_by(f64::total_cmp);
    match picked.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => picked[n / 2],
        n => (picked[n / 2 - 1] + picked[n / 2]) / 2.0,
    }
}

/// A figure and its 95 % interval by the bootstrap: Efron, 1979, doi:10.1214/aos/1176344552.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Over all pictures.
    pub value: f64,
    /// 2.5th and 97.5th percentile over resampled pictures, moved so that the resamples' mean falls on the value: a
    /// Fréchet distance grows by resampling alone.
    pub interval: [f64; 2],
}

/// Resamples of one estimate.
const RESAMPLES: usize = 200;

impl Estimate {
    /// Evaluates `figure` over all of `count` pictures and over resamples of them.
    pub fn bootstrap(count: usize, figure: impl Fn(&[usize]) -> f64 + Sync) -> Self {
        let all: Vec<usize> = (0..count).collect();
        let mut resampled: Vec<f64> = (0..RESAMPLES)
            .into_par_iter()
            .map(|resample| {
                let mut state = 0x9E37_79B9_7F4A_7C15 ^ (resample as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95);
                let mut next = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as usize % count.max(1)
                };
                let pick: Vec<usize> = (0..count).map(|_| next()).collect();
                figure(&pick)
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let value = figure(&all);
        let drift = resampled.iter().sum::<f64>() / RESAMPLES as f64 - value;
        let at = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize] - drift;
        Self { value, interval: [at(0.025), at(0.975)] }
    }

    /// The share of `true`.
    pub fn share(flags: &[bool]) -> Self {
        let share =
            |pick: &[usize]| pick.iter().filter(|&&index| flags[index]).count() as f64 / pick.len().max(1) as f64;
        Self::bootstrap(flags.len(), share)
    }
}
