//! The input of a convolution as its kernel sees it: behind the normalization's map and the activation.

use crate::graph::{Activation, activate};
use crate::network::{Conv2d, Network};
use crate::quantize::extremes;

/// How far from an activation's least value one of two neighbouring numbers may be that are told apart by their images
/// with certainty.
const TURN_WIDTH: f32 = 1.0 / 64.0;

/// The gathered input. Activations are computed where they are asked for: most values are only compared with others.
pub(super) struct Gathered<'a> {
    network: &'a Network,
    conv: &'a Conv2d,
    /// Before the activation, row-major (pixels, channels).
    values: Vec<f32>,
    activation: Option<Activation>,
}

impl<'a> Gathered<'a> {
    /// The sources of `conv` with the map of their normalization applied.
    pub(super) fn new(network: &'a Network, conv: &'a Conv2d, sources: &[Vec<f32>], map: Option<&[f32]>) -> Self {
        let inputs = conv.conv.inputs;
        let mut values = vec![0f32; network.tensors[conv.sources[0]].shape.pixels() * inputs];
        let mut first = 0;
        for (&source, from) in conv.sources.iter().zip(sources) {
            let channels = network.tensors[source].shape.c;
            let map = map.map(|map| map[2 * first..2 * (first + channels)].as_chunks::<2>().0);
            for (pixel, from) in values.chunks_exact_mut(inputs).zip(from.chunks_exact(channels)) {
                let pixel = pixel[first..].iter_mut().zip(from);
                match map {
                    None => pixel.for_each(|(to, x)| *to = conv.input_affine.0 * x + conv.input_affine.1),
                    Some(map) => pixel.zip(map).for_each(|((to, x), [factor, summand])| *to = x * factor + summand),
                }
            }
            first += channels;
        }
        Self { network, conv, values, activation: conv.activation.filter(|_| map.is_some()) }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// One of them.
    pub(super) fn value(&self, index: usize) -> f32 {
        activated(self.activation, self.values[index])
    }

    /// The smallest and the largest.
    pub(super) fn extremes(&self) -> [f32; 2] {
        match self.activation {
            Some(activation) => activated_extremes(activation, &self.values),
            None => extremes(&self.values),
        }
    }

    /// The values under the kernel at an output pixel, in the order of the weights.
    pub(super) fn patch(&self, [y, x]: [usize; 2]) -> Vec<f32> {
        let conv = &self.conv.conv;
        let shape = self.network.tensors[self.conv.sources[0]].shape;
        let doubling = usize::from(self.conv.upsample);
        // The source's index along one side; `None` for padding.
        let place = |at: usize, tap: usize, padding: usize, size: usize| {
            let at = (at * conv.stride + tap).checked_sub(padding)? >> doubling;
            (at < size).then_some(at)
        };
        let mut values = vec![0.0; conv.kernel[0] * conv.kernel[1] * conv.inputs];
        for (tap, values) in values.chunks_exact_mut(conv.inputs).enumerate() {
            let (row, column) = (tap / conv.kernel[1], tap % conv.kernel[1]);
            let row = place(y, row, conv.padding[0], shape.h);
            let column = place(x, column, conv.padding[1], shape.w);
            if let (Some(row), Some(column)) = (row, column) {
                let at = (row * shape.w + column) * conv.inputs;
                values.iter_mut().enumerate().for_each(|(channel, to)| *to = self.value(at + channel));
            }
        }
        values
    }
}

fn activated(activation: Option<Activation>, value: f32) -> f32 {
    activation.map_or(value, |activation| activate(activation, f64::from(value)) as f32)
}

/// Where an activation is least: it falls before and rises behind.
fn turn(activation: Activation) -> f32 {
    match activation {
        Activation::Silu => -1.278_464_5,
        Activation::Relu => 0.0,
        Activation::Gelu => -0.751_791_5,
        Activation::Mish => -1.192_431_2,
    }
}

/// The smallest and the largest of activated values. An activation falls and then rises, so that only the values at both
/// ends and those nearest to its turn need it.
fn activated_extremes(activation: Activation, values: &[f32]) -> [f32; 2] {
    let [least, most] = extremes(values);
    let image = |value: f32| activated(Some(activation), value);
    if !least.is_finite() || !most.is_finite() {
        return extremes(&values.iter().map(|&value| image(value)).collect::<Vec<_>>());
    }
    let (low, high) = (turn(activation) - TURN_WIDTH, turn(activation) + TURN_WIDTH);
    const TOGETHER: usize = 16;
    let (mut below, mut above) = ([least; TOGETHER], [most; TOGETHER]);
    let mut near = vec![];
    for chunk in values.chunks(TOGETHER) {
        let mut is_near = false;
        for ((&value, below), above) in chunk.iter().zip(&mut below).zip(&mut above) {
            *below = if value < low && value > *below { value } else { *below };
            *above = if value > high && value < *above { value } else { *above };
            is_near |= value >= low && value <= high;
        }
        if is_near {
            near.extend(chunk.iter().filter(|value| (low..=high).contains(value)).map(|&value| image(value)));
        }
    }
    near.extend([least, most].iter().chain(&below).chain(&above).map(|&value| image(value)));
    extremes(&near)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    /// As if every value were activated.
    #[test]
    fn few_values_tell_the_extremes_of_all() {
        let mut random = Pcg32::seed_from_u64(3);
        for activation in [Activation::Silu, Activation::Relu, Activation::Gelu, Activation::Mish] {
            for (low, high) in [(-30.0, -3.0), (-3.0, 3.0), (-1.4, -0.6), (0.5, 8.0), (-0.01, 0.01), (-1e30, 1e30)] {
                for count in [1, 2, 9, 4000] {
                    let values: Vec<f32> = (0..count).map(|_| random.random_range(low..high)).collect();
                    let all: Vec<f32> = values.iter().map(|&value| activated(Some(activation), value)).collect();
                    let ends = all.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[a, b], &x| [a.min(x), b.max(x)]);
                    assert_eq!(activated_extremes(activation, &values), ends, "{activation:?} from {low} to {high}");
                }
            }
        }
    }

    /// Neighbouring numbers outside of the turn are told apart in the right direction.
    #[test]
    fn activations_fall_and_then_rise() {
        for activation in [Activation::Silu, Activation::Relu, Activation::Gelu, Activation::Mish] {
            for start in [turn(activation) + TURN_WIDTH, -0.1, 0.0, 0.3, 1.0, 7.0, 40.0, 1e6] {
                let mut value = start.max(turn(activation) + TURN_WIDTH);
                for _ in 0..1000 {
                    let next = value.next_up();
                    assert!(activated(Some(activation), value) <= activated(Some(activation), next), "{value}");
                    value = next;
                }
            }
            for start in [turn(activation) - TURN_WIDTH, -2.0, -5.0, -20.0, -100.0] {
                let mut value = start.min(turn(activation) - TURN_WIDTH);
                for _ in 0..1000 {
                    let next = value.next_down();
                    assert!(activated(Some(activation), value) <= activated(Some(activation), next), "{value}");
                    value = next;
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_left_to_the_activation() {
        let values = [f32::NEG_INFINITY, -2.0, f32::NAN, 1.0];
        let [least, most] = activated_extremes(Activation::Silu, &values);
        assert_eq!([least, most], [-2.0, 1.0].map(|value| activated(Some(Activation::Silu), value)));
    }
}
