//! The records of the operations and steps, and their parameters.

use bytemuck::Zeroable;
use waft::arithmetic::activate;
use waft::fixed::{LINEAR_SHIFT, NORM_BITS, RESIDUAL_BITS, SAMPLE_BITS, SILU_BITS};
use waft::format::{
    Activate, Attention, Classifier, Conv2d, Embed, Filter, FixedStep, GroupNorm, LayerNorm, Linear, LinearAttention,
    Observe, OpKind, Pass, Resampling, SLOPE_BITS,
};

use super::{Emitter, FACTOR_BITS, QuantizedConv, activation_multiplier, integer_bias};
use crate::emit::{
    activate_record, attention_record, classifier_record, conv_record, filter_record, group_norm_record,
    layer_norm_record, linear_attention_record, observe_record,
};
use crate::graph;
use crate::network::{self, Role, TensorId};
use crate::quantize::{self, multiplier};
use crate::schedule::Step;
use crate::write::{Writer, pack};

impl Emitter<'_> {
    pub(super) fn embed(&self, output: TensorId, writer: &mut Writer) -> Embed {
        let classes = self.source.graph.classes.as_ref().map_or(&[][..], |classes| &classes.table);
        let table: Vec<i16> = classes.iter().map(|&e| self.table_entry(f64::from(e))).collect();
        Embed {
            kind: OpKind::Embed.code(),
            activation: self.source.graph.class_row().1.code(),
            output: output.in_file(),
            table: writer.values(&table),
            input_shift: NORM_BITS - self.table_bits,
            output_shift: self.conditioning_shift,
            ..Zeroable::zeroed()
        }
    }

    pub(super) fn linear(&self, op: &network::Linear, writer: &mut Writer) -> Linear {
        let network::Linear { source, linear, output } = op;
        let (units, corrections) = &self.accumulators[output];
        let from = match self.source.network.tensors[*source].role {
            Role::Observed => 2f64.powi(-(activate::OBSERVED_BITS as i32)),
            _ => self.conditioning.scale,
        };
        let mut weights = vec![];
        let mut requant = vec![];
        let mut bias = vec![];
        for (i, row) in linear.weight.chunks_exact(linear.inputs).enumerate() {
            let peak = row.iter().fold(1e-12f64, |peak, &w| peak.max(f64::from(w).abs()));
            let scale = peak / 32_767.0;
            weights.extend(row.iter().map(|&w| (f64::from(w) / scale).round() as i16));
            let (m, s) = multiplier(scale * from * 2f64.powi(LINEAR_SHIFT as i32) / units[i]);
            requant.extend([m, s]);
            bias.push(integer_bias(f64::from(linear.bias[i]), units[i], corrections[i]));
        }
        Linear {
            kind: OpKind::Linear.code(),
            source: source.in_file(),
            output: output.in_file(),
            weights: writer.values(&weights),
            bias: writer.values(&bias),
            requant: writer.values(&requant),
            ..Zeroable::zeroed()
        }
    }

    pub(super) fn norm(&self, op: &network::GroupNorm, place: Option<usize>, writer: &mut Writer) -> GroupNorm {
        let network::GroupNorm { sources: ids, norm, output, .. } = op;
        let widest = ids.iter().map(|&id| self.scales[id].scale).fold(0f64, f64::max);
        let vectors = |norm: &graph::GroupNorm| affine_vectors(&norm.gamma, &norm.beta, writer);
        let mut record = GroupNorm {
            ratio: [1 << 15; 2],
            epsilon_q16: epsilon(norm.eps, widest),
            affine_shift: self.affine_shift(ids, *output),
            ..group_norm_record(op, place, vectors)
        };
        for (i, &id) in ids.iter().enumerate() {
            record.ratio[i] = (self.scales[id].scale / widest * 32_768.0).round().max(1.0) as u32;
            record.zero[i] = self.scales[id].zero;
        }
        record
    }

    pub(super) fn layer_norm(&self, op: &network::LayerNorm, place: Option<usize>, writer: &mut Writer) -> LayerNorm {
        let (source, output) = (self.scales[op.source], self.scales[op.output]);
        let extra = 2f64.powi(if op.residual.is_some() { RESIDUAL_BITS as i32 } else { 0 });
        let (multiplier, shift) = multiplier(2f64.powi(-(SILU_BITS as i32)) / output.scale * extra);
        let vectors = |norm: &graph::LayerNorm| affine_vectors(&norm.gamma, &norm.beta, writer);
        let mut record = LayerNorm {
            epsilon_q16: epsilon(op.norm.eps, source.scale),
            zero: source.zero,
            multiplier,
            shift,
            output_zero: output.zero,
            ..layer_norm_record(op, place, vectors)
        };
        if let Some(id) = op.residual {
            let from = self.scales[id];
            (record.residual_multiplier, record.residual_shift) =
                quantize::multiplier(from.scale / output.scale * extra);
            record.residual_zero = from.zero;
        }
        record
    }

    /// Fractional bits of a map's factors beyond those of the result: as many as leave room for four times the largest
    /// factor that was seen.
    fn affine_shift(&self, sources: &[TensorId], map: TensorId) -> u32 {
        let factors = self.seen.factors[map];
        let largest =
            sources.iter().zip(factors).map(|(&id, factor)| factor * self.scales[id].scale).fold(1e-12, f64::max);
        let bits = libm::log2(2f64.powi(31) / (4.0 * largest * 2f64.powi(NORM_BITS as i32))).floor();
        bits.clamp(4.0, 30.0) as u32
    }

    pub(super) fn activate(&self, op: &network::Activate, place: Option<usize>) -> Activate {
        let output = self.scales[op.output];
        let extra = 2f64.powi(if op.residual.is_some() { RESIDUAL_BITS as i32 } else { 0 });
        let (multiplier, shift) = multiplier(2f64.powi(-(SILU_BITS as i32)) / output.scale * extra);
        let mut record = Activate {
            affine_shift: self.affine_shift(&[op.source], op.norm),
            multiplier,
            shift,
            output_zero: output.zero,
            ..activate_record(op, place)
        };
        if let Some(id) = op.residual {
            let from = self.scales[id];
            (record.residual_multiplier, record.residual_shift) =
                quantize::multiplier(from.scale / output.scale * extra);
            record.residual_zero = from.zero;
        }
        record
    }

    pub(super) fn classifier(&self, op: &network::Classifier, place: Option<usize>, writer: &mut Writer) -> Classifier {
        let (source, output) = (self.scales[op.source], self.scales[op.output]);
        let value = |z: i32| f64::from(z - source.zero) * source.scale;
        let sigmoid = |z: f64| 1.0 / (1.0 + libm::exp(-z));
        let word = |value: f64| value.round().clamp(-32_768.0, 32_767.0) as i16;
        let mut table = |of: &dyn Fn(f64) -> i16| {
            let entries: Vec<i16> = (-128..128).map(|z| of(value(z))).collect();
            writer.values(&entries)
        };
        let mut record = classifier_record(op, place);
        match op.pass {
            Pass::Forward => {
                record.table = table(&|z| word(z * sigmoid(z) / output.scale + f64::from(output.zero)));
            }
            Pass::Backward | Pass::BackwardScaled => {
                let slope = |z: f64| sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)));
                record.table = table(&|z| word(slope(z) * 2f64.powi(SLOPE_BITS as i32)));
                if op.pass == Pass::Backward {
                    [record.multiplier, record.shift] = self.backward_factor(op, 1.0);
                }
            }
            Pass::Loss => {
                (record.multiplier, record.shift) = multiplier(source.scale * std::f64::consts::LOG2_E * 256.0);
            }
        }
        record
    }

    /// Multiplier and shift from a product of a gradient and a derivative to the output, times `factor`.
    pub(super) fn backward_factor(&self, op: &network::Classifier, factor: f64) -> [i32; 2] {
        let gradient = op.gradient.map_or(1.0, |id| self.scales[id].scale);
        let unit = gradient * 2f64.powi(-(SLOPE_BITS as i32)) / self.scales[op.output].scale;
        <[i32; 2]>::from(multiplier(unit * factor))
    }

    pub(super) fn filter(&self, op: &network::Filter) -> Filter {
        let (source, output) = (self.scales[op.source], self.scales[op.output]);
        // Of the taps as integers.
        let unit = match op.resampling {
            Resampling::Halve => 1.0 / 256.0,
            Resampling::Double => 1.0 / 128.0,
        };
        let (multiplier, shift) = multiplier(unit * source.scale / output.scale);
        Filter { multiplier, shift, zero: source.zero, output_zero: output.zero, ..filter_record(op) }
    }

    pub(super) fn observe(&self, op: &network::Observe, writer: &mut Writer) -> Observe {
        let centers: Vec<i32> = op.normalization.iter().map(|of| fixed(of[0], SAMPLE_BITS)).collect();
        let bits = SAMPLE_BITS - activate::OBSERVED_BITS;
        let gain = |gain: f64| <[i32; 2]>::from(multiplier(gain * 2f64.powi(-(bits as i32))));
        let gains: Vec<[i32; 2]> = op.normalization.iter().map(|of| gain(of[1])).collect();
        let (centers, gains) = (writer.values(&centers), writer.values(&gains));
        Observe { centers, gains, ..observe_record(&self.source, op) }
    }

    pub(super) fn attention(&self, op: &network::Attention, writer: &mut Writer) -> Attention {
        let [keys, values] = self.key_value[&op.key_value];
        let query = self.scales[op.query].scale;
        let per_unit = f64::from(op.scale) * query * keys.scale * std::f64::consts::LOG2_E * 256.0;
        let (score_multiplier, score_shift) = multiplier(per_unit);
        let (value_multiplier, value_shift) = multiplier(values.scale / self.scales[op.output].scale);
        let tokens = (op.memory.len + self.source.network.tensors[op.query].shape.pixels()) as u64;
        let weight_bits = (1..=15).rev().find(|bits| tokens << (bits + 7) <= i32::MAX as u64).unwrap_or(1);
        let memory_at = self.memory(&op.memory, op.key_value, writer);
        let operands = Attention { memory_at, ..attention_record(op) };
        Attention { score_multiplier, score_shift, value_multiplier, value_shift, weight_bits, ..operands }
    }

    pub(super) fn linear_attention(&self, op: &network::LinearAttention, writer: &mut Writer) -> LinearAttention {
        let [keys, values] = self.key_value[&op.key_value];
        let shape = self.source.network.tensors[op.query].shape;
        let per_unit = |scale: f64| multiplier(scale * std::f64::consts::LOG2_E * 256.0);
        let (key_multiplier, key_shift) = per_unit(keys.scale);
        let (query_multiplier, query_shift) = per_unit(self.scales[op.query].scale);
        let gain = f64::from(op.gain) * values.scale / 2f64.powi(CONTEXT_BITS) / self.scales[op.output].scale;
        let (value_multiplier, value_shift) = multiplier(gain);
        let bits = |count: usize, of_value: u32, most: u32| {
            let fits = |bits: &u32| (count as u64) << (bits + of_value) <= i32::MAX as u64;
            (1..=most).rev().find(fits).unwrap_or(1)
        };
        LinearAttention {
            memory_at: self.memory(&op.memory, op.key_value, writer),
            key_multiplier,
            key_shift,
            query_multiplier,
            query_shift,
            value_multiplier,
            value_shift,
            key_bits: bits(op.memory.len + shape.pixels(), 7, 15),
            query_bits: bits(shape.c / op.heads, 7 + CONTEXT_BITS as u32, 14),
            ..linear_attention_record(op)
        }
    }

    /// Where learned keys and values are written, in the scales of the pixels'; 0 if there are none.
    fn memory(&self, memory: &graph::Memory, key_value: TensorId, writer: &mut Writer) -> u32 {
        if memory.len == 0 {
            return 0;
        }
        let channels = memory.values.len() / memory.len / 2;
        let quantized = memory.values.chunks_exact(channels).zip(self.key_value[&key_value].iter().cycle());
        let quantized = quantized.flat_map(|(values, scale)| {
            values.iter().map(|&value| (f64::from(value) / scale.scale).round().clamp(-127.0, 127.0) as i8)
        });
        writer.values(&quantized.collect::<Vec<i8>>())
    }

    pub(super) fn conv(
        &self,
        conv: &network::Conv2d,
        quantized: &QuantizedConv,
        bias_place: Option<usize>,
        scale_place: Option<usize>,
        writer: &mut Writer,
    ) -> Conv2d {
        let QuantizedConv { ring, weights, units, corrections, .. } = quantized;
        let (outputs, taps) = (conv.conv.outputs, weights.len() / conv.conv.outputs);
        let layout = quantized.layout(conv);
        let weight = |output: usize, tap: usize| weights[output * taps + tap];
        let packed = pack(layout, [outputs, taps], |output, at| match layout.tiling() {
            None => weight(output, at) as u32,
            Some(tiling) => {
                let inputs = conv.conv.inputs;
                let nine = std::array::from_fn(|tap| weight(output, tap * inputs + at % inputs));
                tiling.transformed(&nine, at / inputs) as u32
            }
        });
        let stored = writer.conv_weights(layout, taps, &packed, conv.window);
        let mut record = conv_record(self.source.network, conv, layout, stored);
        record.ring_zero = ring.zero;
        record.requant = writer.values(&self.requant(conv, units));
        record.output_zero = self.scales[conv.output].zero;
        record.bias_at = match (bias_place, &conv.projection) {
            (Some(place), _) => place as u32,
            (None, Some(_)) => 0,
            (None, None) => {
                let biases = conv.conv.bias.iter().zip(units).zip(corrections);
                let bias: Vec<i32> = biases.map(|((&b, &u), &c)| integer_bias(f64::from(b), u, c)).collect();
                writer.values(&bias)
            }
        };
        if let Some(norm) = conv.norm {
            (record.multiplier[0], record.shift[0]) = activation_multiplier(*ring);
            record.affine_shift = self.affine_shift(&conv.sources, norm);
        } else {
            for (i, &id) in conv.sources.iter().enumerate() {
                let from = self.scales[id];
                let (gain, offset) = (f64::from(conv.input_affine.0), f64::from(conv.input_affine.1));
                let zero = f64::from(from.zero) - offset / (gain * from.scale);
                let same = from == *ring && gain == 1.0 && offset == 0.0;
                (record.multiplier[i], record.shift[i]) =
                    if same { (0, 0) } else { multiplier(gain * from.scale / ring.scale) };
                record.source_zero[i] = zero.round() as i32;
            }
        }
        if let Some(place) = scale_place {
            let sums: Vec<i32> =
                weights.chunks_exact(taps).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
            record.step_scales = place as u32;
            record.weight_sums = writer.values(&sums);
        }
        if let Some((id, gain)) = conv.residual {
            let from = self.scales[id];
            let gain = from.scale * f64::from(gain) / self.scales[conv.output].scale;
            (record.residual_multiplier, record.residual_shift) = multiplier(gain * 2f64.powi(RESIDUAL_BITS as i32));
            record.residual_zero = from.zero;
        }
        record
    }

    /// Multiplier and shift of each output channel, from accumulators of the given units to the output.
    fn requant(&self, conv: &network::Conv2d, units: &[f64]) -> Vec<[i32; 2]> {
        let extra = if conv.residual.is_some() { RESIDUAL_BITS as i32 } else { 0 };
        let output = self.scales[conv.output].scale;
        let joint = self.key_value.get(&conv.output);
        let requant = |(i, unit): (usize, &f64)| {
            // Keys and values share a tensor but not a scale.
            let scale = match joint {
                Some([keys, _]) if i < units.len() / 2 => keys.scale,
                Some([_, values]) => values.scale,
                None => output,
            };
            let (m, s) = multiplier(unit / scale);
            // The device adds the extra bits to the shift; the largest shift leaves room for them.
            [m, s.min(30 - extra)]
        };
        units.iter().enumerate().map(requant).collect()
    }
}

/// Where the factors and summands of a normalization are written.
fn affine_vectors(gamma: &[f32], beta: &[f32], writer: &mut Writer) -> [u32; 2] {
    [(gamma, FACTOR_BITS), (beta, NORM_BITS)].map(|(values, bits)| {
        let values: Vec<i32> = values.iter().map(|&value| fixed(f64::from(value), bits)).collect();
        writer.values(&values)
    })
}

/// The epsilon of a normalization of values in units of `scale`, with 16 fractional bits.
fn epsilon(epsilon: f64, scale: f64) -> u64 {
    (epsilon / (scale * scale) * 65_536.0).round().clamp(1.0, 2f64.powi(61)) as u64
}

/// Fractional bits of a linear attention's contexts beyond those of its values.
const CONTEXT_BITS: i32 = 6;

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

pub(super) fn step_record(step: &Step) -> FixedStep {
    let (x0, x0_shift) = mantissas([step.x0_x, step.x0_m]);
    let [h0, h1] = step.next_history;
    let (next, next_shift) = mantissas([step.next_x0, step.next_x, step.next_m, step.noise, h0, h1]);
    let [p, q, r, s, u, v] = next;
    FixedStep {
        timestep: step.timestep.round() as i32,
        clip: step.clip.map_or(i32::MAX, |clip| fixed(clip, SAMPLE_BITS)),
        x0,
        x0_shift,
        next: [p, q, r, s],
        next_shift,
        history: [u, v],
    }
}
