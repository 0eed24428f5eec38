//! What pictures are compared by: the features of a small classifier that comes with a model, or plain pixels.

use std::path::Path;

use rayon::prelude::*;

use super::metrics::Features;
use crate::tensors::{self, Tensors, TensorsError};

/// A classifier as `models/judge.py` trains and writes it.
#[derive(Debug)]
pub struct Judge {
    convolutions: Vec<Layer>,
    features: Layer,
    logits: Layer,
    /// Features of the training data.
    pub real: Features,
}

#[derive(Debug)]
struct Layer {
    outputs: usize,
    inputs: usize,
    /// (outputs, inputs, 3, 3), or (outputs, inputs).
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn read(file: &Tensors, name: &str, taps: usize) -> Result<Self, TensorsError> {
        let (shape, weight) = file.floats(&format!("{name}.weight"))?;
        let (bias_shape, bias) = file.floats(&format!("{name}.bias"))?;
        let fits = match (shape.as_slice(), taps) {
            (&[outputs, _, 3, 3], 9) | (&[outputs, _], 1) => bias_shape == [outputs],
            _ => false,
        };
        let expected =
            if taps == 9 { "weight (out, in, 3, 3) and bias (out)" } else { "weight (out, in) and bias (out)" };
        match shape.as_slice() {
            &[outputs, inputs, ..] if fits && outputs > 0 && inputs > 0 => Ok(Self { outputs, inputs, weight, bias }),
            _ => Err(file.wrong_shape(name, &shape, expected)),
        }
    }

    fn linear(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.inputs).zip(&self.bias);
        rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias).collect()
    }

    /// 3×3, padding 1, then ReLU; (channel, row, column) order. Returns the result and its sides.
    fn convolve(&self, x: &[f32], [rows, columns]: [usize; 2], stride: usize) -> (Vec<f32>, [usize; 2]) {
        let sides = [rows.div_ceil(stride), columns.div_ceil(stride)];
        let area = sides[0] * sides[1];
        let mut result = vec![0f32; self.outputs * area];
        for (output, plane) in result.chunks_exact_mut(area).enumerate() {
            plane.fill(self.bias[output]);
            for input in 0..self.inputs {
                let source = &x[input * rows * columns..(input + 1) * rows * columns];
                let kernel = &self.weight[(output * self.inputs + input) * 9..][..9];
                for (at, sum) in plane.iter_mut().enumerate() {
                    let (y, x) = (at / sides[1] * stride, at % sides[1] * stride);
                    for (tap, weight) in kernel.iter().enumerate() {
                        // One less for the padding.
                        let (row, column) = (y + tap / 3, x + tap % 3);
                        if (1..=rows).contains(&row) && (1..=columns).contains(&column) {
                            *sum += weight * source[(row - 1) * columns + column - 1];
                        }
                    }
                }
            }
            plane.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        (result, sides)
    }
}

impl Judge {
    /// Reads `judge.safetensors`, for pictures of the given shape.
    ///
    /// # Errors
    /// If it cannot be read, or its layers do not fit one another or the pictures.
    pub fn read(path: &Path, [rows, columns, channels]: [usize; 3]) -> Result<Self, TensorsError> {
        let file = tensors::read(path)?;
        let mut convolutions = vec![];
        let (mut sides, mut inputs) = ([rows, columns], channels);
        while file.has(&format!("conv.{}.weight", convolutions.len())) {
            let name = format!("conv.{}", convolutions.len());
            let layer = Layer::read(&file, &name, 9)?;
            if layer.inputs != inputs {
                return Err(file.wrong_shape(
                    &name,
                    &[layer.outputs, layer.inputs, 3, 3],
                    "inputs of the layer before",
                ));
            }
            if !convolutions.is_empty() {
                sides = sides.map(|side| side.div_ceil(2));
            }
            inputs = layer.outputs;
            convolutions.push(layer);
        }
        let features = Layer::read(&file, "features", 1)?;
        let logits = Layer::read(&file, "logits", 1)?;
        let (real_shape, real) = file.floats("real.features")?;
        for (name, layer, expected) in
            [("features", &features, inputs * sides[0] * sides[1]), ("logits", &logits, features.outputs)]
        {
            if layer.inputs != expected {
                return Err(file.wrong_shape(name, &[layer.outputs, layer.inputs], "inputs of the layer before"));
            }
        }
        if real_shape.len() != 2 || real_shape[1] != features.outputs || real_shape[0] < 8 {
            return Err(file.wrong_shape("real.features", &real_shape, "(8 or more, features)"));
        }
        let real = Features { dim: features.outputs, values: real.into_iter().map(f64::from).collect() };
        Ok(Self { convolutions, features, logits, real })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.logits.outputs
    }

    /// Features and logits of one picture: bytes in (row, column, channel) order.
    pub fn judge(&self, picture: &[u8], [rows, columns, channels]: [usize; 3]) -> (Vec<f32>, Vec<f32>) {
        let reals: Vec<f32> = picture.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        let mut x = tensors::to_chw(&reals, [rows, columns, channels]);
        let mut sides = [rows, columns];
        for (index, layer) in self.convolutions.iter().enumerate() {
            (x, sides) = layer.convolve(&x, sides, if index == 0 { 1 } else { 2 });
        }
        let features: Vec<f32> = self.features.linear(&x).into_iter().map(|value| value.max(0.0)).collect();
        let logits = self.logits.linear(&features);
        (features, logits)
    }

    /// Features and class probabilities of many pictures.
    pub fn judge_all(&self, pictures: &[&[u8]], shape: [usize; 3]) -> (Features, Vec<Vec<f64>>) {
        let judged: Vec<(Vec<f32>, Vec<f32>)> = pictures.par_iter().map(|picture| self.judge(picture, shape)).collect();
        let values = judged.iter().flat_map(|(features, _)| features.iter().map(|&v| f64::from(v))).collect();
        let probabilities = judged.iter().map(|(_, logits)| softmax(logits)).collect();
        (Features { dim: self.features.outputs, values }, probabilities)
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, &v| largest.max(v.into()));
    let powers: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// Largest side of the pixel features.
const PIXELS: usize = 8;

/// Pixels as features, for models without a judge: means over a grid of at most 8×8 cells, in [−1, 1].
pub fn pixel_features(pictures: &[&[u8]], [rows, columns, channels]: [usize; 3]) -> Features {
    let (height, width) = (rows.min(PIXELS), columns.min(PIXELS));
    let one = |picture: &&[u8]| -> Vec<f64> {
        let (mut sums, mut counts) = (vec![0f64; height * width * channels], vec![0u32; height * width * channels]);
        for (at, &byte) in picture.iter().enumerate() {
            let (pixel, channel) = (at / channels, at % channels);
            let (y, x) = (pixel / columns * height / rows, pixel % columns * width / columns);
            let cell = (y * width + x) * channels + channel;
            sums[cell] += f64::from(byte) / 127.5 - 1.0;
            counts[cell] += 1;
        }
        sums.into_iter().zip(counts).map(|(sum, count)| sum / f64::from(count.max(1))).collect()
    };
    Features { dim: height * width * channels, values: pictures.par_iter().flat_map_iter(one).collect() }
}
