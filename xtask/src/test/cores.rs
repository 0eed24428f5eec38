//! The kernels of each core on that core: layers whose sizes divide badly give the host's results, operation by operation.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use waft::format::{Op, chunk_checksum};
use waft::{Model, Request as HostRequest, Session};
use waft_host::export::{ExportOptions, ResidualWidth, Room, WeightWidth, export_graph};
use waft_host::graph::{Graph, Op as Node, Shape};
use waft_host::sample::AlignedBytes;

use crate::bench::layers::{conv, time_embedding};
use crate::boards;
use crate::emulate::Request;
use crate::measure::profile;

/// One target of each instruction family.
const TARGETS: [&str; 6] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf/cortex-m55",
    "riscv32imc-unknown-none-elf",
    "aarch64-unknown-none",
];

/// Kernel's side and output channels of convolutions, each of which reads the one before.
const LAYERS: [[usize; 2]; 14] = [
    [3, 5],
    [3, 7],
    [1, 16],
    [3, 33],
    [3, 20],
    [1, 1],
    [3, 9],
    [1, 6],
    [3, 32],
    [3, 34],
    [1, 12],
    [3, 12],
    [1, 12],
    [3, 2],
];

/// A 9×9 map of three channels through all of them; those that keep the channels are added to what they read.
fn graph() -> Graph {
    let channels = 3;
    let mut graph = Graph::new(Shape::new(9, 9, channels), time_embedding());
    let (mut last, mut inputs) = (graph.input, channels);
    for (index, [kernel, outputs]) in LAYERS.into_iter().chain([[3, channels]]).enumerate() {
        let seed = 2 * index as u32;
        let node = graph.node(format!("layer {index}"), conv(kernel, 1, [inputs, outputs], seed), &[last]);
        let kept = inputs == outputs;
        last = if kept { graph.node(format!("sum {index}"), Node::Add, &[node, last]) } else { node };
        inputs = outputs;
    }
    graph.output = last;
    graph
}

/// A map of 8×16 pixels, which tiles divide, through 3×3 kernels of channels in groups of four; with residuals.
fn tiled_graph() -> Graph {
    let mut graph = Graph::new(Shape::new(8, 16, 4), time_embedding());
    let mut last = graph.input;
    for (index, [inputs, outputs]) in [[4, 8], [8, 8], [8, 20], [20, 36], [36, 36], [36, 10]].into_iter().enumerate() {
        let node = graph.node(format!("layer {index}"), conv(3, 1, [inputs, outputs], 2 * index as u32), &[last]);
        let kept = inputs == outputs;
        last = if kept { graph.node(format!("sum {index}"), Node::Add, &[node, last]) } else { node };
    }
    graph.output = graph.node("last", conv(1, 1, [10, 4], 99), &[last]);
    graph
}

/// Runs them in rings and in patches, with streams of eight and of sixteen bits, and with weights of eight and of four; and by
/// tiles, with weights as they are and transformed in the file.
pub(super) fn kernels_on_cores() -> anyhow::Result<()> {
    let free = Room::Bytes(u64::MAX);
    let mut networks = vec![];
    for (patches, residual, weights) in [
        (free, ResidualWidth::Narrow, WeightWidth::Eight),
        (free, ResidualWidth::Wide, WeightWidth::Eight),
        (Room::None, ResidualWidth::Narrow, WeightWidth::Eight),
        (free, ResidualWidth::Narrow, WeightWidth::Four),
        (free, ResidualWidth::Wide, WeightWidth::Four),
    ] {
        networks.push((graph(), patches, (residual, weights), None));
    }
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        networks
            .extend([None, Some(u64::MAX)].map(|flash| (tiled_graph(), free, (residual, WeightWidth::Eight), flash)));
    }
    for (graph, patches, (residual, weights), budget_flash) in networks {
        let convolutions = graph.nodes.len();
        let options = ExportOptions {
            steps: vec![1],
            calibration_images: 2,
            residual,
            weights,
            patches,
            budget_flash,
            ..Default::default()
        };
        let export = export_graph(graph, &options, &())?;
        let model = Model::from_bytes(export.bytes.as_slice())?;
        let is_stored = |op: &Op| matches!(op, Op::Conv2d(op) if op.layout().is_transformed());
        let stored = (0..model.ops()).filter_map(|index| model.op(index)).filter(is_stored).count();
        ensure!(
            (stored > 0) == budget_flash.is_some(),
            "{residual:?}: {stored} of {convolutions} nodes have transformed weights"
        );
        let expected = on_host(&model)?;
        for target in TARGETS {
            let board = boards::find(target)?[0];
            let found = profile(board, export.bytes.as_slice(), &Request::default())?;
            for (index, checksum) in &expected {
                let found = found.get(index).with_context(|| format!("{target}: operation {index} was not counted"))?;
                ensure!(
                    found.checksum == *checksum,
                    "{target}, {patches:?}, {residual:?}, {weights:?}: operation {index} differs from the host's"
                );
            }
        }
    }
    eprintln!("layers of odd sizes: the same results on {} cores", TARGETS.len());
    Ok(())
}

/// The checksum of each convolution's result on this machine.
fn on_host(model: &Model<'_>) -> anyhow::Result<BTreeMap<u16, u32>> {
    let mut arena = AlignedBytes::zeroed(model.arena_bytes());
    let mut session = Session::new(model, arena.as_mut_slice())?;
    let mut run = session.sample(HostRequest::new())?;
    let mut checksums = BTreeMap::new();
    loop {
        let before = run.operation();
        let ended = run.step()?.is_none();
        if let Some(index) = before.filter(|_| ended || run.operation() != before)
            && let Some(Op::Conv2d(op)) = model.op(index)
        {
            let output = run.tensor_bytes(op.output).context("the layer has an output")?;
            checksums.insert(index, chunk_checksum(output));
        }
        if ended {
            return Ok(checksums);
        }
    }
}
