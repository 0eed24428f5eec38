//! The float precisions.

use bytemuck::Zeroable;
use half::f16;
use typed_index_collections::TiSlice;
use waft::format::{
    Attention, Element, Embed, FloatStep, Linear, LinearAttention, Observe, Op, OpKind, Precision, WeightLayout,
};

use super::{
    Emitted, Source, activate_record, attention_record, bias_layout, classifier_record, conv_record, filter_record,
    group_norm_record, layer_norm_record, linear_attention_record, observe_record, put_affine, schedules,
    step_projection, tensor_table,
};
use crate::network::{self, TensorId};
use crate::plan::Plan;
use crate::schedule::Step;
use crate::write::{Steps, Writer, pack};

/// Emits records and parameters in `f32` or `f16`.
pub fn emit(
    source: &Source<'_>,
    precision: Precision,
    plan: &Plan,
    elements: &TiSlice<TensorId, Element>,
    writer: &mut Writer,
) -> Emitted {
    let network = source.network;
    let (bias_places, bias_bytes) = bias_layout(network);
    let ops = network.ops.iter().zip(&bias_places);
    let ops = ops.map(|((_, op), place)| record(source, op, precision, *place, writer)).collect();
    let schedules = schedules(
        source,
        bias_bytes,
        |steps| Steps::Float(steps.iter().map(step_record).collect()),
        |entry, embeddings| embeddings.extend((entry as f32).to_le_bytes()),
        |[list, step], activated, row| {
            for ((_, op), place) in network.ops.iter().zip(&bias_places) {
                if let (network::Op::Classifier(_), Some(place)) = (op, place) {
                    let factor = source.lists[list].steps[step].gradient_factor() as f32;
                    row[*place..][..4].copy_from_slice(&factor.to_le_bytes());
                }
                let (Some(linear), Some(place)) = (step_projection(op), place) else { continue };
                let words = linear.apply(activated).into_iter().map(|bias| (bias as f32).to_le_bytes());
                match op {
                    network::Op::GroupNorm(_) | network::Op::LayerNorm(_) => put_affine(words, &mut row[*place..]),
                    _ => row[*place..].chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word)),
                }
            }
        },
    );
    Emitted { tensors: tensor_table(network, plan, elements, |_| (1.0, 0)), ops, schedules }
}

/// How a float precision lays out weights.
pub fn float_layout(precision: Precision) -> WeightLayout {
    match precision {
        Precision::F16 => WeightLayout::Groups16,
        Precision::F32 | Precision::I8 => WeightLayout::Groups32,
    }
}

/// The record of an operation; its parameters go to the writer.
fn record(
    source: &Source<'_>,
    op: &network::Op,
    precision: Precision,
    place: Option<usize>,
    writer: &mut Writer,
) -> Op {
    match op {
        network::Op::Embed(op) => {
            // Tables stay in single precision: they are small and everything depends on them.
            let table = source.graph.classes.as_ref().map_or(&[][..], |classes| &classes.table);
            Op::Embed(Embed {
                kind: OpKind::Embed.code(),
                activation: source.graph.class_row().1.code(),
                output: op.output.in_file(),
                table: writer.values(table),
                ..Zeroable::zeroed()
            })
        }
        network::Op::Linear(network::Linear { source, linear, output }) => {
            let weights = match precision {
                Precision::F16 => {
                    let halves: Vec<u16> = linear.weight.iter().map(|&w| f16::from_f32(w).to_bits()).collect();
                    writer.values(&halves)
                }
                Precision::F32 | Precision::I8 => writer.values(&linear.weight),
            };
            Op::Linear(Linear {
                kind: OpKind::Linear.code(),
                source: source.in_file(),
                output: output.in_file(),
                weights,
                bias: writer.values(&linear.bias),
                ..Zeroable::zeroed()
            })
        }
        network::Op::GroupNorm(op) => {
            let vectors = |norm: &crate::graph::GroupNorm| [writer.values(&norm.gamma), writer.values(&norm.beta)];
            Op::GroupNorm(group_norm_record(op, place, vectors))
        }
        network::Op::LayerNorm(op) => {
            let vectors = |norm: &crate::graph::LayerNorm| [writer.values(&norm.gamma), writer.values(&norm.beta)];
            Op::LayerNorm(layer_norm_record(op, place, vectors))
        }
        network::Op::Activate(op) => Op::Activate(activate_record(op, place)),
        network::Op::Classifier(op) => Op::Classifier(classifier_record(op, place)),
        network::Op::Filter(op) => Op::Filter(filter_record(op)),
        network::Op::Observe(op) => {
            let part = |part: usize| op.normalization.iter().map(|of| of[part] as f32).collect::<Vec<_>>();
            let (centers, gains) = (writer.values(&part(0)), writer.values(&part(1)));
            Op::Observe(Observe { centers, gains, ..observe_record(source, op) })
        }
        network::Op::Attention(op) => {
            let memory_at = memory(&op.memory, precision, writer);
            Op::Attention(Attention { scale: op.scale, memory_at, ..attention_record(op) })
        }
        network::Op::LinearAttention(op) => {
            let memory_at = memory(&op.memory, precision, writer);
            Op::LinearAttention(LinearAttention { gain: op.gain, memory_at, ..linear_attention_record(op) })
        }
        network::Op::Conv2d(conv) => {
            let (outputs, taps) = (conv.conv.outputs, conv.conv.weight.len() / conv.conv.outputs);
            let weight = |output: usize, tap: usize| conv.conv.weight[output * taps + tap];
            let layout = float_layout(precision);
            let weights = pack(layout, [outputs, taps], |output, tap| match precision {
                Precision::F16 => f16::from_f32(weight(output, tap)).to_bits().into(),
                Precision::F32 | Precision::I8 => weight(output, tap).to_bits(),
            });
            let stored = writer.conv_weights(layout, taps, &weights, conv.window);
            let mut record = conv_record(source.network, conv, layout, stored);
            record.residual_gain = conv.residual.map_or(0.0, |(_, gain)| gain);
            (record.input_gain, record.input_offset) = conv.input_affine;
            record.bias_at = match (place, &conv.projection) {
                (Some(place), _) => place as u32,
                (None, Some(_)) => 0,
                (None, None) => writer.values(&conv.conv.bias),
            };
            Op::Conv2d(record)
        }
    }
}

/// Where learned keys and values are written; 0 if there are none.
fn memory(memory: &crate::graph::Memory, precision: Precision, writer: &mut Writer) -> u32 {
    match precision {
        _ if memory.len == 0 => 0,
        Precision::F16 => {
            let halves: Vec<u16> = memory.values.iter().map(|&value| f16::from_f32(value).to_bits()).collect();
            writer.values(&halves)
        }
        Precision::F32 | Precision::I8 => writer.values(&memory.values),
    }
}

fn step_record(step: &Step) -> FloatStep {
    FloatStep {
        timestep: step.timestep.round() as i32,
        clip: step.clip.unwrap_or(f64::INFINITY) as f32,
        x0: [step.x0_x, step.x0_m].map(|value| value as f32),
        next: [step.next_x0, step.next_x, step.next_m, step.noise].map(|value| value as f32),
        history: step.next_history.map(|value| value as f32),
        ..Zeroable::zeroed()
    }
}
