//! Halving and doubling of maps: diffusers' `Downsample2D` and `Upsample2D`.
//!
//! Resampling without weights folds into the convolution that reads it: nearest upsampling into what that gathers, the
//! mean of 2×2 pixels into its weights. A filter that reaches over neighbouring pixels (Karras et al., 2019, arXiv:1812.04948)
//! does so with a pointwise convolution only: others pad its result with zeros, which it does not have there. Before these it is a
//! convolution that keeps each channel.

use super::ImportError;
use super::builder::{Builder, Window};
use crate::graph::{Conv2d, Op, TensorId};

/// The filter of halving.
const FIR: [f32; 4] = [0.125, 0.375, 0.375, 0.125];

/// Resampling without weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resample {
    /// The mean of 2×2 pixels; for maps of even size.
    Mean,
    /// Nearest-neighbour doubling.
    Nearest,
    /// Every second result of the filter (1, 3, 3, 1)/8 in both directions; for maps of even size.
    FirHalf,
    /// Doubling by the filter (1, 3, 3, 1)/4 over pixels with zeros between them: (1, 2, 1)/4 over nearest neighbours.
    FirDouble,
}

impl Builder<'_> {
    /// A convolution of stride 2. Without padding diffusers pads right and bottom by one.
    pub(super) fn downsample(&mut self, name: &str, x: TensorId, padding: usize) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let window = Window { kernel: 3, stride: 2, padding: [padding, padding, 1, 1] };
        self.conv(&format!("{name}.conv"), x, width, window)
    }

    /// Nearest-neighbour doubling and a convolution.
    pub(super) fn upsample(&mut self, name: &str, x: TensorId) -> Result<TensorId, ImportError> {
        let width = self.graph.shape(x).c;
        let x = self.graph.node(name, Op::Upsample, &[x]);
        self.conv(&format!("{name}.conv"), x, width, Window::SAME)
    }

    /// Resampling as a convolution that keeps each channel.
    pub(super) fn resampled(&mut self, name: &str, x: TensorId, resample: Resample) -> TensorId {
        let channels = self.graph.shape(x).c;
        let mut weight = vec![0.0; channels * channels];
        weight.iter_mut().step_by(channels + 1).for_each(|w| *w = 1.0);
        let bias = vec![0.0; channels];
        let identity =
            Conv2d { kernel: [1; 2], stride: 1, padding: [0; 4], inputs: channels, outputs: channels, weight, bias };
        self.resampled_conv(name, x, resample, identity)
    }

    /// A convolution whose result is halved, where that is not cut off at the map's edges.
    pub(super) fn filtered_conv(&mut self, name: &str, x: TensorId, halving: Resample, conv: &Conv2d) -> TensorId {
        let taps: &[f32] = if halving == Resample::FirHalf { &FIR } else { &[0.5; 2] };
        self.graph.node(name, Op::Conv2d(filtered(conv, taps)), &[x])
    }

    /// A convolution of stride 1 over the resampled input.
    pub(super) fn resampled_conv(&mut self, name: &str, x: TensorId, resample: Resample, conv: Conv2d) -> TensorId {
        match resample {
            Resample::Mean => self.graph.node(name, Op::Conv2d(over_means(&conv)), &[x]),
            Resample::Nearest => {
                let x = self.graph.node(format!("{name} (upsample)"), Op::Upsample, &[x]);
                self.graph.node(name, Op::Conv2d(conv), &[x])
            }
            Resample::FirHalf | Resample::FirDouble if conv.kernel != [1; 2] => {
                let x = self.resampled(&format!("{name} (filter)"), x, resample);
                self.graph.node(name, Op::Conv2d(conv), &[x])
            }
            Resample::FirHalf => self.graph.node(name, Op::Conv2d(over_filter(&conv, &FIR, 2)), &[x]),
            Resample::FirDouble => {
                let x = self.graph.node(format!("{name} (upsample)"), Op::Upsample, &[x]);
                self.graph.node(name, Op::Conv2d(over_filter(&conv, &[0.25, 0.5, 0.25], 1)), &[x])
            }
        }
    }
}

/// The convolution that computes from a map what halving it computes of the result of `conv` of stride 1, where that is not cut off
/// at the map's edges: a tap of one behind each of the other's.
fn filtered(conv: &Conv2d, taps: &[f32]) -> Conv2d {
    let (kernel, inputs) = (conv.kernel.map(|size| size + taps.len() - 1), conv.inputs);
    let mut weight = vec![0.0; conv.outputs * kernel[0] * kernel[1] * inputs];
    let area = conv.kernel[0] * conv.kernel[1];
    for (number, tap) in conv.weight.chunks_exact(inputs).enumerate() {
        let (output, row, column) = (number / area, number % area / conv.kernel[1], number % conv.kernel[1]);
        for (down, a) in taps.iter().enumerate() {
            for (right, b) in taps.iter().enumerate() {
                let at = ((output * kernel[0] + row + down) * kernel[1] + column + right) * inputs;
                weight[at..at + inputs].iter_mut().zip(tap).for_each(|(sum, w)| *sum += w * a * b);
            }
        }
    }
    let padding = conv.padding.map(|padding| padding + (taps.len() - 1) / 2);
    Conv2d { kernel, stride: 2, padding, weight, bias: conv.bias.clone(), ..*conv }
}

/// The convolution that computes from a map what a pointwise `conv` computes from every `stride`-th result of a filter of these
/// taps in both directions, over a border of one zero.
fn over_filter(conv: &Conv2d, taps: &[f32], stride: usize) -> Conv2d {
    let mut weight = Vec::with_capacity(taps.len() * taps.len() * conv.weight.len());
    for channel in conv.weight.chunks_exact(conv.inputs) {
        for row in taps {
            for column in taps {
                weight.extend(channel.iter().map(|w| w * row * column));
            }
        }
    }
    Conv2d { kernel: [taps.len(); 2], stride, padding: [1; 4], weight, bias: conv.bias.clone(), ..*conv }
}

/// The convolution that computes from a map what `conv` of stride 1 computes from its means of 2×2 pixels: each tap
/// becomes four of a quarter of its weight.
fn over_means(conv: &Conv2d) -> Conv2d {
    let [rows, columns] = conv.kernel;
    let mut weight = Vec::with_capacity(4 * conv.weight.len());
    for output in 0..conv.outputs {
        for row in 0..2 * rows {
            for column in 0..2 * columns {
                let tap = (output * rows + row / 2) * columns + column / 2;
                weight.extend(conv.weight[tap * conv.inputs..][..conv.inputs].iter().map(|w| w / 4.0));
            }
        }
    }
    Conv2d {
        kernel: [2 * rows, 2 * columns],
        stride: 2 * conv.stride,
        padding: conv.padding.map(|padding| 2 * padding),
        weight,
        bias: conv.bias.clone(),
        ..*conv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One output channel of a convolution of zero padding, by its definition; maps are square, of one channel.
    fn apply(conv: &Conv2d, map: &[f64], size: usize) -> Vec<f64> {
        let (kernel, padding) = (conv.kernel[0], conv.padding[0] as isize);
        let outputs = (size + 2 * conv.padding[0] - kernel) / conv.stride + 1;
        let at = |row: isize, column: isize| {
            let inside = |at: isize| (0..size as isize).contains(&at);
            if inside(row) && inside(column) { map[row as usize * size + column as usize] } else { 0.0 }
        };
        let mut found = vec![];
        for y in 0..outputs * outputs {
            let (row, column) = ((y / outputs * conv.stride) as isize, (y % outputs * conv.stride) as isize);
            let taps = (0..kernel * kernel).map(|tap| {
                let (r, c) = ((tap / kernel) as isize, (tap % kernel) as isize);
                f64::from(conv.weight[tap]) * at(row + r - padding, column + c - padding)
            });
            found.push(taps.sum::<f64>() + f64::from(conv.bias[0]));
        }
        found
    }

    #[test]
    fn a_convolution_over_means_is_one_of_twice_the_kernel() {
        let weight = (0..9).map(|tap| (tap * tap % 7) as f32 - 2.5).collect();
        let conv =
            Conv2d { kernel: [3; 2], stride: 1, padding: [1; 4], inputs: 1, outputs: 1, weight, bias: vec![0.5] };
        let map: Vec<f64> = (0..64).map(|at| f64::from(at * 37 % 29) - 11.0).collect();
        let mean =
            |y: usize, x: usize| [0, 1, 8, 9].iter().map(|offset| map[2 * y * 8 + 2 * x + offset]).sum::<f64>() / 4.0;
        let means: Vec<f64> = (0..16).map(|at| mean(at / 4, at % 4)).collect();
        let (found, expected) = (apply(&over_means(&conv), &map, 8), apply(&conv, &means, 4));
        assert_eq!(found.len(), 16);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} but {expected}");
        }
    }

    fn square(kernel: usize, stride: usize, padding: usize, weight: Vec<f32>) -> Conv2d {
        Conv2d { kernel: [kernel; 2], stride, padding: [padding; 4], inputs: 1, outputs: 1, weight, bias: vec![0.0] }
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let far = found.iter().zip(expected).find(|(found, expected)| (*found - *expected).abs() > 1e-5);
        assert_eq!(far, None);
    }

    /// The filter's definition: zeros between the pixels, two before and one behind, and every tap times the gain of 4.
    #[test]
    fn doubling_by_a_filter_is_a_filter_over_nearest_neighbours() {
        let map: Vec<f64> = (0..16).map(|at| f64::from(at * 37 % 29) - 11.0).collect();
        let (mut zeros, mut nearest) = (vec![0.0; 11 * 11], vec![0.0; 64]);
        for (at, pixel) in nearest.iter_mut().enumerate() {
            let (y, x) = (at / 8, at % 8);
            *pixel = map[y / 2 * 4 + x / 2];
            if y % 2 == 0 && x % 2 == 0 {
                zeros[(y + 2) * 11 + x + 2] = *pixel;
            }
        }
        let taps: Vec<f32> = FIR.iter().flat_map(|a| FIR.iter().map(move |b| 4.0 * a * b)).collect();
        let expected = apply(&square(4, 1, 0, taps), &zeros, 11);
        let identity = square(1, 1, 0, vec![1.0]);
        close(&apply(&over_filter(&identity, &[0.25, 0.5, 0.25], 1), &nearest, 8), &expected);
    }

    #[test]
    fn a_filter_behind_a_convolution_is_a_larger_one() {
        let weight: Vec<f32> = (0..9).map(|tap| (tap * tap % 7) as f32 - 2.5).collect();
        let map: Vec<f64> = (0..64).map(|at| f64::from(at * 37 % 29) - 11.0).collect();
        for (taps, border) in [(&FIR[..], 1), (&[0.5; 2][..], 0)] {
            // Its result a border wider than the map, of which the filter takes every second place.
            let wide = apply(&square(3, 1, 1 + border, weight.clone()), &map, 8);
            let filter = taps.iter().flat_map(|a| taps.iter().map(move |b| a * b)).collect();
            let expected = apply(&square(taps.len(), 2, 0, filter), &wide, 8 + 2 * border);
            close(&apply(&filtered(&square(3, 1, 1, weight.clone()), taps), &map, 8), &expected);
        }
    }
}
