//! Rounding weights so that the convolution's result changes least, not the weights themselves.
//!
//! For inputs with covariance `C`, rounding a row `w` of weights to `s·q` costs `(s·q − w)ᵀ·C·(s·q − w)` of squared error
//! in the result; its mean goes into the bias. Rows are rounded one weight after the other, each error spread over the
//! weights that are still free (Frantar et al., 2022, GPTQ, arXiv:2210.17323), for several scales; the best is then
//! improved by coordinate descent (Behdin et al., 2023, QuantEase, arXiv:2309.01885) in turn with the scale, whose best
//! value for fixed integers is a quotient.

use std::ops::Range;

use nalgebra::DMatrix;
use rayon::prelude::*;

/// Rows of inputs that are multiplied at once.
const BATCH: usize = 256;
/// Columns of their products that are computed at once, from the diagonal down.
const COLUMNS: usize = 256;
/// Inputs beyond which the covariance is kept in blocks on its diagonal.
const LARGEST_BLOCK: usize = 2048;
/// Rows of weights that are rounded side by side.
const ROWS: usize = 8;
/// Rows of a covariance that stay in a cache for them.
const SIDE: usize = 32;
/// Share of the mean variance that is added to every variance: inputs that were never seen apart are not told apart.
const DAMPING: f64 = 0.01;

/// Sums over the inputs of one convolution: rows of its unfolded input.
#[derive(Clone, Debug)]
pub struct Moments {
    taps: usize,
    count: usize,
    sums: Vec<f64>,
    /// Of each block the products; what lies above the diagonal is not whole.
    blocks: Vec<(Range<usize>, DMatrix<f32>)>,
    pending: Vec<f32>,
}

impl Moments {
    /// Nothing seen of `taps` inputs.
    pub fn new(taps: usize) -> Self {
        let size = taps.div_ceil(taps.div_ceil(LARGEST_BLOCK).max(1)).max(1);
        let ranges = (0..taps).step_by(size).map(|start| start..(start + size).min(taps));
        let blocks = ranges.map(|range| (range.clone(), DMatrix::zeros(range.len(), range.len()))).collect();
        Self { taps, count: 0, sums: vec![0.0; taps], blocks, pending: vec![] }
    }

    /// Rows that describe a covariance of `taps` inputs well enough.
    pub fn wanted(taps: usize) -> usize {
        (6 * taps).max(4096)
    }

    /// Takes note of one row.
    pub fn observe(&mut self, row: impl IntoIterator<Item = f32>) {
        self.pending.extend(row);
        if self.pending.len() >= BATCH * self.taps {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let rows = self.pending.len() / self.taps.max(1);
        for row in self.pending.chunks_exact(self.taps.max(1)) {
            for (sum, &x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        for (range, products) in &mut self.blocks {
            let columns =
                self.pending.chunks_exact(self.taps.max(1)).flat_map(|row| row[range.clone()].iter().copied());
            let columns = DMatrix::from_iterator(range.len(), rows, columns);
            for first in (0..range.len()).step_by(COLUMNS) {
                let (rest, width) = (range.len() - first, COLUMNS.min(range.len() - first));
                let right = columns.rows(first, width).transpose();
                products.view_mut((first, first), (rest, width)).gemm(1.0, &columns.rows(first, rest), &right, 1.0);
            }
        }
        self.count += rows;
        self.pending.clear();
    }

    /// The mean of every input, and the damped covariance.
    pub fn finish(mut self) -> (Vec<f64>, Covariance) {
        self.flush();
        let count = self.count.max(1) as f64;
        let means: Vec<f64> = self.sums.iter().map(|sum| sum / count).collect();
        let blocks = self.blocks.into_iter().map(|(range, products)| {
            let n = range.len();
            let mean = &means[range.clone()];
            let mut matrix = vec![0f64; n * n];
            for i in 0..n {
                for j in 0..=i {
                    let value = f64::from(products[(i, j)]) / count - mean[i] * mean[j];
                    (matrix[i * n + j], matrix[j * n + i]) = (value, value);
                }
            }
            let trace: f64 = (0..n).map(|i| matrix[i * n + i].max(0.0)).sum();
            let damping = (DAMPING * trace / n as f64).max(1e-12);
            (0..n).for_each(|i| matrix[i * n + i] = matrix[i * n + i].max(0.0) + damping);
            Block::new(range, matrix)
        });
        let covariance = Covariance { blocks: blocks.collect() };
        (means, covariance)
    }
}

/// Covariance of the inputs of a convolution, ready for rounding.
#[derive(Clone, Debug)]
pub struct Covariance {
    blocks: Vec<Block>,
}

/// One block on the diagonal. Inputs are in the order in which they are rounded: largest variance first.
#[derive(Clone, Debug)]
struct Block {
    /// Place of each input in the row of weights.
    order: Vec<usize>,
    /// Row-major.
    matrix: Vec<f32>,
    /// Row-major upper triangle `U` with `UᵀU = matrix⁻¹`.
    spread: Vec<f32>,
}

impl Block {
    fn new(range: Range<usize>, matrix: Vec<f64>) -> Self {
        let n = range.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| matrix[b * n + b].total_cmp(&matrix[a * n + a]));
        let flat: Vec<f32> = order
            .iter()
            .flat_map(|&i| order.iter().map(move |&j| (i, j)))
            .map(|(i, j)| matrix[i * n + j] as f32)
            .collect();
        // From the last input to the first, the factor of the inverse is the inverse of the factor.
        let backward = DMatrix::from_fn(n, n, |i, j| matrix[order[n - 1 - j] * n + order[n - 1 - i]]);
        let inverse = inverse_factor(&backward);
        // A covariance that is singular in spite of the damping says nothing about spreading errors.
        let inverse = inverse.unwrap_or_else(|| DMatrix::identity(n, n));
        let spread = (0..n * n).map(|at| inverse[(n - 1 - at / n, n - 1 - at % n)] as f32).collect();
        Self { order: order.into_iter().map(|i| i + range.start).collect(), matrix: flat, spread }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    /// Rounds one weight after the other, each row on its grid; rows and results are in this block's order.
    fn spread_errors(&self, rows: &[(&[f32], Grid)]) -> Vec<Vec<i8>> {
        let n = self.len();
        let mut rests: Vec<(Vec<f32>, Vec<i8>)> = rows.iter().map(|(row, _)| (row.to_vec(), vec![])).collect();
        for first in (0..n).step_by(SIDE) {
            let end = (first + SIDE).min(n);
            let spread = &self.spread[first * n..end * n];
            for ((rest, rounded), (_, grid)) in rests.iter_mut().zip(rows) {
                let errors: Vec<f32> = (first..end)
                    .map(|i| {
                        let row = &spread[(i - first) * n..][..end];
                        let q = grid.nearest(rest[i]);
                        let error = (rest[i] - f32::from(q) * grid.scale) / row[i];
                        for (value, u) in rest[i + 1..end].iter_mut().zip(&row[i + 1..]) {
                            *value -= error * u;
                        }
                        rounded.push(q);
                        -error
                    })
                    .collect();
                add_rows(&mut rest[end..], spread, n, &errors);
            }
        }
        rests.into_iter().map(|(_, rounded)| rounded).collect()
    }

    /// `matrix · difference` of each.
    fn gradients(&self, differences: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let n = self.len();
        let mut gradients = vec![vec![0.0; n]; differences.len()];
        // The matrix is symmetric: rows times numbers can be added several elements at once, in the order of a dot product.
        for (first, rows) in (0..n).step_by(SIDE).zip(self.matrix.chunks(SIDE * n)) {
            for (gradient, difference) in gradients.iter_mut().zip(differences) {
                add_rows(gradient, rows, n, &difference[first..(first + SIDE).min(n)]);
            }
        }
        gradients
    }

    /// Moves single integers to their best value while that helps; the gradient is that of their differences.
    fn descend(&self, rounded: &mut [i8], mut gradient: Vec<f32>, grid: Grid) {
        const SWEEPS: usize = 8;
        let n = self.len();
        for _ in 0..SWEEPS {
            let mut moved = false;
            for i in 0..n {
                let row = &self.matrix[i * n..(i + 1) * n];
                let best = grid.nearest(f32::from(rounded[i]) * grid.scale - gradient[i] / row[i]);
                if best != rounded[i] {
                    let change = (f32::from(best) - f32::from(rounded[i])) * grid.scale;
                    rounded[i] = best;
                    moved = true;
                    gradient.iter_mut().zip(row).for_each(|(g, m)| *g += change * m);
                }
            }
            if !moved {
                return;
            }
        }
    }
}

/// Adds rows of a matrix times a factor each to sums, one row after the other; sums are of a row's last columns.
fn add_rows(sums: &mut [f32], rows: &[f32], columns: usize, factors: &[f32]) {
    let first = columns - sums.len();
    let mut rows = rows.chunks_exact(columns).map(|row| &row[first..]);
    let mut fours = factors.chunks_exact(4);
    for f in fours.by_ref() {
        // Sums stay in registers for four rows.
        let [Some(a), Some(b), Some(c), Some(d)] = [(); 4].map(|()| rows.next()) else { return };
        for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum = *sum + f[0] * a + f[1] * b + f[2] * c + f[3] * d;
        }
    }
    for (row, factor) in rows.zip(fours.remainder()) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
    }
}

/// The inverse of the lower triangle `L` with `L·Lᵀ = matrix`, by halves, so that most of it are products of matrices; `None`
/// if the matrix is not positive definite.
fn inverse_factor(matrix: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    const SMALL: usize = 48;
    let n = matrix.nrows();
    if n <= SMALL {
        return matrix.clone().cholesky()?.l().solve_lower_triangular(&DMatrix::identity(n, n));
    }
    let (top, rest) = (n / 2, n - n / 2);
    let first = inverse_factor(&matrix.view((0, 0), (top, top)).into_owned())?;
    let below = matrix.view((top, 0), (rest, top)) * first.transpose();
    let last = inverse_factor(&(matrix.view((top, top), (rest, rest)) - &below * below.transpose()))?;
    let mut inverse = DMatrix::zeros(n, n);
    inverse.view_mut((top, 0), (rest, top)).gemm(-1.0, &last, &(below * &first), 0.0);
    inverse.view_mut((0, 0), (top, top)).copy_from(&first);
    inverse.view_mut((top, top), (rest, rest)).copy_from(&last);
    Some(inverse)
}

/// Integers and their unit.
#[derive(Clone, Copy, Debug)]
struct Grid {
    scale: f32,
    least: f32,
    most: f32,
}

impl Grid {
    fn nearest(self, value: f32) -> i8 {
        (value / self.scale).round().clamp(self.least, self.most) as i8
    }
}

/// Rounded weights of one convolution.
#[derive(Clone, Debug)]
pub struct Rounded {
    /// In the order of the weights.
    pub integers: Vec<i8>,
    /// Real value of a unit, of each row.
    pub scales: Vec<f64>,
    /// Mean squared error of a result.
    pub noise: f64,
}

/// A row of weights and what it is rounded to, in the order of each block.
struct Row {
    weights: Vec<Vec<f32>>,
    floor: f64,
    integers: Vec<Vec<i8>>,
    scale: f64,
    error: f64,
}

/// Rounds every row of `weights` to integers of `bits` bits, in scales of at least `floors`.
pub fn round(weights: &[f32], covariance: &Covariance, bits: u32, floors: &[f64]) -> Rounded {
    let taps = weights.len() / floors.len().max(1);
    let rows: Vec<Row> = weights
        .par_chunks(taps * ROWS)
        .zip(floors.par_chunks(ROWS))
        .flat_map_iter(|(rows, floors)| round_rows(rows, covariance, bits, floors))
        .collect();
    let scales = rows.iter().map(|row| row.scale).collect();
    let noise = rows.iter().map(|row| row.error).sum::<f64>() / rows.len().max(1) as f64;
    let mut integers = vec![0; weights.len()];
    for (integers, row) in integers.chunks_exact_mut(taps.max(1)).zip(&rows) {
        for (block, rounded) in covariance.blocks.iter().zip(&row.integers) {
            block.order.iter().zip(rounded).for_each(|(&place, &q)| integers[place] = q);
        }
    }
    Rounded { integers, scales, noise }
}

/// Rounds rows side by side, so that what they read of the covariance is read once.
fn round_rows(weights: &[f32], covariance: &Covariance, bits: u32, floors: &[f64]) -> Vec<Row> {
    let most = f64::from((1 << (bits - 1)) - 1);
    // Eight-bit weights are symmetric; of sixteen values none is given away.
    let least = if bits == 8 { -most } else { -most - 1.0 };
    let grid = |scale: f64| Grid { scale: scale as f32, least: least as f32, most: most as f32 };
    // Coarser grids gain from clipping the largest weights.
    let (candidates, step) = if bits == 8 { (6, 0.04) } else { (14, 0.045) };
    let ordered = |row: &[f32]| -> Vec<Vec<f32>> {
        covariance.blocks.iter().map(|block| block.order.iter().map(|&i| row[i]).collect()).collect()
    };
    let taps = weights.len() / floors.len().max(1);
    let mut rows: Vec<Row> = weights
        .chunks_exact(taps)
        .zip(floors)
        .map(|(row, &floor)| {
            let peak = row.iter().fold(0f64, |peak, &w| peak.max(f64::from(w).abs()));
            let scale = (peak / most).max(floor).max(1e-30);
            Row { weights: ordered(row), floor, integers: vec![], scale, error: f64::INFINITY }
        })
        .collect();

    let scales_of = |row: &Row| {
        let (widest, floor) = (row.scale, row.floor);
        (0..candidates).map(move |i| (widest * (1.0 - step * f64::from(i))).max(floor))
    };
    let tried: Vec<(usize, f64)> =
        rows.iter().enumerate().flat_map(|(index, row)| scales_of(row).map(move |scale| (index, scale))).collect();
    let mut found: Vec<Vec<Vec<i8>>> = vec![vec![]; tried.len()];
    for (at, block) in covariance.blocks.iter().enumerate() {
        let lanes: Vec<(&[f32], Grid)> =
            tried.iter().map(|&(row, scale)| (rows[row].weights[at].as_slice(), grid(scale))).collect();
        found.iter_mut().zip(block.spread_errors(&lanes)).for_each(|(found, rounded)| found.push(rounded));
    }
    let errors = costs(covariance, &rows, &tried, &found);
    for ((&(row, scale), integers), error) in tried.iter().zip(found).zip(errors) {
        let row = &mut rows[row];
        if error < row.error || row.integers.is_empty() {
            (row.integers, row.scale, row.error) = (integers, scale, error);
        }
    }

    // Rows that still improve.
    let mut active: Vec<usize> = (0..rows.len()).collect();
    for _ in 0..4 {
        let mut next: Vec<Vec<Vec<i8>>> = active.iter().map(|&row| rows[row].integers.clone()).collect();
        let scales = best_scales(covariance, &rows, &active);
        let tried: Vec<(usize, f64)> = active
            .iter()
            .zip(scales)
            .map(|(&row, scale)| (row, scale.unwrap_or(rows[row].scale).max(rows[row].floor)))
            .collect();
        for (at, block) in covariance.blocks.iter().enumerate() {
            let gradients = block.gradients(&differences(at, &rows, &tried, &next));
            for ((gradient, &(_, scale)), integers) in gradients.into_iter().zip(&tried).zip(&mut next) {
                block.descend(&mut integers[at], gradient, grid(scale));
            }
        }
        let errors = costs(covariance, &rows, &tried, &next);
        active.clear();
        for ((&(row, scale), integers), error) in tried.iter().zip(next).zip(errors) {
            if error < rows[row].error {
                active.push(row);
                let row = &mut rows[row];
                (row.integers, row.scale, row.error) = (integers, scale, error);
            }
        }
    }
    rows
}

/// What rounding adds to the weights of a block, of rows and scales that are tried.
fn differences(at: usize, rows: &[Row], tried: &[(usize, f64)], integers: &[Vec<Vec<i8>>]) -> Vec<Vec<f32>> {
    let of = |(&(row, scale), integers): (&(usize, f64), &Vec<Vec<i8>>)| {
        let scale = scale as f32;
        integers[at].iter().zip(&rows[row].weights[at]).map(|(&q, w)| f32::from(q) * scale - w).collect()
    };
    tried.iter().zip(integers).map(of).collect()
}

/// Squared errors of the results.
fn costs(covariance: &Covariance, rows: &[Row], tried: &[(usize, f64)], integers: &[Vec<Vec<i8>>]) -> Vec<f64> {
    let mut costs = vec![0.0; tried.len()];
    for (at, block) in covariance.blocks.iter().enumerate() {
        let differences = differences(at, rows, tried, integers);
        for ((cost, gradient), difference) in costs.iter_mut().zip(block.gradients(&differences)).zip(&differences) {
            *cost += gradient.iter().zip(difference).map(|(g, d)| f64::from(g * d)).sum::<f64>();
        }
    }
    costs
}

/// The scale of least error of each row for its integers, if it is positive.
fn best_scales(covariance: &Covariance, rows: &[Row], active: &[usize]) -> Vec<Option<f64>> {
    let mut sums = vec![(0f64, 0f64); active.len()];
    for (at, block) in covariance.blocks.iter().enumerate() {
        let real = |&row: &usize| rows[row].integers[at].iter().map(|&q| f32::from(q)).collect();
        let integers: Vec<Vec<f32>> = active.iter().map(real).collect();
        let gradients = block.gradients(&integers);
        for (((above, below), &row), (gradient, integers)) in
            sums.iter_mut().zip(active).zip(gradients.iter().zip(&integers))
        {
            for (g, (&w, &q)) in gradient.iter().zip(rows[row].weights[at].iter().zip(integers)) {
                *above += f64::from(g * w);
                *below += f64::from(g * q);
            }
        }
    }
    sums.into_iter().map(|(above, below)| (below > 0.0 && above > 0.0).then(|| above / below)).collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    /// Inputs that share a part, and weights.
    fn example(taps: usize, outputs: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
        let mut random = Pcg32::seed_from_u64(7);
        let mut uniform = || random.random_range(-0.5f32..0.5);
        let rows = (0..3000)
            .map(|_| {
                let shared = uniform();
                (0..taps).map(|i| 0.3 + shared * (i % 3) as f32 + 0.4 * uniform()).collect()
            })
            .collect();
        (rows, (0..taps * outputs).map(|_| uniform()).collect())
    }

    /// Mean squared error of the results of rounded weights, corrected by `bias`.
    fn error(rows: &[Vec<f32>], weights: &[f32], rounded: &[f64], bias: &[f64]) -> f64 {
        let taps = rows[0].len();
        let of = |row: &Vec<f32>, o: usize| -> f64 {
            let differences =
                (0..taps).map(|i| (rounded[o * taps + i] - f64::from(weights[o * taps + i])) * f64::from(row[i]));
            (differences.sum::<f64>() + bias[o]).powi(2)
        };
        rows.iter().map(|row| (0..bias.len()).map(|o| of(row, o)).sum::<f64>()).sum::<f64>() / rows.len() as f64
    }

    #[test]
    fn results_change_less_than_by_nearest_rounding() {
        let (taps, outputs) = (36, 5);
        let (rows, weights) = example(taps, outputs);
        let mut moments = Moments::new(taps);
        rows.iter().for_each(|row| moments.observe(row.iter().copied()));
        let (means, covariance) = moments.finish();
        let Rounded { integers, scales, noise } = round(&weights, &covariance, 4, &vec![0.0; outputs]);
        assert!(integers.iter().all(|q| (-8..=7).contains(q)));
        let values: Vec<f64> = integers.iter().enumerate().map(|(i, &q)| f64::from(q) * scales[i / taps]).collect();
        let bias: Vec<f64> = (0..outputs)
            .map(|o| (0..taps).map(|i| (f64::from(weights[o * taps + i]) - values[o * taps + i]) * means[i]).sum())
            .collect();
        let nearest: Vec<f64> = weights
            .chunks_exact(taps)
            .flat_map(|row| {
                let scale = row.iter().fold(0f64, |peak, &w| peak.max(f64::from(w).abs())) / 7.0;
                row.iter().map(move |&w| (f64::from(w) / scale).round() * scale)
            })
            .collect();
        let (ours, theirs) =
            (error(&rows, &weights, &values, &bias), error(&rows, &weights, &nearest, &vec![0.0; outputs]));
        assert!(ours * 5.0 < theirs, "{ours} against {theirs}");
        // What is announced contains the damping.
        let announced = noise * outputs as f64;
        assert!((1.0..1.3).contains(&(announced / ours)), "{announced} announced, {ours} found");
    }

    #[test]
    fn weights_on_the_grid_stay_and_floors_hold() {
        let (rows, _) = example(12, 1);
        let mut moments = Moments::new(12);
        rows.iter().for_each(|row| moments.observe(row.iter().copied()));
        let (_, covariance) = moments.finish();
        let weights: Vec<f32> = (0..12).map(|i| (i - 6) as f32 * 0.25).collect();
        let Rounded { integers, scales, .. } = round(&weights, &covariance, 8, &[0.25]);
        assert_eq!(scales, [0.25]);
        assert_eq!(integers, (-6..6).collect::<Vec<i8>>());
    }

    /// It brings the matrix to the identity, and has nothing above the diagonal.
    #[test]
    fn factors_are_inverted_by_halves() {
        for n in [1, 48, 49, 131] {
            let mut random = Pcg32::seed_from_u64(n as u64);
            let root = DMatrix::<f64>::from_fn(n, n, |_, _| random.random_range(-1.0..1.0));
            let matrix = &root * root.transpose() + DMatrix::identity(n, n);
            let inverse = inverse_factor(&matrix).expect("it is positive definite");
            assert!(inverse.upper_triangle().iter().filter(|x| **x != 0.0).count() <= n);
            assert!((&inverse * matrix * inverse.transpose() - DMatrix::identity(n, n)).amax() < 1e-9);
            assert!(inverse_factor(&-(&root * root.transpose())).is_none());
        }
    }
}
