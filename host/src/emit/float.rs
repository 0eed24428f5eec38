//! The float precisions.

use half::f16;
use waft::format::{CHANNEL_BLOCK, Element, Precision, STEP_BYTES};

use super::{ATTENTION, EMBED, Emitted, GROUP_NORM, LINEAR, Source, bias_layout, conv_record, tensor_table};
use crate::graph::silu;
use crate::lower::Op;
use crate::plan::Plan;
use crate::schedule::Step;
use crate::write::{Record, ScheduleEntry, Writer};

/// Emits records and parameters in `f32` or `f16`.
pub fn emit(
    source: &Source<'_>,
    precision: Precision,
    plan: &Plan,
    elements: &[Element],
    writer: &mut Writer,
) -> Emitted {
    let network = source.network;
    let (bias_places, bias_bytes) = bias_layout(network);
    let stored = |values: &[f32]| -> Vec<u8> {
        match precision {
            Precision::F16 => values.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
            Precision::F32 | Precision::I8 => values.iter().flat_map(|&w| w.to_le_bytes()).collect(),
        }
    };
    let mut ops = vec![];
    for (index, (_, op)) in network.ops.iter().enumerate() {
        ops.push(match op {
            Op::Embed { output } => {
                let table = source.graph.classes.as_ref().map_or(&[][..], |classes| &classes.table);
                // Tables stay in single precision: they are small and everything depends on them.
                (Record::op(EMBED).id(8, Some(*output)), Some(table.to_vec()), None)
            }
            Op::Linear { source, linear, output } => {
                let record = Record::op(LINEAR).id(4, Some(*source)).id(8, Some(*output));
                (record.u32(24, writer.section(&stored(&linear.weight))), None, Some((28, linear.bias.clone())))
            }
            Op::Norm { sources, norm, output } => {
                let record = Record::op(GROUP_NORM)
                    .id(4, sources.first().copied())
                    .id(6, sources.get(1).copied())
                    .id(8, Some(*output))
                    .u16(16, norm.groups as u16)
                    .f32(56, norm.eps as f32);
                (record, Some(norm.gamma.clone()), Some((28, norm.beta.clone())))
            }
            Op::Attention { query, key_value, heads, scale, scratch, output } => {
                let record = Record::op(ATTENTION)
                    .id(4, Some(*query))
                    .id(6, Some(*key_value))
                    .id(8, Some(*output))
                    .id(14, Some(*scratch))
                    .u16(16, *heads as u16)
                    .f32(60, *scale);
                (record, None, None)
            }
            Op::Conv(conv) => {
                let taps = conv.conv.weight.len() / conv.conv.outputs;
                let weights = stored(&blocked(&conv.conv.weight, taps));
                let block = weights.len() / conv.conv.outputs.div_ceil(CHANNEL_BLOCK);
                let record = writer
                    .conv_weights(conv_record(network, conv), conv.window, &weights, block)
                    .u32(72, 4)
                    .f32(84, conv.residual.map_or(0.0, |(_, gain)| gain))
                    .f32(88, conv.input_affine.0)
                    .f32(92, conv.input_affine.1);
                match bias_places[index] {
                    Some(place) => (record.u32(28, place as u32), None, None),
                    None if conv.projection.is_some() => (record, None, None),
                    None => (record, None, Some((28, conv.conv.bias.clone()))),
                }
            }
        });
    }
    // Single-precision parameters follow the weights: `gamma` or a class table at 24, biases at 28.
    let ops = ops
        .into_iter()
        .map(|(mut record, at_24, other)| {
            if let Some(values) = at_24 {
                record = record.u32(24, writer.values(&values));
            }
            if let Some((at, values)) = other {
                record = record.u32(at, writer.values(&values));
            }
            record
        })
        .collect();

    let schedules = source
        .lists
        .iter()
        .map(|list| {
            let mut embeddings = vec![];
            let mut biases = vec![];
            for embedding in &list.embeddings {
                if network.conditioning > 0 {
                    embeddings.extend(embedding.iter().flat_map(|&e| (e as f32).to_le_bytes()));
                }
                let activated: Vec<f64> = embedding.iter().map(|&e| silu(e)).collect();
                let mut row = vec![0u8; bias_bytes];
                for ((_, op), place) in network.ops.iter().zip(&bias_places) {
                    if let (Op::Conv(conv), Some(place)) = (op, place)
                        && let Some((linear, _)) = &conv.projection
                    {
                        for (i, bias) in linear.apply(&activated).into_iter().enumerate() {
                            row[place + 4 * i..][..4].copy_from_slice(&(bias as f32).to_le_bytes());
                        }
                    }
                }
                biases.extend(row);
            }
            ScheduleEntry { steps: list.steps.iter().map(step_record).collect(), embeddings, biases, bias_bytes }
        })
        .collect();
    Emitted { tensors: tensor_table(network, plan, elements, |_| (1.0, 0)), ops, schedules }
}

/// Weights in blocks of eight outputs, (block, tap, output in block), zeros for missing outputs.
fn blocked(weight: &[f32], taps: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = weight.chunks_exact(taps).collect();
    let mut blocks = Vec::with_capacity(rows.len().next_multiple_of(CHANNEL_BLOCK) * taps);
    for block in rows.chunks(CHANNEL_BLOCK) {
        for tap in 0..taps {
            blocks.extend((0..CHANNEL_BLOCK).map(|i| block.get(i).map_or(0.0, |row| row[tap])));
        }
    }
    blocks
}

fn step_record(step: &Step) -> Record {
    let clip = step.clip.unwrap_or(f64::INFINITY);
    Record::new(STEP_BYTES)
        .i32(0, step.timestep as i32)
        .f32(4, clip as f32)
        .f32(8, step.x0_x as f32)
        .f32(12, step.x0_m as f32)
        .f32(20, step.next_x0 as f32)
        .f32(24, step.next_x as f32)
        .f32(28, step.next_m as f32)
        .f32(32, step.noise as f32)
}
