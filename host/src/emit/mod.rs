//! From the operations of a [`Network`] to the records and parameters of a file, one file for each precision family.

pub mod float;
pub mod i8;

use bytemuck::Zeroable;
use typed_index_collections::{TiSlice, TiVec};
use waft::fixed::SAMPLE_BITS;
use waft::format::{
    Activate, Affine, Attention, Bias, Center, Classifier, Conv2d, Element, Film, Filter, Gather, GroupNorm,
    LEVEL_BITS, LayerNorm, Level, LinearAttention, ORDER_BITS, Observe, Op, OpKind, Pass, START_BITS, Shuffle, Tensor,
    Threshold, Upsample, Variance, WEIGHT_BITS, WeightLayout,
};

use crate::graph::{Graph, Linear, activate};
use crate::network::{self, Network, OpId, Role, TensorId};
use crate::plan::Plan;
use crate::schedule::{Step, Thresholding};
use crate::write::{ScheduleEntry, Steps, StoredWeights, optional};

/// One step list of the export, with what its timesteps fix.
#[derive(Clone, Debug)]
pub struct StepList {
    /// The steps; each may have any timestep.
    pub steps: Vec<Step>,
    /// The time embedding of each step, before the class and the activation.
    pub embeddings: Vec<Vec<f64>>,
}

impl StepList {
    /// Computes the embeddings of the given steps.
    ///
    /// # Panics
    /// If the network has [no vector](crate::graph::Projection::missing) of some timestep.
    pub fn new(graph: &Graph, steps: Vec<Step>) -> Self {
        let embeddings = steps.iter().map(|step| graph.embed(step.timestep)).collect();
        Self { steps, embeddings }
    }
}

/// What every precision's emitter starts from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The mathematics: conditioning and classes.
    pub graph: &'a Graph,
    /// The operations.
    pub network: &'a Network,
    /// The step lists.
    pub lists: &'a [StepList],
}

/// What an emitter adds to a file.
#[derive(Debug)]
pub struct Emitted {
    /// Tensor table.
    pub tensors: Vec<Tensor>,
    /// Operation table.
    pub ops: Vec<Op>,
    /// Schedules.
    pub schedules: Vec<ScheduleEntry>,
}

/// The conditioning vector `activation(time + class)` of every step of every list and every class, for ranges.
pub fn conditioning_peak(source: &Source<'_>) -> f64 {
    let mut peak = 1e-6f64;
    let (_, activation) = source.graph.class_row();
    for embedding in source.lists.iter().flat_map(|list| &list.embeddings) {
        for_each_class(source.graph, |class| {
            for (i, &time) in embedding.iter().enumerate() {
                let sum = time + class.and_then(|row| row.get(i)).map_or(0.0, |&entry| f64::from(entry));
                peak = peak.max(activate(activation, sum).abs());
            }
        });
    }
    peak
}

/// Calls `f` with the row of each class, or once with none.
fn for_each_class<'g>(graph: &'g Graph, mut f: impl FnMut(Option<&'g [f32]>)) {
    match &graph.classes {
        None => f(None),
        Some(classes) => classes.table.chunks_exact(graph.class_row().0).for_each(|row| f(Some(row))),
    }
}

/// The fields of a convolution's record that do not depend on the precision, and where its weights are.
fn conv_record(network: &Network, conv: &network::Conv2d, layout: WeightLayout, stored: StoredWeights) -> Conv2d {
    let bias_tensor = conv.projection.as_ref().and_then(|(_, id)| *id);
    let bias = match (&conv.projection, bias_tensor) {
        (None, _) => Bias::Constant,
        (Some(_), None) => Bias::Step,
        (Some(_), Some(_)) => Bias::Tensor,
    };
    let gather = conv.norm.map_or(Gather::Raw, |_| Gather::affine(conv.activation));
    debug_assert!(network.tensors[conv.ring].shape.c == conv.conv.inputs);
    let StoredWeights { weights, window, chunk_blocks, checks } = stored;
    Conv2d {
        kind: OpKind::Conv2d.code(),
        gather: gather.code(),
        upsample: if conv.upsample { Upsample::Nearest } else { Upsample::None }.code(),
        layout: layout.code(),
        sources: sources(&conv.sources),
        output: conv.output.in_file(),
        residual: optional(conv.residual.map(|(id, _)| id)),
        norm: optional(conv.norm),
        scratch: conv.ring.in_file(),
        patches: optional(conv.patches),
        tile_rows: conv.tile_rows as u8,
        ring_limit: conv.ring_limit,
        shuffle: if conv.shuffle { Shuffle::Columns } else { Shuffle::None }.code(),
        kernel: conv.conv.kernel.map(|size| size as u8),
        stride: conv.conv.stride as u8,
        padding: [conv.conv.padding[0] as u8, conv.conv.padding[1] as u8],
        bias: bias.code(),
        bias_tensor: optional(bias_tensor),
        weights,
        window,
        chunk_blocks,
        checks,
        // Read with a normalization only, but in range always.
        affine_shift: 4,
        ..Zeroable::zeroed()
    }
}

/// The operands of an attention's record.
fn attention_record(op: &network::Attention) -> Attention {
    Attention {
        kind: OpKind::Attention.code(),
        query: op.query.in_file(),
        key_value: op.key_value.in_file(),
        output: op.output.in_file(),
        scratch: op.scratch.in_file(),
        heads: op.heads as u16,
        memory: op.memory.len as u16,
        ..Zeroable::zeroed()
    }
}

/// The operands of a linear attention's record.
fn linear_attention_record(op: &network::LinearAttention) -> LinearAttention {
    LinearAttention {
        kind: OpKind::LinearAttention.code(),
        query: op.query.in_file(),
        key_value: op.key_value.in_file(),
        output: op.output.in_file(),
        scratch: op.scratch.in_file(),
        heads: op.heads as u16,
        memory: op.memory.len as u16,
        ..Zeroable::zeroed()
    }
}

/// The fields of an activation's record that do not depend on the precision. `place` is that of the step's part of factors and
/// summands among the per-step biases.
fn activate_record(op: &network::Activate, place: Option<usize>) -> Activate {
    let film = match &op.film {
        None => Film::None,
        Some(film) if film.is_scaled => Film::ScaleShift,
        Some(_) => Film::Shift,
    };
    Activate {
        kind: OpKind::Activate.code(),
        activation: op.activation.code(),
        film: film.code(),
        source: op.source.in_file(),
        output: op.output.in_file(),
        residual: optional(op.residual),
        norm: op.norm.in_file(),
        observed: optional(op.film.as_ref().and_then(|film| film.observed)),
        film_at: place.unwrap_or(0) as u32,
        ..Zeroable::zeroed()
    }
}

/// The fields of the record of a classifier's operation that do not depend on the precision. `place` is that of the step's factor
/// among the per-step biases.
fn classifier_record(op: &network::Classifier, place: Option<usize>) -> Classifier {
    Classifier {
        kind: OpKind::Classifier.code(),
        pass: op.pass.code(),
        source: op.source.in_file(),
        gradient: optional(op.gradient),
        output: op.output.in_file(),
        factor_at: place.unwrap_or(0) as u32,
        ..Zeroable::zeroed()
    }
}

/// The fields of a filter's record that do not depend on the precision.
fn filter_record(op: &network::Filter) -> Filter {
    Filter {
        kind: OpKind::Filter.code(),
        resampling: op.resampling.code(),
        source: op.source.in_file(),
        output: op.output.in_file(),
        ..Zeroable::zeroed()
    }
}

/// The operands of an observation's record.
fn observe_record(source: &Source<'_>, op: &network::Observe) -> Observe {
    Observe {
        kind: OpKind::Observe.code(),
        activation: source.graph.activation.code(),
        source: op.source.in_file(),
        output: op.output.in_file(),
        ..Zeroable::zeroed()
    }
}

/// The one or two inputs of an operation.
fn sources(ids: &[TensorId]) -> [u16; 2] {
    [optional(ids.first().copied()), optional(ids.get(1).copied())]
}

/// Tensor table from a plan; `scale` gives the real value of a unit and the zero point, for reports.
fn tensor_table(
    network: &Network,
    plan: &Plan,
    elements: &TiSlice<TensorId, Element>,
    scale: impl Fn(TensorId) -> (f64, i32),
) -> Vec<Tensor> {
    network
        .tensors
        .iter_enumerated()
        .map(|(id, tensor)| {
            let shape = tensor.shape;
            let placement = plan.placements[id];
            let (scale, zero_point) = scale(id);
            Tensor {
                offset: placement.offset as u32,
                bytes: (shape.len() * elements[id].bytes()) as u32,
                rows: shape.h as u16,
                columns: shape.w as u16,
                channels: shape.c as u16,
                element: elements[id].code(),
                first: placement.first as u16,
                last: placement.last as u16,
                scale: scale as f32,
                zero_point,
                ..Zeroable::zeroed()
            }
        })
        .collect()
}

/// The schedules of all lists. `row` fills the biases of a step, `bias_bytes` long, from the number of its list and its own
/// and from the conditioning vector without a class; `entry` is a number of a time embedding as the precision stores it.
fn schedules(
    source: &Source<'_>,
    bias_bytes: usize,
    steps: impl Fn(&[Step]) -> Steps,
    entry: impl Fn(f64, &mut Vec<u8>),
    row: impl Fn([usize; 2], &[f64], &mut [u8]),
) -> Vec<ScheduleEntry> {
    let emit = |(number, list): (usize, &StepList)| {
        let mut embeddings = vec![];
        let mut biases = vec![0u8; bias_bytes * list.embeddings.len()];
        for (step, embedding) in list.embeddings.iter().enumerate() {
            embedding.iter().take(source.network.conditioning).for_each(|&e| entry(e, &mut embeddings));
            let activated: Vec<f64> = embedding.iter().map(|&e| activate(source.graph.activation, e)).collect();
            row([number, step], &activated, &mut biases[bias_bytes * step..][..bias_bytes]);
        }
        let fixed = |value: f64, bits: u32| (value * 2f64.powi(bits as i32)).round() as i32;
        let level = |step: &Step| Level {
            signal: fixed(step.level.signal, LEVEL_BITS),
            noise: fixed(step.level.noise, LEVEL_BITS),
        };
        let levels = list.steps.iter().map(level).collect();
        let start = list.steps.first().map_or(1.0, |step| step.level.start);
        // As a rule it is 1, for which the device has a shorter way.
        let start = if start == 1.0 { 0 } else { fixed(start, START_BITS) };
        let elements = source.graph.shape(source.graph.input).len();
        let threshold = list.steps.first().and_then(|step| step.thresholding).map(|of| threshold(of, elements));
        let variance = |step: &Step| Variance { orders: fixed(step.variance.unwrap_or(0.0), ORDER_BITS) };
        let learned = if source.network.variance.is_some() { list.steps.as_slice() } else { &[] };
        let variances = learned.iter().map(variance).collect();
        ScheduleEntry { steps: steps(&list.steps), variances, levels, start, threshold, embeddings, biases, bias_bytes }
    };
    source.lists.iter().enumerate().map(emit).collect()
}

/// The record of dynamic thresholding over pictures of so many elements. The quantile's place is computed in single precision as
/// PyTorch does.
fn threshold(Thresholding { ratio, limit }: Thresholding, elements: usize) -> Threshold {
    let place = ratio as f32 * (elements.max(1) - 1) as f32;
    Threshold {
        rank: place as u32,
        weight: (place.fract() * (1 << WEIGHT_BITS) as f32) as u32,
        limit: (limit * f64::from(1 << SAMPLE_BITS)).round() as i32,
        reserved: [0; 4],
    }
}

/// What depends on the timestep alone, of the operations that have such a part: where it starts in a row of per-step biases,
/// and the length of a row. Factors and summands of a normalization are two vectors, each aligned.
fn bias_layout(network: &Network) -> (TiVec<OpId, Option<usize>>, usize) {
    let mut at = 0;
    let mut place = |bytes: usize| {
        let place = at;
        at += bytes;
        Some(place)
    };
    let places = network
        .ops
        .iter()
        .map(|(_, op)| match op {
            network::Op::Conv2d(conv) if matches!(conv.projection, Some((_, None))) => {
                place(aligned(conv.conv.outputs))
            }
            network::Op::GroupNorm(norm) if matches!(norm.projection, Some((_, None))) => {
                place(2 * aligned(norm.norm.gamma.len()))
            }
            network::Op::LayerNorm(norm) if norm.projection.is_some() => place(2 * aligned(norm.norm.gamma.len())),
            network::Op::Activate(op) => op.film.as_ref().and_then(|film| place(aligned(film.linear.outputs))),
            network::Op::Classifier(op) if op.pass == Pass::BackwardScaled => place(aligned(2)),
            _ => None,
        })
        .collect();
    (places, at)
}

/// Bytes of a vector of words among the per-step biases.
fn aligned(words: usize) -> usize {
    (4 * words).next_multiple_of(waft::format::ALIGN)
}

/// The projection that an operation has among the per-step biases.
fn step_projection(op: &network::Op) -> Option<&Linear> {
    match op {
        network::Op::Conv2d(conv) => conv.projection.as_ref(),
        network::Op::GroupNorm(norm) => norm.projection.as_ref(),
        network::Op::LayerNorm(norm) => return norm.projection.as_ref(),
        network::Op::Activate(op) => return op.film.as_ref().map(|film| &film.linear),
        _ => None,
    }
    .filter(|(_, tensor)| tensor.is_none())
    .map(|(linear, _)| linear)
}

/// Puts the words of a normalization's factors and summands to their places among the per-step biases.
fn put_affine(words: impl ExactSizeIterator<Item = [u8; 4]>, row: &mut [u8]) {
    let channels = words.len() / 2;
    for (i, word) in words.enumerate() {
        let at = if i < channels { 4 * i } else { aligned(channels) + 4 * (i - channels) };
        row[at..at + 4].copy_from_slice(&word);
    }
}

/// The fields of a normalization's record that do not depend on the precision. `place` is that of its factors and summands
/// among the per-step biases; constant ones are written as `vectors`.
fn group_norm_record(
    op: &network::GroupNorm,
    place: Option<usize>,
    vectors: impl FnOnce(&crate::graph::GroupNorm) -> [u32; 2],
) -> GroupNorm {
    let channels = op.norm.gamma.len();
    let tensor = op.projection.as_ref().and_then(|(_, id)| *id);
    let (affine, [gamma, beta]) = match (place, tensor) {
        (Some(place), _) => (Affine::Step, [place as u32, (place + aligned(channels)) as u32]),
        (None, Some(_)) => (Affine::Tensor, [0; 2]),
        (None, None) => (Affine::Constant, vectors(&op.norm)),
    };
    GroupNorm {
        kind: OpKind::GroupNorm.code(),
        affine: affine.code(),
        affine_tensor: tensor.map_or(0, TensorId::in_file),
        sources: sources(&op.sources),
        output: op.output.in_file(),
        groups: op.norm.groups as u16,
        epsilon: op.norm.eps as f32,
        gamma,
        beta,
        ..Zeroable::zeroed()
    }
}

/// The fields of the record of a normalization over channels that do not depend on the precision. `place` is that of its
/// factors and summands among the per-step biases; constant ones are at `vectors`.
fn layer_norm_record(
    op: &network::LayerNorm,
    place: Option<usize>,
    vectors: impl FnOnce(&crate::graph::LayerNorm) -> [u32; 2],
) -> LayerNorm {
    let channels = op.norm.gamma.len();
    let (affine, [gamma, beta]) = match place {
        Some(place) => (Affine::Step, [place as u32, (place + aligned(channels)) as u32]),
        None => (Affine::Constant, vectors(&op.norm)),
    };
    LayerNorm {
        kind: OpKind::LayerNorm.code(),
        center: if op.norm.is_centered { Center::Mean } else { Center::Zero }.code(),
        affine: affine.code(),
        gather: Gather::affine(op.activation).code(),
        source: op.source.in_file(),
        output: op.output.in_file(),
        residual: optional(op.residual),
        epsilon: op.norm.eps as f32,
        gamma,
        beta,
        ..Zeroable::zeroed()
    }
}

/// Elements of every tensor in a float precision.
pub fn float_elements(network: &Network, activation: Element) -> TiVec<TensorId, Element> {
    let element = |role| match role {
        Role::Stream | Role::Attention | Role::KeyValue | Role::Features | Role::Backward | Role::Loss => activation,
        _ => Element::F32,
    };
    network.tensors.iter().map(|tensor| element(tensor.role)).collect()
}
