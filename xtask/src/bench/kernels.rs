//! `bench kernels`: instructions of single layers on a core, beside CMSIS-NN.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use waft::format::{Conv2d, Element, Op, WeightLayout, chunk_checksum};
use waft::{Model, Request as HostRequest, Session};
use waft_host::cost::Way;
use waft_host::export::{ExportOptions, ResidualWidth, Room, export_graph};
use waft_host::progress::Progress;
use waft_host::sample::AlignedBytes;

use super::layers::{LAYERS, Layer, OPERATION, RESNET8, SUM, SUM_ELEMENTS};
use super::measured::{Measured, OF_WORDS, Variant};
use crate::args::{Bar, print_json};
use crate::boards::{self, Board};
use crate::emulate::Request;
use crate::linux;
use crate::measure::{kernels, profile};

/// What the firmware runs, here: its results are compared.
#[path = "../../../tests/firmware/src/kernels.rs"]
#[expect(dead_code, unreachable_pub, reason = "written for the firmware, which is a crate of its own")]
mod shared;
use shared::trials;

/// Instructions of single layers on a core under QEMU, beside CMSIS-NN's best.
///
/// A layer runs in a network of its own as the exporter makes it: gather, products, requantization, 8-bit activations and
/// weights. Where its output differs from the host's, there is no figure but an error.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Target triple, with `/core` where several cores share it; `aarch64-unknown-linux-musl` counts what hosts run, with each
    /// instruction set of that processor.
    #[arg(long, default_value = "thumbv7em-none-eabihf")]
    target: String,
    /// Measure these layers only, separated by commas.
    #[arg(long, value_delimiter = ',')]
    layers: Vec<String>,
    /// Measure the nine convolutions of MLPerf Tiny's ResNet-8 instead.
    #[arg(long, conflicts_with = "layers")]
    resnet8: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Memory that the firmware has for any model.
const ARENA_BYTES: u64 = 384 * 1024;

/// CMSIS-NN 7.0: the fewest instructions of twelve configurations of gcc 12.2 and clang 22, by layer and core.
const PEER: &str = include_str!("cmsis_nn.json");

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.target == linux::TARGET {
        return run_on_linux(args);
    }
    let board = match boards::find(&args.target)?.as_slice() {
        [board] => *board,
        _ => anyhow::bail!("--target {}: one target at a time", args.target),
    };
    let parts = [SUM[0].name, "softmax_64x64", "bmm_64x64x32"];
    let names: Vec<&str> = LAYERS.iter().map(|layer| layer.name).chain(parts).collect();
    if let Some(name) = args.layers.iter().find(|name| !names.contains(&name.as_str())) {
        anyhow::bail!("--layers {name}: layers are {}", names.join(", "));
    }
    let peer: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_str(PEER).context("cmsis_nn.json")?;
    let core = board.core.trim_start_matches("Cortex-");
    let cmsis_nn = |name: &str| peer.get(name).and_then(|cores| cores.get(core)).copied();
    let is_chosen = |name: &str| args.layers.is_empty() || args.layers.iter().any(|chosen| chosen == name);
    let layers: &[Layer] = if args.resnet8 { &RESNET8 } else { &LAYERS };
    let layers: Vec<&Layer> = layers.iter().filter(|layer| args.resnet8 || is_chosen(layer.name)).collect();
    let parts: Vec<&str> = parts.into_iter().filter(|name| !args.resnet8 && is_chosen(name)).collect();
    let bar = Bar::default();
    bar.begin("layers", layers.len() as u64 + u64::from(!parts.is_empty()));
    let mut measured = vec![];
    for layer in layers {
        measured.push(measure(layer, board, cmsis_nn(layer.name)).with_context(|| layer.name)?);
        bar.advance(1);
    }
    if !parts.is_empty() {
        for (name, size, variant) in measure_parts(board, &parts)? {
            measured.push(Measured::best(name, size, vec![variant], cmsis_nn(name))?);
        }
        bar.advance(1);
    }
    bar.end();
    print(args, &measured)?;
    if !args.json {
        super::aims::print_missed(core, &measured);
    }
    Ok(())
}

/// What hosts run: each instruction set of the emulated processor.
fn run_on_linux(args: &Args) -> anyhow::Result<()> {
    const SETS: [&str; 3] = ["NEON with dot products", "NEON", "portable"];
    linux::build()?;
    let layers: &[Layer] = if args.resnet8 { &RESNET8 } else { &LAYERS };
    if let Some(name) = args.layers.iter().find(|name| layers.iter().all(|layer| layer.name != name.as_str())) {
        anyhow::bail!("--layers {name}: layers of this target are convolutions and dense layers");
    }
    let is_chosen = |layer: &&Layer| args.layers.is_empty() || args.layers.iter().any(|name| name == layer.name);
    let layers: Vec<&Layer> = layers.iter().filter(is_chosen).collect();
    let bar = Bar::default();
    bar.begin("layers", layers.len() as u64);
    let mut measured = vec![];
    for layer in layers {
        let model = exported(layer, ResidualWidth::Narrow, Room::None, None)?;
        let parsed = Model::from_bytes(&model)?;
        let expected = on_host(&parsed)?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &model)?;
        let variants = SETS.map(|set| -> anyhow::Result<Variant> {
            let counted = linux::operation(file.path(), OPERATION + 1, set)?;
            ensure!(counted.checksum == expected, "{}, {set}: the output differs from this machine's", layer.name);
            let instructions = counted.instructions;
            // What the transformed input takes is not the plan's.
            Ok(Variant { variant: set.into(), instructions, scratch_bytes: 0, flash_factor: 1.0 })
        });
        let variants = variants.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        measured.push(Measured::best(layer.name, layer.macs(), variants, None)?);
        bar.advance(1);
    }
    bar.end();
    print(args, &measured)
}

/// Prints what layers take.
fn print(args: &Args, measured: &[Measured]) -> anyhow::Result<()> {
    if args.json {
        return print_json(&serde_json::json!({ "target": args.target, "layers": measured }));
    }
    println!(
        "{:<22} {:>11} {:>13} {:>7} {:>9} {:>6} {:>12}  variant",
        "layer", "MACs", "instructions", "a MAC", "scratch", "flash", "CMSIS-NN ×"
    );
    for layer in measured {
        for variant in &layer.variants {
            let per_mac = variant.instructions as f64 / layer.macs as f64;
            let ratio = layer.ratio_to_cmsis_nn.map_or_else(
                || "-".into(),
                |ratio| format!("{:.2}", ratio * variant.instructions as f64 / layer.instructions as f64),
            );
            println!(
                "{:<22} {:>11} {:>13} {per_mac:>7.2} {:>9} {:>6.1} {ratio:>12}  {}",
                layer.layer,
                layer.macs,
                variant.instructions,
                variant.scratch_bytes,
                variant.flash_factor,
                variant.variant
            );
        }
    }
    Ok(())
}

fn measure(layer: &Layer, board: &'static Board, cmsis_nn: Option<u64>) -> anyhow::Result<Measured> {
    let networks = networks(layer)?;
    let variants = networks.iter().map(|network| variant(board, network)).collect::<anyhow::Result<_>>()?;
    Measured::best(layer.name, layer.macs(), variants, cmsis_nn)
}

/// The layer's networks, one for each way to compute it that the exporter has where memory or flash are free, and less and less
/// of it: over rings of 8 bits first, then of 16.
pub(crate) fn networks(layer: &Layer) -> anyhow::Result<Vec<Vec<u8>>> {
    let (mut names, mut networks) = (vec![], vec![]);
    let mut add = |network: Vec<u8>| -> anyhow::Result<u64> {
        let model = Model::from_bytes(&network)?;
        let (name, arena) = (name(&model)?, model.arena_bytes() as u64);
        if !names.contains(&name) {
            names.push(name);
            networks.push(network);
        }
        Ok(arena)
    };
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        let mut room = ARENA_BYTES;
        loop {
            let arena = add(exported(layer, residual, Room::Bytes(room), None)?)?;
            // What needs most makes way, until only what needs no room is left.
            if arena > room {
                break;
            }
            room = arena - 1;
        }
        add(exported(layer, residual, Room::None, None)?)?;
        add(exported(layer, residual, Room::Bytes(ARENA_BYTES), Some(u64::MAX))?)?;
    }
    Ok(networks)
}

/// Measures what is a part of an operation: its name, its elements or multiply-accumulates, and what it takes.
fn measure_parts(board: &'static Board, names: &[&'static str]) -> anyhow::Result<Vec<(&'static str, usize, Variant)>> {
    let exact = "this machine has no exact counter";
    let plain = |variant: &str, instructions| Variant {
        variant: variant.into(),
        instructions,
        scratch_bytes: 0,
        flash_factor: 1.0,
    };
    let [without, with] = SUM.map(|layer| exported(&layer, ResidualWidth::Narrow, Room::Bytes(u64::MAX), None));
    let (without, with) = (without?, with?);
    let mut measured = vec![];
    if names.contains(&SUM[0].name) {
        let [without, with] = [variant(board, &without)?, variant(board, &with)?];
        let more = with.instructions.saturating_sub(without.instructions);
        measured.push((SUM[0].name, SUM_ELEMENTS, plain("what a residual adds to a convolution", more)));
    }
    let parts = [("softmax_64x64", 64 * 64, "weights of scores"), ("bmm_64x64x32", 64 * 64 * 32, "scores")];
    if parts.iter().any(|(name, ..)| names.contains(name)) {
        let found = kernels(board, &without)?;
        for trial in trials(|| 0) {
            let Some((name, size, what)) = parts.into_iter().find(|(name, ..)| *name == trial.name) else { continue };
            let (instructions, checksum) =
                *found.get(name).with_context(|| format!("the firmware did not run {name}"))?;
            ensure!(checksum == trial.checksum, "{name}: results differ from the host's");
            if names.contains(&name) {
                measured.push((name, size, plain(what, instructions.context(exact)?)));
            }
        }
    }
    Ok(measured)
}

/// The file of a layer's network.
fn exported(
    layer: &Layer,
    residual: ResidualWidth,
    patches: Room,
    budget_flash: Option<u64>,
) -> anyhow::Result<Vec<u8>> {
    let options =
        ExportOptions { steps: vec![1], calibration_images: 2, residual, patches, budget_flash, ..Default::default() };
    Ok(export_graph(layer.graph(), &options, &())?.bytes.as_slice().to_vec())
}

/// The layer's record.
fn record(model: &Model<'_>) -> anyhow::Result<Conv2d> {
    match model.op(OPERATION) {
        Some(Op::Conv2d(op)) => Ok(op),
        op => anyhow::bail!("operation {OPERATION} is {op:?}"),
    }
}

/// What the way to compute the layer of a model is called.
fn name(model: &Model<'_>) -> anyhow::Result<String> {
    let op = record(model)?;
    let way = match (Way::of(&op), op.layout().is_transformed()) {
        (Way::Ring, _) => "ring".into(),
        (Way::Patches, _) => "patches".into(),
        (Way::Tiles(_), true) => "tiles, stored".into(),
        (Way::Tiles(1), false) => "tiles, a row".into(),
        (Way::Tiles(rows), false) => format!("tiles, {rows} rows"),
    };
    let is_wide = model.tensor(op.scratch).is_some_and(|ring| ring.element() == Element::I16);
    Ok(if is_wide { format!("{way}{OF_WORDS}") } else { way })
}

/// Measures the layer of a model, and compares its output with the host's.
fn variant(board: &'static Board, model: &[u8]) -> anyhow::Result<Variant> {
    let parsed = Model::from_bytes(model)?;
    let (op, variant) = (record(&parsed)?, name(&parsed)?);
    let request = Request::default();
    let measured = profile(board, model, &request)?;
    let operation = measured.get(&OPERATION).context("the firmware did not count the layer")?;
    let expected = on_host(&parsed)?;
    ensure!(operation.checksum == expected, "{variant}: the output differs from the host's");
    let channels = |id| parsed.tensor(id).map_or(0, |tensor| u64::from(tensor.channels));
    let bytes = |layout: WeightLayout| layout.bytes(channels(op.output), op.taps(channels(op.scratch))) as f64;
    let scratch = [op.scratch, op.patches].into_iter().filter_map(|id| parsed.tensor(id));
    Ok(Variant {
        variant,
        instructions: operation.instructions.context("this machine has no exact counter")?,
        scratch_bytes: scratch.map(|tensor| u64::from(tensor.bytes)).sum(),
        flash_factor: bytes(op.layout()) / bytes(WeightLayout::Rows8),
    })
}

/// The checksum of the layer's output on this machine.
fn on_host(model: &Model<'_>) -> anyhow::Result<u32> {
    let mut arena = AlignedBytes::zeroed(model.arena_bytes());
    let mut session = Session::new(model, arena.as_mut_slice())?;
    let mut run = session.sample(HostRequest::new())?;
    while run.operation() != Some(OPERATION + 1) {
        ensure!(run.step()?.is_some(), "the run ended before the layer did");
    }
    let output = record(model)?.output;
    Ok(chunk_checksum(run.tensor_bytes(output).context("the layer has an output")?))
}
