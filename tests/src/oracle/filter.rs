//! Resampling along rows: diffusers' definition, which pads by reflection and convolves, or convolves transposed.

use waft::Model;
use waft::format::{self, Element, Resampling};
use waft_host::network::{Filter, Network, TensorId};

/// The filter of halving times 256.
const TAPS: [i64; 8] = [-3, -9, 29, 111, 111, 29, -9, -3];

/// What a row of one channel becomes, times 256 if it is halved and times 128 if it is doubled.
fn resampled<T: Copy + std::ops::Mul<i64, Output = T> + std::iter::Sum + Default + std::ops::AddAssign>(
    row: &[T],
    resampling: Resampling,
) -> Vec<T> {
    let pad = if resampling == Resampling::Halve { 3 } else { 2 };
    let before = (1..=pad).rev().map(|at| row[at]);
    let behind = (1..=pad).map(|at| row[row.len() - 1 - at]);
    let padded: Vec<T> = before.chain(row.iter().copied()).chain(behind).collect();
    match resampling {
        Resampling::Halve => {
            let places = (0..row.len() / 2).map(|at| &padded[2 * at..]);
            places.map(|from| from.iter().zip(TAPS).map(|(&x, tap)| x * tap).sum()).collect()
        }
        Resampling::Double => {
            // A transposed convolution of stride 2: each element adds the filter to eight results; 7 of each end are cut off.
            let mut results = vec![T::default(); 2 * padded.len() + 6];
            for (at, &x) in padded.iter().enumerate() {
                results[2 * at..].iter_mut().zip(TAPS).for_each(|(sum, tap)| *sum += x * tap);
            }
            results[7..7 + 2 * row.len()].to_vec()
        }
    }
}

/// The same of a whole map of so many columns and channels.
fn map<T: Copy + std::ops::Mul<i64, Output = T> + std::iter::Sum + Default + std::ops::AddAssign>(
    values: &[T],
    [columns, channels]: [usize; 2],
    resampling: Resampling,
) -> Vec<T> {
    let mut found = vec![];
    for row in values.chunks_exact(columns * channels) {
        let channel = |channel: usize| row.iter().skip(channel).step_by(channels).copied().collect::<Vec<T>>();
        let all: Vec<Vec<T>> = (0..channels).map(|c| resampled(&channel(c), resampling)).collect();
        found.extend((0..all[0].len()).flat_map(|column| all.iter().map(move |row| row[column])));
    }
    found
}

/// A real number that is multiplied by taps.
#[derive(Clone, Copy, Default)]
struct Real(f64);

impl std::ops::Mul<i64> for Real {
    type Output = Self;

    fn mul(self, tap: i64) -> Self {
        Self(self.0 * tap as f64)
    }
}

impl std::ops::AddAssign for Real {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::iter::Sum for Real {
    fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
        Self(values.map(|value| value.0).sum())
    }
}

/// The result in real numbers.
pub(super) fn real_result(network: &Network, op: &Filter, read: &dyn Fn(TensorId) -> Vec<f64>) -> Vec<f64> {
    let shape = network.tensors[op.source].shape;
    let divisor = if op.resampling == Resampling::Halve { 256.0 } else { 128.0 };
    let values: Vec<Real> = read(op.source).into_iter().map(Real).collect();
    map(&values, [shape.w, shape.c], op.resampling).into_iter().map(|value| value.0 / divisor).collect()
}

/// The integers that a filter of an `i8` model writes.
///
/// # Panics
/// If the record does not fit the model.
pub fn of_integers(model: &Model<'_>, op: &format::Filter, read: &dyn Fn(u16) -> Vec<i64>) -> Vec<i64> {
    let (source, output) = (model.tensor(op.source).expect("exists"), model.tensor(op.output).expect("exists"));
    let values: Vec<i64> = read(op.source).into_iter().map(|value| value - i64::from(op.zero)).collect();
    let sums = map(&values, [source.columns.into(), source.channels.into()], op.resampling());
    let (least, most) = if output.element() == Element::I8 { (-128, 127) } else { (-32_768, 32_767) };
    let result = |sum| super::requantize(sum, op.multiplier, op.shift) + i64::from(op.output_zero);
    sums.into_iter().map(|sum| result(sum).clamp(least, most)).collect()
}
