//! The `i8` precision: every real number of the network becomes an integer here, once.

mod quantize;
mod records;

use std::collections::HashMap;

use typed_index_collections::{TiSlice, TiVec};
use waft::arithmetic::activate;
use waft::fixed::{NORM_BITS, SAMPLE_BITS, SILU_BITS};
use waft::format::{self, ALIGN, Element, SLOPE_BITS, StepScales};

pub use self::quantize::{QuantizedConv, QuantizedConvs, quantize};
use self::records::step_record;
use super::{Emitted, Source, bias_layout, conditioning_peak, put_affine, schedules, step_projection, tensor_table};
use crate::calibrate::Observations;
use crate::cost::Core;
use crate::network::{Activate, Film, Op, OpId, Role, TensorId};
use crate::plan::Plan;
use crate::quantize::{Scale, multiplier};
use crate::recipe::Recipe;
use crate::widths::Widths;
use crate::write::{Steps, Writer};

/// What the integers of a network follow from.
#[derive(Clone, Copy, Debug)]
pub struct Quantization<'a> {
    /// The real numbers.
    pub source: Source<'a>,
    /// Widths of activations.
    pub widths: &'a Widths,
    /// What calibration saw.
    pub seen: &'a Observations,
    /// How reals become integers.
    pub recipe: Recipe,
    /// The core by whose instructions convolutions get tiles.
    pub core: &'static Core,
}

/// Everything that the records of one file are computed from.
struct Emitter<'a> {
    source: Source<'a>,
    widths: &'a Widths,
    seen: &'a Observations,
    recipe: Recipe,
    core: &'static Core,
    /// Of every tensor that has one.
    scales: TiVec<TensorId, Scale>,
    /// Of keys and of values.
    key_value: HashMap<TensorId, [Scale; 2]>,
    /// Of the conditioning vector.
    conditioning: Scale,
    /// Right shift that gives the conditioning vector that scale.
    conditioning_shift: u32,
    /// Fractional bits of time and class tables.
    table_bits: u32,
    /// Real value of a unit of what each bias tensor goes into, and what to subtract from it: of a convolution's accumulators,
    /// Σ(ring zero · weight).
    accumulators: HashMap<TensorId, (Vec<f64>, Vec<i64>)>,
}

/// Emits records and parameters.
pub fn emit(
    from: Quantization<'_>,
    convs: &TiSlice<OpId, Option<QuantizedConv>>,
    plan: &Plan,
    elements: &TiSlice<TensorId, Element>,
    writer: &mut Writer,
) -> Emitted {
    let source = &from.source;
    let network = source.network;
    let mut emitter = Emitter::new(from);
    let (bias_places, mut bias_bytes) = bias_layout(network);
    let mut scale_places: TiVec<OpId, Option<usize>> = TiVec::new();
    for quantized in convs {
        let steps = quantized.as_ref().and_then(|quantized| quantized.step_rings.as_ref());
        scale_places.push(steps.map(|_| bias_bytes));
        bias_bytes += if steps.is_some() { size_of::<StepScales>() } else { 0 };
    }
    let bias_bytes = bias_bytes.next_multiple_of(ALIGN);
    // Linear maps and per-step biases are in the units of what they go into.
    for ((_, op), quantized) in network.ops.iter().zip(convs) {
        match (op, quantized) {
            (Op::Conv2d(conv), Some(quantized)) => {
                if let Some((_, Some(bias))) = &conv.projection {
                    emitter.accumulators.insert(*bias, (quantized.units.clone(), quantized.corrections.clone()));
                }
            }
            (Op::GroupNorm(norm), _) => {
                if let Some((linear, Some(affine))) = &norm.projection {
                    let units = affine_units(linear.outputs / 2).collect();
                    emitter.accumulators.insert(*affine, (units, vec![0; linear.outputs]));
                }
            }
            (Op::Observe(op), _) if Some(op.source) != network.observation => {
                let units = vec![2f64.powi(-(SAMPLE_BITS as i32)); op.normalization.len()];
                let corrections = vec![0; units.len()];
                emitter.accumulators.insert(op.source, (units, corrections));
            }
            (Op::Activate(op), _) => {
                if let Some(Film { linear, is_scaled, observed: Some(observed) }) = &op.film {
                    let units = film_units(linear.outputs, *is_scaled).collect();
                    emitter.accumulators.insert(*observed, (units, vec![0; linear.outputs]));
                }
            }
            _ => {}
        }
    }
    let record = |(id, (_, op)): (OpId, &(String, Op))| match op {
        Op::Embed(op) => format::Op::Embed(emitter.embed(op.output, writer)),
        Op::Linear(op) => format::Op::Linear(emitter.linear(op, writer)),
        Op::GroupNorm(op) => format::Op::GroupNorm(emitter.norm(op, bias_places[id], writer)),
        Op::Attention(op) => format::Op::Attention(emitter.attention(op, writer)),
        Op::LinearAttention(op) => format::Op::LinearAttention(emitter.linear_attention(op, writer)),
        Op::LayerNorm(op) => format::Op::LayerNorm(emitter.layer_norm(op, bias_places[id], writer)),
        Op::Activate(op) => format::Op::Activate(emitter.activate(op, bias_places[id])),
        Op::Classifier(op) => format::Op::Classifier(emitter.classifier(op, bias_places[id], writer)),
        Op::Filter(op) => format::Op::Filter(emitter.filter(op)),
        Op::Observe(op) => format::Op::Observe(emitter.observe(op, writer)),
        Op::Conv2d(conv) => {
            let quantized = convs[id].as_ref().expect("computed above for every convolution");
            format::Op::Conv2d(emitter.conv(conv, quantized, bias_places[id], scale_places[id], writer))
        }
    };
    let ops = network.ops.iter_enumerated().map(record).collect();
    let schedules = schedules(
        source,
        bias_bytes,
        |steps| Steps::Fixed(steps.iter().map(step_record).collect()),
        |entry, embeddings| embeddings.extend(emitter.table_entry(entry).to_le_bytes()),
        |place, activated, row| {
            let [list, step] = place;
            for (id, (_, op)) in network.ops.iter_enumerated() {
                if let (Op::Classifier(op), Some(place)) = (op, bias_places[id]) {
                    let factor = emitter.backward_factor(op, source.lists[list].steps[step].gradient_factor());
                    row[place..][..8].copy_from_slice(bytemuck::bytes_of(&factor));
                }
                let (Some(linear), Some(place)) = (step_projection(op), bias_places[id]) else { continue };
                let values = linear.apply(activated);
                if let Some(quantized) = &convs[id] {
                    for (i, bias) in values.into_iter().enumerate() {
                        let bias = integer_bias(bias, quantized.units[i], quantized.corrections[i]);
                        row[place + 4 * i..][..4].copy_from_slice(&bias.to_le_bytes());
                    }
                } else if let Op::Activate(Activate { film: Some(film), .. }) = op {
                    let units = film_units(values.len(), film.is_scaled);
                    for (i, (value, unit)) in values.into_iter().zip(units).enumerate() {
                        row[place + 4 * i..][..4].copy_from_slice(&integer_bias(value, unit, 0).to_le_bytes());
                    }
                } else {
                    let units = affine_units(values.len() / 2);
                    let words =
                        values.iter().zip(units).map(|(&value, unit)| integer_bias(value, unit, 0).to_le_bytes());
                    put_affine(words.collect::<Vec<_>>().into_iter(), &mut row[place..]);
                }
            }
            for (quantized, at) in convs.iter().zip(&scale_places) {
                if let (Some(quantized), Some(at)) = (quantized, *at) {
                    let scales = quantized.step_scales(place);
                    row[at..][..size_of::<StepScales>()].copy_from_slice(bytemuck::bytes_of(&scales));
                }
            }
        },
    );
    let tensors = tensor_table(network, plan, elements, |id| (emitter.scales[id].scale, emitter.scales[id].zero));
    Emitted { tensors, ops, schedules }
}

/// Fractional bits of the factors of a normalization.
const FACTOR_BITS: u32 = 20;

/// From a transformed activation in fixed point to the ring.
fn activation_multiplier(ring: Scale) -> (i32, i32) {
    multiplier(2f64.powi(-(SILU_BITS as i32)) / ring.scale)
}

/// Real values of the units of a normalization's factors and then its summands.
fn affine_units(channels: usize) -> impl Iterator<Item = f64> {
    let [factor, summand] = [FACTOR_BITS, NORM_BITS].map(|bits| 2f64.powi(-(bits as i32)));
    std::iter::repeat_n(factor, channels).chain(std::iter::repeat_n(summand, channels))
}

/// Real values of the units of what modulates an activation: factors, if there are any, then summands.
fn film_units(len: usize, is_scaled: bool) -> impl Iterator<Item = f64> {
    let [factor, summand] = [activate::FACTOR_BITS, activate::SUMMAND_BITS].map(|bits| 2f64.powi(-(bits as i32)));
    let factors = if is_scaled { len / 2 } else { 0 };
    std::iter::repeat_n(factor, factors).chain(std::iter::repeat_n(summand, len - factors))
}

fn integer_bias(bias: f64, unit: f64, correction: i64) -> i32 {
    ((bias / unit).round() as i64 - correction).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

impl<'a> Emitter<'a> {
    fn new(from: Quantization<'a>) -> Self {
        let Quantization { source, widths, seen, recipe, core } = from;
        let network = source.network;
        let sample = Scale { scale: 2f64.powi(-(SAMPLE_BITS as i32)), zero: 0 };
        let of_both = |id: TensorId| seen.key_value[id].each_ref().map(|seen| seen.symmetric_i8(recipe.ranges));
        let tensors = network.tensors.iter_enumerated();
        let key_value: HashMap<_, _> =
            tensors.filter(|(_, tensor)| tensor.role == Role::KeyValue).map(|(id, _)| (id, of_both(id))).collect();
        let scales = network
            .tensors
            .iter_enumerated()
            .map(|(id, tensor)| match tensor.role {
                Role::Sample
                | Role::Condition
                | Role::Observation
                | Role::Prediction
                | Role::Variance
                | Role::Gradient
                | Role::Unconditional
                | Role::History => sample,
                // Sixteen bits have room for twice of what was seen.
                Role::Stream if widths.wide_stream[id] => Scale::symmetric(2.0 * seen.tensors[id].peak(), 32767.0),
                Role::Stream => seen.tensors[id].asymmetric_i8(recipe.ranges),
                Role::Attention => seen.tensors[id].symmetric_i8(recipe.ranges),
                Role::Features => seen.tensors[id].asymmetric_i8(recipe.ranges),
                Role::Backward => Scale::symmetric(2.0 * seen.tensors[id].peak(), 32767.0),
                Role::Loss => Scale { scale: 2f64.powi(-(SLOPE_BITS as i32)), zero: 0 },
                Role::KeyValue => key_value[&id][0],
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
            core,
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
}
