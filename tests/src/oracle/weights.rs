//! The weights of convolutions by tiles.

use waft::Model;
use waft::format::{Conv2d, WeightLayout};

/// A weight of transformed ones, by differences of `G g Gᵀ` of Lavin and Gray, whose first rows are the first weight, the sum of
/// all and their alternating sum, and whose last row is the last weight.
pub(super) fn transformed_weight(model: &Model<'_>, op: &Conv2d, inputs: usize, output: usize, tap: usize) -> i64 {
    let side = if op.layout() == WeightLayout::Tiles4 { 6 } else { 4 };
    let number = |y: usize, x: usize| {
        let group = ((output / 2 * side * side + y * side + x) * inputs + tap % inputs / 4 * 4) * 2 + output % 2 * 4;
        let at = op.weights as usize + 2 * (group + [0, 2, 1, 3][tap % inputs % 4]);
        i64::from(i16::from_le_bytes(*model.bytes()[at..].first_chunk().expect("inside")))
    };
    let row = |x: usize| match tap / inputs / 3 {
        0 => number(0, x),
        1 => (number(1, x) - number(2, x)) / 2,
        _ => number(side - 1, x),
    };
    match tap / inputs % 3 {
        0 => row(0),
        1 => (row(1) - row(2)) / 2,
        _ => row(side - 1),
    }
}
