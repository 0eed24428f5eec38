//! The integers of convolutions.

use rayon::prelude::*;
use typed_index_collections::{TiSlice, TiVec};
use waft::format::{StepScales, WeightLayout};

use super::{Emitter, Quantization, activation_multiplier};
use crate::emit::conditioning_peak;
use crate::network::{Conv2d, Op, OpId};
use crate::patches;
use crate::progress::Progress;
use crate::quantize::{self, Scale};
use crate::recipe::{Recipe, Rounding};
use crate::rounding::{self, Moments, Rounded};
use crate::widths::WeightWidth;

/// A convolution's integers.
#[derive(Clone, Debug)]
pub struct QuantizedConv {
    /// Of the weights.
    pub width: WeightWidth,
    pub(super) ring: Scale,
    pub(super) weights: Vec<i8>,
    /// Real value of one accumulator unit per output channel.
    pub(super) units: Vec<f64>,
    /// What to subtract from the bias of each output channel: the ring's zero times the sum of weights unless steps have
    /// scales of their own, and the mean error of the rounded weights.
    pub(super) corrections: Vec<i64>,
    /// Scales of the ring in each list and step, if they have their own.
    pub(super) step_rings: Option<Vec<Vec<Scale>>>,
    /// Mean squared error of a result that rounding the weights causes; 0 if it is not known.
    pub noise: f64,
}

/// The integers of every convolution, by operation.
pub type QuantizedConvs = TiVec<OpId, Option<QuantizedConv>>;

/// Rounds the weights of every convolution to the given widths.
pub fn quantize(
    from: Quantization<'_>,
    weights: &TiSlice<OpId, WeightWidth>,
    progress: &dyn Progress,
) -> QuantizedConvs {
    let emitter = Emitter::new(from);
    let network = from.source.network;
    progress.begin("rounding weights", network.ops.len() as u64);
    let quantized = network.ops.raw.par_iter().enumerate().map(|(index, (_, op))| {
        let id = OpId::from(index);
        let quantized = match op {
            Op::Conv2d(conv) => Some(emitter.quantize(id, conv, weights[id])),
            _ => None,
        };
        progress.advance(1);
        quantized
    });
    let quantized: Vec<_> = quantized.collect();
    progress.end();
    quantized.into()
}

impl QuantizedConv {
    /// How the file has the weights of `conv`, whose integers these are.
    pub(super) fn layout(&self, conv: &Conv2d) -> WeightLayout {
        match (conv.stored_tiles, conv.ring_limit) {
            (false, _) => self.width.layout(),
            (true, 0) => WeightLayout::Tiles4,
            (true, _) => WeightLayout::Tiles2,
        }
    }

    /// The scales of a step, by the number of its list and its own.
    pub(super) fn step_scales(&self, [list, step]: [usize; 2]) -> StepScales {
        let ring = self.step_rings.as_ref().map_or(self.ring, |lists| lists[list][step]);
        let (multiplier, shift) = activation_multiplier(ring);
        StepScales {
            ring_zero: ring.zero,
            multiplier,
            shift,
            rescale: quantize::multiplier(ring.scale / self.ring.scale).into(),
        }
    }
}

impl Emitter<'_> {
    /// Scale of a convolution's ring, and its weights.
    fn quantize(&self, id: OpId, conv: &Conv2d, width: WeightWidth) -> QuantizedConv {
        let gathered = &self.seen.gathered[id];
        let network = self.source.network;
        let taps = conv.conv.weight.len() / conv.conv.outputs;
        let reads_sample = conv.sources.contains(&network.sample);
        let copied = conv.norm.is_none() && conv.sources.len() == 1 && conv.input_affine == (1.0, 0.0);
        let mut ring = if self.widths.wide_ring[id] {
            // The sample may be anything that a caller starts from; others have an eighth of room.
            let peak = if reads_sample { gathered.peak().max(6.0) * 1.25 } else { gathered.peak() * 1.125 };
            Scale::symmetric(peak, 32_767.0)
        } else if copied {
            self.scales[conv.sources[0]]
        } else {
            gathered.asymmetric_i8(self.recipe.ranges)
        };

        // Every bias that the channel can get, so that none leaves half of the accumulator.
        let peaks: Vec<f64> = match &conv.projection {
            None => conv.conv.bias.iter().map(|&b| f64::from(b).abs()).collect(),
            Some((linear, _)) => {
                let peak = conditioning_peak(&self.source);
                let row = |i: usize| &linear.weight[i * linear.inputs..(i + 1) * linear.inputs];
                let reach = |i: usize| row(i).iter().map(|&w| f64::from(w).abs() * peak).sum::<f64>();
                (0..linear.outputs).map(|i| f64::from(linear.bias[i]).abs() + reach(i)).collect()
            }
        };
        let bits = width.bits();
        let floors: Vec<f64> = peaks.iter().map(|peak| peak / 2f64.powi(29) / ring.scale).collect();
        let Recipe { rounding, bias_correction, .. } = self.recipe;
        let wanted = rounding == Rounding::Gptq || bias_correction;
        let moments = self.seen.moments[conv.repeats.unwrap_or(id)].clone().filter(|_| wanted).map(Moments::finish);
        let Rounded { integers: weights, scales, noise } = match &moments {
            Some((_, covariance)) if rounding == Rounding::Gptq => {
                rounding::round(&conv.conv.weight, covariance, bits, &floors)
            }
            _ => quantize::round(&conv.conv.weight, bits, &floors),
        };
        let rows = || weights.chunks_exact(taps);
        if self.widths.wide_ring[id] {
            // Half of the accumulator for the products: narrow the activations until no channel can overflow.
            let most = rows().map(|row| row.iter().map(|&w| u64::from(w.unsigned_abs())).sum::<u64>()).max();
            let tiled = patches::ring_limit(network, conv, self.core).filter(|_| width == WeightWidth::Eight);
            let limit = ((1u64 << 30) / most.unwrap_or(1).max(1)).min(tiled.unwrap_or(32_767).into());
            ring.scale *= 32_767.0 / limit as f64;
        }
        let units: Vec<f64> = scales.iter().map(|scale| scale * ring.scale).collect();
        let mean_errors = rows().zip(conv.conv.weight.chunks_exact(taps)).zip(&scales).map(|((row, reals), scale)| {
            let Some((means, _)) = moments.as_ref().filter(|_| bias_correction) else { return 0.0 };
            let errors = row.iter().zip(reals).map(|(&q, &w)| f64::from(q) * scale - f64::from(w));
            errors.zip(means).map(|(error, mean)| error * mean).sum()
        });
        let step_rings = self.step_rings(id, conv);
        let corrections = rows()
            .zip(mean_errors)
            .zip(&units)
            .map(|((row, error), unit)| {
                let zero = if step_rings.is_some() { 0 } else { i64::from(ring.zero) };
                zero * row.iter().map(|&w| i64::from(w)).sum::<i64>() + (error / unit).round() as i64
            })
            .collect();
        QuantizedConv { width, ring, weights, units, corrections, step_rings, noise }
    }

    /// Scales of a ring in each list and step, where the recipe and the device give it any.
    fn step_rings(&self, id: OpId, conv: &Conv2d) -> Option<Vec<Vec<Scale>>> {
        if !self.recipe.step_scales || conv.norm.is_none() || self.widths.wide_ring[id] {
            return None;
        }
        let ranges = self.recipe.ranges;
        let of_list = |steps: &Vec<quantize::Observer>| steps.iter().map(|seen| seen.asymmetric_i8(ranges)).collect();
        Some(self.seen.gathered_by_step.get(id)?.iter().map(of_list).collect())
    }
}
