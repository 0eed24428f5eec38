//! `bench models`: instructions of whole networks, split by operation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use waft::Model;
use waft::format::{Conv2d, NONE, Op};
use waft_host::progress::Progress;
use waft_host::{cost, shipped};

use super::bars::{self, Bar};
use crate::args::{self, print_json, write_whole};
use crate::boards::{self, Board, Machine};
use crate::emulate::Request;
use crate::measure::profile;

/// Instructions of whole networks on a core under QEMU, split by operation.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Target triple, with `/core` where several cores share it, or `all`.
    #[arg(long, default_value = "thumbv7em-none-eabihf")]
    target: String,
    /// Models, separated by commas: names of shipped files without `.waft`, or paths of `.waft` files.
    #[arg(long, value_delimiter = ',', default_value = "digits-i8,digits-i4,digits-f16,emoji-i8,emoji-i4")]
    models: Vec<String>,
    /// Print each operation too.
    #[arg(long)]
    operations: bool,
    /// Draw the bars into this file.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What one operation takes.
#[derive(Debug, Serialize)]
struct Operation {
    index: u16,
    kind: String,
    macs: u64,
    instructions: u64,
}

/// What a network takes on a core.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    target: String,
    core: &'static str,
    /// Instructions of one call, and by kind of operation.
    call_instructions: u64,
    kinds: BTreeMap<String, u64>,
    /// Multiply-accumulates of one call.
    macs: u64,
    /// An estimate of a picture by the file's first list of steps.
    picture_instructions: Option<u64>,
    operations: Vec<Operation>,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let progress = args::Bar::default();
    let boards: Vec<&'static Board> = boards::find(&args.target)?
        .into_iter()
        .filter(|board| matches!(board.machine, Machine::Qemu { .. }) && board.instructions(1).is_some())
        .collect();
    anyhow::ensure!(!boards.is_empty(), "--target {}: no machine with an exact counter", args.target);
    progress.begin("networks", (boards.len() * args.models.len()) as u64);
    let mut measured = vec![];
    for board in boards {
        for name in &args.models {
            measured.push(measure(board, name).with_context(|| format!("{name} on {}", board.name))?);
            progress.advance(1);
        }
    }
    progress.end();
    if let Some(path) = &args.svg {
        let bars: Vec<Bar> = measured
            .iter()
            .map(|network| Bar { name: format!("{} · {}", network.model, network.core), parts: network.kinds.clone() })
            .collect();
        write_whole(path, bars::svg("Instructions of one network call", &bars).as_bytes())?;
    }
    if args.json {
        return print_json(&serde_json::json!({ "networks": measured }));
    }
    for network in &measured {
        print(network, args.operations);
    }
    Ok(())
}

fn print(network: &Measured, operations: bool) {
    let per_mac = |instructions: u64, macs: u64| match macs {
        0 => "-".to_string(),
        macs => format!("{:.2}", instructions as f64 / macs as f64),
    };
    println!(
        "{} on {} ({}): {} instructions a call, {} a MAC",
        network.model,
        network.core,
        network.target,
        network.call_instructions,
        per_mac(network.call_instructions, network.macs)
    );
    for (kind, &instructions) in &network.kinds {
        let macs = network.operations.iter().filter(|op| op.kind == *kind).map(|op| op.macs).sum();
        let share = 100.0 * instructions as f64 / network.call_instructions.max(1) as f64;
        println!("  {kind:<32} {instructions:>12} {share:>5.1} % {:>7} a MAC", per_mac(instructions, macs));
    }
    if operations {
        for op in &network.operations {
            println!(
                "  {:>4} {:<28} {:>12} {:>7} a MAC",
                op.index,
                op.kind,
                op.instructions,
                per_mac(op.instructions, op.macs)
            );
        }
    }
}

fn measure(board: &'static Board, name: &str) -> anyhow::Result<Measured> {
    let folder = shipped::models_folder().join(name.split('-').next().unwrap_or(name));
    let is_path = name.ends_with(".waft");
    let path = if is_path { PathBuf::from(name) } else { folder.join(format!("{name}.waft")) };
    let bytes = shipped::read(&path)?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let request = Request { class: (model.classes() > 0).then_some(0), ..Request::default() };
    let counted = profile(board, bytes.as_slice(), &request)?;
    let operations: Vec<Operation> = (0..model.ops())
        .filter_map(|index| model.op(index).map(|op| (index, op)))
        .map(|(index, op)| Operation {
            index,
            kind: kind(&model, &op),
            macs: macs(&model, &op),
            // Operations that took less than a tick are not printed.
            instructions: counted.get(&index).and_then(|op| op.instructions).unwrap_or(0),
        })
        .collect();
    let mut kinds = BTreeMap::new();
    for op in &operations {
        *kinds.entry(op.kind.clone()).or_default() += op.instructions;
    }
    let core = cost::cores().get(board.name);
    let picture = core.zip(model.schedule(0)).and_then(|(core, list)| cost::of_picture(core, &model, &list, 0));
    Ok(Measured {
        model: name.into(),
        target: board.name.into(),
        core: board.core,
        call_instructions: operations.iter().map(|op| op.instructions).sum(),
        macs: operations.iter().map(|op| op.macs).sum(),
        picture_instructions: picture.map(|instructions| instructions.round() as u64),
        kinds,
        operations,
    })
}

fn kind(model: &Model<'_>, op: &Op) -> String {
    match op {
        Op::Conv2d(op) => {
            let [rows, columns] = op.kernel;
            let step = if op.stride > 1 { format!(" by {}", op.stride) } else { String::new() };
            let few = if inputs(model, op) < 4 { ", few channels" } else { "" };
            format!("conv2d {rows}×{columns}{step}{few}")
        }
        Op::GroupNorm(_) => "group_norm".into(),
        Op::Attention(_) => "attention".into(),
        Op::Embed(_) => "embed".into(),
        Op::Linear(_) => "linear".into(),
        Op::Activate(_) => "activate".into(),
        Op::Observe(_) => "observe".into(),
        Op::LayerNorm(_) => "layer_norm".into(),
        Op::LinearAttention(_) => "linear_attention".into(),
        Op::Classifier(_) => "classifier".into(),
        Op::Filter(_) => "filter".into(),
    }
}

fn inputs(model: &Model<'_>, op: &Conv2d) -> u64 {
    let sources = op.sources.into_iter().filter(|&source| source != NONE);
    sources.filter_map(|source| model.tensor(source)).map(|tensor| u64::from(tensor.channels)).sum()
}

/// Multiply-accumulates of an operation that has any, those with padding included.
fn macs(model: &Model<'_>, op: &Op) -> u64 {
    let len =
        |id: u16| model.tensor(id).map_or(0, |t| u64::from(t.rows) * u64::from(t.columns) * u64::from(t.channels));
    match op {
        Op::Conv2d(op) => len(op.output) * op.taps(inputs(model, op)),
        Op::Linear(op) => len(op.source) * len(op.output),
        Op::Attention(op) => {
            let channels = model.tensor(op.query).map_or(1, |tensor| u64::from(tensor.channels)).max(1);
            len(op.query) * len(op.key_value) / channels
        }
        Op::LinearAttention(op) => {
            let channels = model.tensor(op.query).map_or(0, |tensor| u64::from(tensor.channels));
            2 * len(op.query) * channels / u64::from(op.heads).max(1)
        }
        Op::GroupNorm(_)
        | Op::Embed(_)
        | Op::Activate(_)
        | Op::Observe(_)
        | Op::LayerNorm(_)
        | Op::Classifier(_)
        | Op::Filter(_) => 0,
    }
}
