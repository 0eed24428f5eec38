//! The `i8` precision: every real number of the network becomes an integer here, once.

use std::collections::HashMap;

use rayon::prelude::*;
use waft::fixed::{NORM_BITS, RESIDUAL_BITS, SAMPLE_BITS, SILU_BITS};
use waft::format::{ALIGN, CHANNEL_BLOCK, Element, QUAD, STEP_BYTES, STEP_SCALES_BYTES};

use super::{
    ATTENTION, EMBED, Emitted, GROUP_NORM, LINEAR, Source, bias_layout, conditioning_peak, conv_record, tensor_table,
};
use crate::calibrate::Observations;
use crate::graph::{Linear, silu};
use crate::lower::{Conv, Id, Network, Op, Role};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::quantize::{self, Ranges, Scale, multiplier};
use crate::rounding::{self, Moments, Rounded};
use crate::schedule::Step;
use crate::write::{Record, ScheduleEntry, Writer};

/// Bits that a linear map's 64-bit sum gives up on its way to 32 bits.
const LINEAR_SHIFT: i32 = 12;

/// Which tensors get 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths {
    /// By tensor; meaningful for streams.
    pub wide_stream: Vec<bool>,
    /// By operation; convolutions that read 16-bit activations.
    pub wide_ring: Vec<bool>,
}

impl Widths {
    /// Widths for streams as given. The rings that read the sample, a 16-bit stream as it is, or two raw inputs that share
    /// no scale, and the ring of the last convolution, have to be 16 bits wide; others may.
    pub fn new(network: &Network, wide_stream: Vec<bool>, shortcuts: Shortcuts) -> Self {
        let wide_ring = network
            .ops
            .iter()
            .map(|(_, op)| match op {
                Op::Conv(conv) => {
                    let raw_wide = conv.norm.is_none()
                        && !shares_scale(conv, shortcuts)
                        && (conv.sources.len() > 1
                            || conv.sources.iter().any(|&id| id == network.sample || wide_stream[id]));
                    raw_wide || conv.output == network.prediction
                }
                _ => false,
            })
            .collect();
        Self { wide_stream, wide_ring }
    }

    /// Element type of every tensor.
    pub fn elements(&self, network: &Network) -> Vec<Element> {
        let mut elements: Vec<Element> = network
            .tensors
            .iter()
            .enumerate()
            .map(|(id, tensor)| match tensor.role {
                Role::Stream if self.wide_stream[id] => Element::I16,
                Role::Stream | Role::Attention | Role::Ring => Element::I8,
                Role::Conditioning => Element::I16,
                _ => Element::I32,
            })
            .collect();
        for ((_, op), &wide) in network.ops.iter().zip(&self.wide_ring) {
            if let (Op::Conv(conv), true) = (op, wide) {
                elements[conv.ring] = Element::I16;
            }
        }
        elements
    }
}

/// Whether a convolution reads two raw inputs in 8 bits of one scale.
pub fn shares_scale(conv: &Conv, shortcuts: Shortcuts) -> bool {
    shortcuts == Shortcuts::Joint && conv.norm.is_none() && conv.sources.len() > 1
}

/// Everything that the records of one file are computed from.
struct Emitter<'a> {
    source: Source<'a>,
    widths: &'a Widths,
    seen: &'a Observations,
    recipe: Recipe,
    /// Of every tensor that has one.
    scales: Vec<Scale>,
    /// Keys and values of joint tensors.
    key_value: HashMap<Id, [Scale; 2]>,
    /// Of the conditioning vector.
    conditioning: Scale,
    /// Right shift that gives the conditioning vector that scale.
    conditioning_shift: u32,
    /// Fractional bits of time and class tables.
    table_bits: u32,
    /// Real value of an accumulator's unit, and Σ(ring zero · weight), of the convolution that each bias tensor feeds.
    accumulators: HashMap<Id, (Vec<f64>, Vec<i64>)>,
}

/// A convolution's integers.
#[derive(Clone, Debug)]
pub struct QuantizedConv {
    ring: Scale,
    weights: Vec<i8>,
    /// Real value of one accumulator unit per output channel.
    units: Vec<f64>,
    /// What to subtract from the bias of each output channel: the ring's zero times the sum of weights unless steps have
    /// scales of their own, and the mean error of the rounded weights.
    corrections: Vec<i64>,
    /// Scales of the ring in each list and step, if they have their own.
    step_rings: Option<Vec<Vec<Scale>>>,
    /// Mean squared error of a result that rounding the weights causes; 0 if it is not known.
    pub noise: f64,
}

/// How weights and biases become integers, and what range activations get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Of weights.
    pub rounding: Rounding,
    /// Of activations.
    pub ranges: Ranges,
    /// Take the mean error that rounded weights cause out of the bias (Nagel et al., 2019, arXiv:1906.04721, 4.2).
    pub bias_correction: bool,
    /// Give the 8-bit inputs of convolutions that come through a normalization scales for each step.
    pub step_scales: bool,
    /// What two raw inputs share.
    pub shortcuts: Shortcuts,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            rounding: Rounding::Gptq,
            ranges: Ranges::Mse,
            bias_correction: true,
            step_scales: false,
            shortcuts: Shortcuts::Split,
        }
    }
}

/// How the two inputs of a shortcut over a skip join become integers of one ring.
///
/// Li et al. (2023, Q-Diffusion, arXiv:2302.04304, 4.2) give each input a scale of its own, because their ranges differ,
/// and run two convolutions. A 16-bit ring keeps the resolution of both in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortcuts {
    /// 8 bits and one scale for both.
    Joint,
    /// 16 bits, in which each input keeps the resolution of its own scale.
    #[default]
    Split,
}

/// How weights become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Each to the nearest, in the scale of least squared error.
    Nearest,
    /// So that the results over the calibration's inputs change least: see [`rounding`].
    #[default]
    Gptq,
}

/// The integers of every convolution, by operation.
pub fn quantize(
    source: &Source<'_>,
    widths: &Widths,
    seen: &Observations,
    recipe: Recipe,
    progress: &dyn Progress,
) -> Vec<Option<QuantizedConv>> {
    let emitter = Emitter::new(*source, widths, seen, recipe);
    progress.begin("rounding weights", source.network.ops.len() as u64);
    let quantized = source.network.ops.par_iter().enumerate().map(|(index, (_, op))| {
        let quantized = match op {
            Op::Conv(conv) => Some(emitter.quantize(index, conv)),
            _ => None,
        };
        progress.advance(1);
        quantized
    });
    let quantized = quantized.collect();
    progress.end();
    quantized
}

/// Emits records and parameters.
pub fn emit(
    source: &Source<'_>,
    widths: &Widths,
    seen: &Observations,
    recipe: Recipe,
    convs: &[Option<QuantizedConv>],
    plan: &Plan,
    elements: &[Element],
    writer: &mut Writer,
) -> Emitted {
    let network = source.network;
    let mut emitter = Emitter::new(*source, widths, seen, recipe);
    let (bias_places, mut bias_bytes) = bias_layout(network);
    let mut scale_places = vec![];
    for quantized in convs {
        let steps = quantized.as_ref().and_then(|quantized| quantized.step_rings.as_ref());
        scale_places.push(steps.map(|_| bias_bytes));
        bias_bytes += if steps.is_some() { STEP_SCALES_BYTES } else { 0 };
    }
    let bias_bytes = bias_bytes.next_multiple_of(ALIGN);
    // Linear maps and per-step biases are in the units of the accumulators that they go into.
    for ((_, op), quantized) in network.ops.iter().zip(convs) {
        if let (Op::Conv(conv), Some(quantized)) = (op, quantized)
            && let Some((_, Some(bias))) = &conv.projection
        {
            emitter.accumulators.insert(*bias, (quantized.units.clone(), quantized.corrections.clone()));
        }
    }
    let ops = network
        .ops
        .iter()
        .enumerate()
        .map(|(index, (_, op))| match op {
            Op::Embed { output } => emitter.embed(*output, writer),
            Op::Linear { source, linear, output } => emitter.linear(*source, linear, *output, writer),
            Op::Norm { sources, norm, output } => emitter.norm(sources, norm, *output, writer),
            Op::Attention { query, key_value, heads, scale, scratch, output } => {
                let record = Record::op(ATTENTION)
                    .id(4, Some(*query))
                    .id(6, Some(*key_value))
                    .id(8, Some(*output))
                    .id(14, Some(*scratch))
                    .u16(16, *heads as u16);
                emitter.attention(record, *query, *key_value, *output, f64::from(*scale))
            }
            Op::Conv(conv) => {
                let quantized = convs[index].as_ref().expect("computed above for every convolution");
                emitter.conv(conv, quantized, bias_places[index], scale_places[index], writer)
            }
        })
        .collect();
    let schedules = source
        .lists
        .iter()
        .enumerate()
        .map(|(number, list)| {
            let mut embeddings = vec![];
            let mut biases = vec![];
            for (step, embedding) in list.embeddings.iter().enumerate() {
                if network.conditioning > 0 {
                    embeddings.extend(embedding.iter().flat_map(|&e| emitter.table_entry(e).to_le_bytes()));
                }
                let activated: Vec<f64> = embedding.iter().map(|&e| silu(e)).collect();
                let mut row = vec![0u8; bias_bytes];
                for (index, (_, op)) in network.ops.iter().enumerate() {
                    if let (Op::Conv(conv), Some(place), Some(quantized)) = (op, bias_places[index], &convs[index])
                        && let Some((linear, _)) = &conv.projection
                    {
                        for (i, bias) in linear.apply(&activated).into_iter().enumerate() {
                            let bias = integer_bias(bias, quantized.units[i], quantized.corrections[i]);
                            row[place + 4 * i..][..4].copy_from_slice(&bias.to_le_bytes());
                        }
                    }
                }
                for (quantized, place) in convs.iter().zip(&scale_places) {
                    if let (Some(quantized), Some(place)) = (quantized, *place) {
                        row[place..][..STEP_SCALES_BYTES].copy_from_slice(&quantized.step_scales(number, step));
                    }
                }
                biases.extend(row);
            }
            ScheduleEntry { steps: list.steps.iter().map(step_record).collect(), embeddings, biases, bias_bytes }
        })
        .collect();
    let tensors = tensor_table(network, plan, elements, |id| (emitter.scales[id].scale, emitter.scales[id].zero));
    Emitted { tensors, ops, schedules }
}

impl QuantizedConv {
    /// The record of a step's scales.
    fn step_scales(&self, list: usize, step: usize) -> [u8; STEP_SCALES_BYTES] {
        let ring = self.step_rings.as_ref().map_or(self.ring, |lists| lists[list][step]);
        let (m, s) = activation_multiplier(ring);
        let (rescale, shift) = multiplier(ring.scale / self.ring.scale);
        bytemuck::cast([ring.zero, m, s, rescale, shift])
    }
}

/// From a transformed activation in fixed point to the ring.
fn activation_multiplier(ring: Scale) -> (i32, i32) {
    multiplier(2f64.powi(-(SILU_BITS as i32)) / ring.scale)
}

fn integer_bias(bias: f64, unit: f64, correction: i64) -> i32 {
    ((bias / unit).round() as i64 - correction).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

impl<'a> Emitter<'a> {
    fn new(source: Source<'a>, widths: &'a Widths, seen: &'a Observations, recipe: Recipe) -> Self {
        let network = source.network;
        let sample = Scale { scale: 2f64.powi(-(SAMPLE_BITS as i32)), zero: 0 };
        let mut key_value = HashMap::new();
        for (_, op) in &network.ops {
            if let Op::Attention { key_value: id, .. } = op {
                let [keys, values] = &seen.key_value[*id];
                key_value.insert(*id, [keys.symmetric_i8(recipe.ranges), values.symmetric_i8(recipe.ranges)]);
            }
        }
        let scales = network
            .tensors
            .iter()
            .enumerate()
            .map(|(id, tensor)| match tensor.role {
                Role::Sample | Role::Prediction | Role::Unconditional => sample,
                // Sixteen bits have room for twice of what was seen.
                Role::Stream if widths.wide_stream[id] => Scale::symmetric(2.0 * seen.tensors[id].peak(), 32767.0),
                Role::Stream => seen.tensors[id].asymmetric_i8(recipe.ranges),
                Role::Attention => {
                    key_value.get(&id).map_or_else(|| seen.tensors[id].symmetric_i8(recipe.ranges), |[keys, _]| *keys)
                }
                _ => Scale { scale: 1.0, zero: 0 },
            })
            .collect();

        let peak = conditioning_peak(&source);
        let conditioning_shift = (0..SILU_BITS).find(|&shift| peak * 2f64.powi((SILU_BITS - shift) as i32) <= 32_000.0);
        let conditioning_shift = conditioning_shift.unwrap_or(SILU_BITS);
        let conditioning = Scale { scale: 2f64.powi(conditioning_shift as i32 - SILU_BITS as i32), zero: 0 };
        let times = source.lists.iter().flat_map(|list| &list.embeddings).flatten().copied();
        let classes = source.graph.classes.iter().flat_map(|classes| &classes.table).map(|&e| f64::from(e));
        let widest = times.chain(classes).fold(0f64, |peak, e| peak.max(e.abs()));
        let table_bits = (0..=NORM_BITS).rev().find(|&bits| widest * 2f64.powi(bits as i32) <= 32_767.0).unwrap_or(0);
        Self {
            source,
            widths,
            seen,
            recipe,
            scales,
            key_value,
            conditioning,
            conditioning_shift,
            table_bits,
            accumulators: HashMap::new(),
        }
    }

    fn table_entry(&self, value: f64) -> i16 {
        (value * 2f64.powi(self.table_bits as i32)).round().clamp(-32_768.0, 32_767.0) as i16
    }

    fn embed(&self, output: Id, writer: &mut Writer) -> Record {
        let classes = self.source.graph.classes.as_ref().map_or(&[][..], |classes| &classes.table);
        let table: Vec<i16> = classes.iter().map(|&e| self.table_entry(f64::from(e))).collect();
        Record::op(EMBED)
            .id(8, Some(output))
            .u32(24, writer.values(&table))
            .u32(32, NORM_BITS - self.table_bits)
            .u32(36, self.conditioning_shift)
    }

    fn linear(&self, source: Id, linear: &Linear, output: Id, writer: &mut Writer) -> Record {
        let (units, corrections) = &self.accumulators[&output];
        let mut weights = vec![];
        let mut requant = vec![];
        let mut bias = vec![];
        for (i, row) in linear.weight.chunks_exact(linear.inputs).enumerate() {
            let peak = row.iter().fold(1e-12f64, |peak, &w| peak.max(f64::from(w).abs()));
            let scale = peak / 32_767.0;
            weights.extend(row.iter().map(|&w| (f64::from(w) / scale).round() as i16));
            let (m, s) = multiplier(scale * self.conditioning.scale * 2f64.powi(LINEAR_SHIFT) / units[i]);
            requant.extend([m, s]);
            bias.push(integer_bias(f64::from(linear.bias[i]), units[i], corrections[i]));
        }
        Record::op(LINEAR)
            .id(4, Some(source))
            .id(8, Some(output))
            .u32(24, writer.values(&weights))
            .u32(28, writer.values(&bias))
            .u32(32, writer.values(&requant))
    }

    fn norm(&self, sources: &[Id], norm: &crate::graph::GroupNorm, output: Id, writer: &mut Writer) -> Record {
        let widest = sources.iter().map(|&id| self.scales[id].scale).fold(0f64, f64::max);
        let gamma: Vec<i32> = norm.gamma.iter().map(|&g| fixed(f64::from(g), 20)).collect();
        let beta: Vec<i32> = norm.beta.iter().map(|&b| fixed(f64::from(b), NORM_BITS)).collect();
        let epsilon = (norm.eps / (widest * widest) * 65_536.0).round().clamp(1.0, 2f64.powi(61)) as u64;
        let mut record = Record::op(GROUP_NORM)
            .id(4, sources.first().copied())
            .id(6, sources.get(1).copied())
            .id(8, Some(output))
            .u16(16, norm.groups as u16)
            .u32(24, writer.values(&gamma))
            .u32(28, writer.values(&beta))
            .u32(32, 1 << 15)
            .u32(36, 1 << 15)
            .u64(48, epsilon)
            .f32(56, norm.eps as f32)
            .u32(60, self.affine_shift(sources, output));
        for (i, &id) in sources.iter().enumerate() {
            let ratio = (self.scales[id].scale / widest * 32_768.0).round().max(1.0);
            record = record.u32(32 + 4 * i, ratio as u32).i32(40 + 4 * i, self.scales[id].zero);
        }
        record
    }

    /// Fractional bits of a map's factors beyond those of the result: as many as leave room for four times the largest
    /// factor that was seen.
    fn affine_shift(&self, sources: &[Id], map: Id) -> u32 {
        let factors = self.seen.factors[map];
        let largest =
            sources.iter().zip(factors).map(|(&id, factor)| factor * self.scales[id].scale).fold(1e-12, f64::max);
        let bits = libm::log2(2f64.powi(31) / (4.0 * largest * 2f64.powi(NORM_BITS as i32))).floor();
        bits.clamp(4.0, 30.0) as u32
    }

    fn attention(&self, record: Record, query: Id, key_value: Id, output: Id, scale: f64) -> Record {
        let [keys, values] = self.key_value[&key_value];
        let per_unit = scale * self.scales[query].scale * keys.scale * std::f64::consts::LOG2_E * 256.0;
        let (score, score_shift) = multiplier(per_unit);
        let (value, value_shift) = multiplier(values.scale / self.scales[output].scale);
        let tokens = self.source.network.tensors[query].shape.pixels() as u64;
        let bits = (1..=15).rev().find(|bits| tokens << (bits + 7) <= i32::MAX as u64).unwrap_or(1);
        record.i32(40, score).i32(44, score_shift).i32(48, value).i32(52, value_shift).u32(56, bits)
    }

    /// Scale of a convolution's ring, and its weights.
    fn quantize(&self, index: usize, conv: &Conv) -> QuantizedConv {
        let gathered = &self.seen.gathered[index];
        let network = self.source.network;
        let taps = conv.conv.weight.len() / conv.conv.outputs;
        let reads_sample = conv.sources.contains(&network.sample);
        let copied = conv.norm.is_none() && conv.sources.len() == 1 && conv.input_affine == (1.0, 0.0);
        let mut ring = if self.widths.wide_ring[index] {
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
        let bits = if conv.four_bits { 4 } else { 8 };
        let floors: Vec<f64> = peaks.iter().map(|peak| peak / 2f64.powi(29) / ring.scale).collect();
        let Recipe { rounding, bias_correction, .. } = self.recipe;
        let wanted = rounding == Rounding::Gptq || bias_correction;
        let moments = self.seen.moments[index].clone().filter(|_| wanted).map(Moments::finish);
        let Rounded { integers: weights, scales, noise } = match &moments {
            Some((_, covariance)) if rounding == Rounding::Gptq => {
                rounding::round(&conv.conv.weight, covariance, bits, &floors)
            }
            _ => quantize::round(&conv.conv.weight, bits, &floors),
        };
        let rows = || weights.chunks_exact(taps);
        if self.widths.wide_ring[index] {
            // Half of the accumulator for the products: narrow the activations until no channel can overflow.
            let most = rows().map(|row| row.iter().map(|&w| u64::from(w.unsigned_abs())).sum::<u64>()).max();
            let limit = ((1u64 << 30) / most.unwrap_or(1).max(1)).min(32_767) as f64;
            ring.scale *= 32_767.0 / limit;
        }
        let units: Vec<f64> = scales.iter().map(|scale| scale * ring.scale).collect();
        let mean_errors = rows().zip(conv.conv.weight.chunks_exact(taps)).zip(&scales).map(|((row, reals), scale)| {
            let Some((means, _)) = moments.as_ref().filter(|_| bias_correction) else { return 0.0 };
            let errors = row.iter().zip(reals).map(|(&q, &w)| f64::from(q) * scale - f64::from(w));
            errors.zip(means).map(|(error, mean)| error * mean).sum()
        });
        let step_rings = self.step_rings(index, conv);
        let corrections = rows()
            .zip(mean_errors)
            .zip(&units)
            .map(|((row, error), unit)| {
                let zero = if step_rings.is_some() { 0 } else { i64::from(ring.zero) };
                zero * row.iter().map(|&w| i64::from(w)).sum::<i64>() + (error / unit).round() as i64
            })
            .collect();
        QuantizedConv { ring, weights, units, corrections, step_rings, noise }
    }

    /// Scales of a ring in each list and step, where the recipe and the device give it any.
    fn step_rings(&self, index: usize, conv: &Conv) -> Option<Vec<Vec<Scale>>> {
        if !self.recipe.step_scales || conv.norm.is_none() || self.widths.wide_ring[index] {
            return None;
        }
        let ranges = self.recipe.ranges;
        let of_list = |steps: &Vec<quantize::Observer>| steps.iter().map(|seen| seen.asymmetric_i8(ranges)).collect();
        Some(self.seen.gathered_by_step.get(index)?.iter().map(of_list).collect())
    }

    fn conv(
        &self,
        conv: &Conv,
        quantized: &QuantizedConv,
        place: Option<usize>,
        scale_place: Option<usize>,
        writer: &mut Writer,
    ) -> Record {
        let network = self.source.network;
        let QuantizedConv { ring, weights, units, corrections, .. } = quantized;
        let taps = weights.len() / conv.conv.outputs;
        let record = conv_record(network, conv).u8(3, conv.four_bits.into());
        let record = if conv.four_bits {
            let packed = pack(weights, taps);
            writer.conv_weights(record, conv.window, bytemuck::cast_slice(&packed), CHANNEL_BLOCK / 2 * taps)
        } else {
            writer.conv_weights(record, conv.window, bytemuck::cast_slice(weights), CHANNEL_BLOCK * taps)
        };
        let mut record = record.i32(36, ring.zero);

        let output = self.scales[conv.output];
        let extra = if conv.residual.is_some() { RESIDUAL_BITS as i32 } else { 0 };
        let joint = self.key_value.get(&conv.output);
        let mut requant = vec![];
        for (i, unit) in units.iter().enumerate() {
            // Keys and values share a tensor but not a scale.
            let scale = match joint {
                Some([keys, _]) if i < units.len() / 2 => keys.scale,
                Some([_, values]) => values.scale,
                None => output.scale,
            };
            let (m, s) = multiplier(unit / scale);
            // The device adds the extra bits to the shift; the largest shift leaves room for them.
            requant.extend([m, s.min(30 - extra)]);
        }
        record = record.u32(32, writer.values(&requant)).i32(56, output.zero);

        match (&conv.projection, place) {
            (_, Some(place)) => record = record.u32(28, place as u32),
            (Some(_), None) => {}
            (None, None) => {
                let biases = conv.conv.bias.iter().zip(units).zip(corrections);
                let bias: Vec<i32> = biases.map(|((&b, &u), &c)| integer_bias(f64::from(b), u, c)).collect();
                record = record.u32(28, writer.values(&bias));
            }
        }

        if let Some(norm) = conv.norm {
            let (m, s) = activation_multiplier(*ring);
            record = record.i32(40, m).i32(44, s).u32(72, self.affine_shift(&conv.sources, norm));
        } else {
            for (i, &id) in conv.sources.iter().enumerate() {
                let from = self.scales[id];
                let (gain, offset) = (f64::from(conv.input_affine.0), f64::from(conv.input_affine.1));
                let zero = f64::from(from.zero) - offset / (gain * from.scale);
                let same = from == *ring && gain == 1.0 && offset == 0.0;
                let (m, s) = if same { (0, 0) } else { multiplier(gain * from.scale / ring.scale) };
                record = record.i32(40 + 8 * i, m).i32(44 + 8 * i, s).i32(76 + 4 * i, zero.round() as i32);
            }
        }
        if let Some(place) = scale_place {
            let sums: Vec<i32> =
                weights.chunks_exact(taps).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
            record = record.u32(104, place as u32).u32(108, writer.values(&sums));
        }
        if let Some((id, gain)) = conv.residual {
            let from = self.scales[id];
            let (m, s) = multiplier(from.scale * f64::from(gain) / output.scale * 2f64.powi(extra));
            record = record.i32(60, m).i32(64, s).i32(68, from.zero);
        }
        record
    }
}

/// Weights of four bits, four output channels side by side.
fn pack(weights: &[i8], taps: usize) -> Vec<u16> {
    weights
        .chunks(QUAD * taps)
        .flat_map(|rows| {
            (0..taps).map(move |tap| {
                let nibbles = rows.iter().skip(tap).step_by(taps).enumerate();
                nibbles.fold(0, |packed, (i, &w)| packed | (w as u16 & 15) << (4 * i))
            })
        })
        .collect()
}

/// A real in fixed point, saturated.
fn fixed(value: f64, bits: u32) -> i32 {
    (value * 2f64.powi(bits as i32)).round().clamp(-2_147_483_648.0, 2_147_483_647.0) as i32
}

/// Mantissas of at most 2²⁹ for one group of coefficients, and their fractional bits, at most 62.
fn mantissas<const N: usize>(values: [f64; N]) -> ([i32; N], u32) {
    let peak = values.iter().fold(0f64, |peak, v| peak.max(v.abs()));
    let bits = if peak > 0.0 { 28 - (libm::log2(peak).floor() as i32) } else { 29 };
    let bits = bits.clamp(0, 62);
    (values.map(|v| (v * 2f64.powi(bits)).round().clamp(-536_870_912.0, 536_870_912.0) as i32), bits as u32)
}

fn step_record(step: &Step) -> Record {
    let clip = step.clip.map_or(i32::MAX, |clip| fixed(clip, SAMPLE_BITS));
    let (x0, x0_bits) = mantissas([step.x0_x, step.x0_m]);
    let (prev, prev_bits) = mantissas([step.next_x0, step.next_x, step.next_m, step.noise]);
    Record::new(STEP_BYTES)
        .i32(0, step.timestep as i32)
        .i32(4, clip)
        .i32(8, x0[0])
        .i32(12, x0[1])
        .u32(16, x0_bits)
        .i32(20, prev[0])
        .i32(24, prev[1])
        .i32(28, prev[2])
        .i32(32, prev[3])
        .u32(36, prev_bits)
}
