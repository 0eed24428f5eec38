//! `parity`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::json;
use waft::{Guidance, Model, Precision, Request, Rescale};

use super::args::{self, Backend, Bar, check_extension};
use super::output::{self, print_json, write_whole};
use crate::condition::Conditions;
use crate::parity::{self, ImageParity, OpParity, report};
use crate::sample::{Batch, classes_in_turn};
use crate::shipped;

/// Holds the GPU's kernels against the runtime: every operation on real and adversarial inputs, then whole pictures.
#[derive(clap::Args)]
pub struct Args {
    /// What runs the kernels: `cpu` executes every body over its whole grid, and needs no GPU.
    #[arg(long, value_enum, default_value_t = Backend::Cpu)]
    backend: Backend,
    /// Name of a shipped model (digits, emoji, reach), or a .waft file.
    #[arg(long, value_name = "MODEL", default_value = "digits")]
    model: PathBuf,
    /// Precision of a shipped model [default: all].
    #[arg(long, value_enum)]
    precision: Option<args::Precision>,
    /// Pictures of the i8 precision, 1 to 1000000; of float precisions a quarter [default: 32 on the CPU, 10000 on a GPU].
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Most pictures at once, 1 or more [default: what fits].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// A page with the errors of every operation.
    #[arg(long, value_name = "F.html")]
    report: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_extension("--report", args.report.as_deref(), &["html"])?;
    if let Some(report) = &args.report {
        let model = shipped::sources(&args.model, None);
        output::check(&output::all("--model", &model), &[("--report", report)])?;
    }
    let images = args.images.unwrap_or(if args.backend == Backend::Cpu { 32 } else { 10_000 });
    if !(1..=1_000_000).contains(&images) {
        bail!("--images {images}: 1 to 1000000 pictures");
    }
    let mut device = args.backend.open()?;
    let precisions: &[Option<Precision>] = match args.precision {
        Some(precision) => &[Some(precision.into())],
        None if args.model.is_file() => &[None],
        None => &[Some(Precision::I8), Some(Precision::F16), Some(Precision::F32)],
    };
    let progress = Bar::default();
    let mut ops: Vec<OpParity> = vec![];
    let mut pictures: Vec<ImageParity> = vec![];
    for &precision in precisions {
        let bytes = shipped::find(&args.model, precision, None, &progress)?;
        let model = Model::from_bytes(bytes.as_slice())?;
        let weights = shipped::weights(&args.model, &model)?;
        ops.extend(parity::ops(&mut *device, &model, &weights, &progress)?);

        let count = if model.precision() == Precision::I8 { images } else { images.div_ceil(4) };
        // Most without guidance, some with: that adds a pass of the network and the mixing of its outputs, which half of them
        // rescale, and leave out in the first step.
        let guided = if model.has_guidance() { count.div_ceil(8) } else { 0 };
        let guidance = Request::new().guidance(Guidance::from_f32(2.0));
        let rescaled = guidance.guidance_rescale(Rescale::from_f32(0.7)).guidance_interval(1, u32::MAX);
        let kinds =
            [(Request::new(), count - guided), (guidance, guided.div_ceil(2)), (rescaled, guided - guided.div_ceil(2))];
        for (request, count) in kinds {
            if count == 0 {
                continue;
            }
            let batch = Batch {
                request,
                seed: 7_000,
                classes: classes_in_turn(&model, count),
                count,
                weights: weights.clone(),
                conditions: Conditions::central(&model),
                ..Batch::default()
            };
            pictures.push(parity::images(&mut *device, &model, &batch, args.batch, &progress)?);
        }
    }
    if let Some(path) = &args.report {
        let page = report::html(&args.model.to_string_lossy(), &device.name(), &ops, &pictures);
        write_whole(path, page.as_bytes())?;
    }
    // Integers are identical or wrong; floats stay within their bounds.
    let integer: Vec<&ImageParity> = pictures.iter().filter(|pictures| pictures.what.starts_with("i8")).collect();
    let identical = integer.iter().all(|pictures| pictures.different == 0);
    let close = pictures.iter().all(|pictures| pictures.what.starts_with("i8") || pictures.max_byte_err <= 1);
    let mismatches: u64 = ops.iter().map(|op| op.mismatches).sum();
    if args.json {
        print_json(&json!({
            "backend": args.backend.name(),
            "device": device.name(),
            "driver": device.driver(),
            "commit": commit(),
            "model": args.model.to_string_lossy(),
            "ops": ops,
            "images": integer.iter().map(|pictures| pictures.images).sum::<usize>(),
            "identical": identical,
            "pictures": pictures,
        }))?;
    } else {
        let mut text = format!("{:<40} {:>10} {:>10} {:>12}\n", "operation", "elements", "mismatches", "max error");
        for op in &ops {
            writeln!(text, "{:<40} {:>10} {:>10} {:>12.3e}", op.op, op.elements, op.mismatches, op.max_abs_err)?;
        }
        for ImageParity { what, images, different, max_byte_err, .. } in &pictures {
            writeln!(text, "{what}: {images} pictures, {different} differ, by at most {max_byte_err}")?;
        }
        output::print(&text)?;
    }
    if let Some((op, first)) = ops.iter().find_map(|op| op.first.as_ref().map(|first| (op, first))) {
        bail!(
            "{mismatches} mismatches; the first in {}: {}, tensor {}, element {}: the device computes {}, {} {}",
            op.op,
            first.case,
            first.tensor,
            first.index,
            first.expected,
            device.name(),
            first.found
        );
    }
    if !identical || !close {
        bail!("all operations agree, but pictures differ: the launches around the network are wrong");
    }
    Ok(())
}

/// The commit of the sources, where they are a git checkout.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
