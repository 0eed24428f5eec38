//! From the operations of a [`Network`] to the records and parameters of a file, one file for each precision family.

pub mod float;
pub mod i8;

use waft::format::Element;

use crate::graph::{Graph, silu};
use crate::lower::{Network, Op, Role};
use crate::plan::Plan;
use crate::schedule::Step;
use crate::write::{Record, ScheduleEntry, TensorEntry};

/// One step list of the export, with what its timesteps fix.
#[derive(Clone, Debug)]
pub struct StepList {
    /// The steps; each may have any timestep.
    pub steps: Vec<Step>,
    /// The time embedding of each step, before the class and the SiLU.
    pub embeddings: Vec<Vec<f64>>,
}

impl StepList {
    /// Computes the embeddings of the given steps.
    pub fn new(graph: &Graph, steps: Vec<Step>) -> Self {
        let embeddings = steps.iter().map(|step| graph.time.embed(step.timestep as f64)).collect();
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
    pub tensors: Vec<TensorEntry>,
    /// Operation table.
    pub ops: Vec<Record>,
    /// Schedules.
    pub schedules: Vec<ScheduleEntry>,
}

/// Kinds of records, in the order that the format numbers them.
const CONV2D: u8 = 0;
const GROUP_NORM: u8 = 1;
const ATTENTION: u8 = 2;
const EMBED: u8 = 3;
const LINEAR: u8 = 4;

/// The conditioning vector `silu(time + class)` of every step of every list and every class, for ranges.
pub fn conditioning_peak(source: &Source<'_>) -> f64 {
    let mut peak = 1e-6f64;
    for embedding in source.lists.iter().flat_map(|list| &list.embeddings) {
        for_each_class(source.graph, |class| {
            for (i, &time) in embedding.iter().enumerate() {
                peak = peak.max(silu(time + class.map_or(0.0, |row| f64::from(row[i]))).abs());
            }
        });
    }
    peak
}

/// Calls `f` with the row of each class, or once with none.
fn for_each_class<'g>(graph: &'g Graph, mut f: impl FnMut(Option<&'g [f32]>)) {
    match &graph.classes {
        None => f(None),
        Some(classes) => classes.table.chunks_exact(graph.time.linear_2.outputs).for_each(|row| f(Some(row))),
    }
}

/// The fields of a convolution's record that do not depend on the precision.
fn conv_record(network: &Network, conv: &crate::lower::Conv) -> Record {
    let bias_tensor = conv.projection.as_ref().and_then(|(_, id)| *id);
    let bias = match (&conv.projection, bias_tensor) {
        (None, _) => 0,
        (Some(_), None) => 1,
        (Some(_), Some(_)) => 2,
    };
    let gather = match (conv.norm, conv.silu) {
        (None, _) => 0,
        (Some(_), false) => 1,
        (Some(_), true) => 2,
    };
    debug_assert!(network.tensors[conv.ring].shape.c == conv.conv.inputs);
    Record::op(CONV2D)
        .u8(1, gather)
        .u8(2, conv.upsample.into())
        .id(4, conv.sources.first().copied())
        .id(6, conv.sources.get(1).copied())
        .id(8, Some(conv.output))
        .id(10, conv.residual.map(|(id, _)| id))
        .id(12, conv.norm)
        .id(14, Some(conv.ring))
        .u8(16, conv.conv.kernel[0] as u8)
        .u8(17, conv.conv.kernel[1] as u8)
        .u8(18, conv.conv.stride as u8)
        .u8(19, conv.conv.padding[0] as u8)
        .u8(20, conv.conv.padding[1] as u8)
        .u8(21, bias)
        .id(22, bias_tensor)
}

/// Tensor table from a plan.
fn tensor_table(
    network: &Network,
    plan: &Plan,
    elements: &[Element],
    scale: impl Fn(usize) -> (f64, i32),
) -> Vec<TensorEntry> {
    (0..network.tensors.len())
        .map(|id| {
            let shape = network.tensors[id].shape;
            let placement = plan.placements[id];
            // Maps are two values for each of a row of channels, vectors a row of one pixel.
            let (scale, zero) = scale(id);
            TensorEntry {
                offset: placement.offset,
                shape: [shape.h, shape.w, shape.c],
                element: elements[id],
                life: [placement.first, placement.last],
                scale,
                zero,
            }
        })
        .collect()
}

/// Per-step biases of the convolutions whose shift depends on the timestep alone: where each starts in a row, and the
/// length of a row.
fn bias_layout(network: &Network) -> (Vec<Option<usize>>, usize) {
    let mut at = 0;
    let places = network
        .ops
        .iter()
        .map(|(_, op)| match op {
            Op::Conv(conv) if matches!(conv.projection, Some((_, None))) => {
                let place = at;
                at = (at + 4 * conv.conv.outputs).next_multiple_of(waft::format::ALIGN);
                Some(place)
            }
            _ => None,
        })
        .collect();
    (places, at)
}

/// Elements of every tensor in a float precision.
pub fn float_elements(network: &Network, activation: Element) -> Vec<Element> {
    let element = |role| match role {
        Role::Stream | Role::Attention => activation,
        _ => Element::F32,
    };
    network.tensors.iter().map(|tensor| element(tensor.role)).collect()
}
