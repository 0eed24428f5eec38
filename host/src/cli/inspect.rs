//! `inspect`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;
use waft::Model;
use waft::format::{NONE, Op, Shuffle, Upsample};

use super::args::check_extension;
use super::output::{self, print_json, write_whole};
use crate::cost::chips;
use crate::export::precision_name;
use crate::report::{self, Memory, memory_map};
use crate::sample::timesteps;
use crate::shipped;
use crate::text::visible;

/// Shows what is in a .waft file.
#[derive(clap::Args)]
pub struct Args {
    /// The file, or the name of a shipped model.
    model: PathBuf,
    /// Draws the memory map, time against address.
    #[arg(long, value_name = "F.svg")]
    svg: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_extension("--svg", args.svg.as_deref(), &["svg"])?;
    if let Some(svg) = &args.svg {
        let model = shipped::sources(&args.model, None);
        output::check(&output::all("MODEL", &model), &[("--svg", svg)])?;
    }
    let bytes = shipped::find(&args.model, None, None, &())?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let header = model.header();
    let memory: Vec<Memory> = report::memory(&model);
    if let Some(path) = &args.svg {
        let svg = memory_map(&model, &memory);
        write_whole(path, svg.as_bytes())?;
    }
    let ops: Vec<(String, Op)> =
        (0..model.ops()).filter_map(|i| model.op(i)).map(|op| (describe(&model, &op), op)).collect();
    let lists: Vec<Vec<i32>> =
        (0..model.schedules()).filter_map(|index| model.schedule(index)).map(|list| timesteps(&model, &list)).collect();
    if args.json {
        return print_json(&json!({
            "name": model.name(),
            "provenance": model.provenance(),
            "precision": precision_name(model.precision()),
            "flash_bytes": header.file_bytes,
            "arena_bytes": header.arena_bytes,
            "arena_lower_bound_bytes": header.arena_lower_bound,
            "macs_per_step": header.macs,
            "params": header.params,
            "image": model.image_shape(),
            "classes": model.classes(),
            "unconditional_class": model.unconditional_class(),
            "timesteps": lists,
            "chips": chips::costs(&model),
            "ops": ops.iter().map(|(text, op)| json!({ "op": op.name(), "description": text })).collect::<Vec<_>>(),
            "tensors": memory.iter().map(|m| json!({
                "offset": m.tensor.offset, "bytes": m.tensor.bytes, "first": m.tensor.first, "last": m.tensor.last,
                "shape": [m.tensor.rows, m.tensor.columns, m.tensor.channels],
                "element": format!("{:?}", m.tensor.element()).to_lowercase(), "role": m.role.name(),
            })).collect::<Vec<_>>(),
        }));
    }
    let [h, w, c] = model.image_shape();
    let mut text = format!("{} ({})\n", visible(model.name()), precision_name(model.precision()));
    for line in model.provenance().lines() {
        writeln!(text, "  {}", visible(line))?;
    }
    writeln!(text, "  image {h}×{w}×{c}, classes {}, {} parameters", model.classes(), header.params)?;
    writeln!(
        text,
        "  flash {} bytes, arena {} bytes (lower bound {})",
        header.file_bytes, header.arena_bytes, header.arena_lower_bound
    )?;
    writeln!(text, "  {} MACs a call", header.macs)?;
    for list in &lists {
        writeln!(text, "  {} steps: {list:?}", list.len())?;
    }
    let steps = lists.first().map_or(0, |list| list.len() as u32);
    text += "\n";
    text += &chips::table(&chips::costs(&model), steps);
    text += "\n";
    for (index, (description, _)) in ops.iter().enumerate() {
        writeln!(text, "{index:>4}  {description}")?;
    }
    output::print(&text)
}

fn describe(model: &Model<'_>, op: &Op) -> String {
    let tensor = |id: u16| match model.tensor(id) {
        Some(t) if id != NONE => {
            format!("#{id} {}×{}×{} {}", t.rows, t.columns, t.channels, format!("{:?}", t.element()).to_lowercase())
        }
        _ => String::new(),
    };
    let join = |ids: &[u16]| ids.iter().filter(|&&id| id != NONE).map(|&id| tensor(id)).collect::<Vec<_>>().join(" + ");
    match op {
        Op::Conv2d(op) => {
            let [kh, kw] = op.kernel;
            let residual = if op.residual == NONE { String::new() } else { format!(", adds {}", tensor(op.residual)) };
            let upsample = match (op.upsample(), op.shuffle()) {
                (Upsample::Nearest, _) => ", doubled",
                (_, Shuffle::Columns) => ", shuffled",
                _ => "",
            };
            format!(
                "conv2d      {} → {} ({kh}×{kw}, stride {}, {:?}{upsample}{residual})",
                join(&op.sources),
                tensor(op.output),
                op.stride,
                op.gather()
            )
        }
        Op::GroupNorm(op) => {
            format!("group_norm  {} → {} ({} groups)", join(&op.sources), tensor(op.output), op.groups)
        }
        Op::Attention(op) => {
            let learned = if op.memory == 0 { String::new() } else { format!(", {} learned keys", op.memory) };
            format!(
                "attention   {} over {} → {} ({} heads{learned})",
                tensor(op.query),
                tensor(op.key_value),
                tensor(op.output),
                op.heads
            )
        }
        Op::Embed(op) => format!("embed       → {}", tensor(op.output)),
        Op::Linear(op) => format!("linear      {} → {}", tensor(op.source), tensor(op.output)),
        Op::Activate(op) => {
            let residual = if op.residual == NONE { String::new() } else { format!(", adds {}", tensor(op.residual)) };
            format!(
                "activate    {} → {} ({:?}, film {:?}{residual})",
                tensor(op.source),
                tensor(op.output),
                op.activation(),
                op.film()
            )
        }
        Op::Filter(op) => {
            format!("filter      {} → {} ({:?})", tensor(op.source), tensor(op.output), op.resampling())
        }
        Op::Classifier(op) => {
            format!("classifier  {} → {} ({:?})", join(&[op.gradient, op.source]), tensor(op.output), op.pass())
        }
        Op::LinearAttention(op) => {
            let learned = if op.memory == 0 { String::new() } else { format!(", {} learned keys", op.memory) };
            format!(
                "linear_attention {} over {} → {} ({} heads{learned})",
                tensor(op.query),
                tensor(op.key_value),
                tensor(op.output),
                op.heads
            )
        }
        Op::LayerNorm(op) => {
            let residual = if op.residual == NONE { String::new() } else { format!(", adds {}", tensor(op.residual)) };
            format!(
                "layer_norm  {} → {} (center {:?}, {:?}{residual})",
                tensor(op.source),
                tensor(op.output),
                op.center(),
                op.gather()
            )
        }
        Op::Observe(op) => format!("observe     {} → {}", tensor(op.source), tensor(op.output)),
    }
}
