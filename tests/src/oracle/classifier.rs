//! What a classifier and its backward pass are made of besides convolutions, in real numbers.

use waft::format::{Activation, Pass};
use waft_host::network::{Classifier, TensorId};

use super::activated;

/// The class that operations are run with.
pub const CLASS: usize = 1;

/// The result of an operation, for [`CLASS`].
pub(super) fn real_result(op: &Classifier, read: &dyn Fn(TensorId) -> Vec<f64>) -> Option<Vec<f64>> {
    let silu = |z: f64| activated(Activation::Silu, z);
    // The derivative by a difference quotient.
    let slope = |z: f64| (silu(z + 1e-5) - silu(z - 1e-5)) / 2e-5;
    let values = read(op.source);
    match op.pass {
        Pass::Forward => Some(values.into_iter().map(silu).collect()),
        Pass::Backward => {
            let gradients = read(op.gradient?);
            Some(gradients.into_iter().zip(values).map(|(gradient, z)| gradient * slope(z)).collect())
        }
        // The schedules have its factors.
        Pass::BackwardScaled => None,
        Pass::Loss => {
            let total: f64 = values.iter().map(|z| z.exp()).sum();
            let of = |(class, z): (usize, f64)| f64::from(u8::from(class == CLASS)) - z.exp() / total;
            Some(values.into_iter().enumerate().map(of).collect())
        }
    }
}
