//! `bench cuda`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use waft::{Model, Request};
use waft_host::gpu;
use waft_host::gpu::cuda::Cuda;
use waft_host::sample::{Batch, classes_in_turn};
use waft_host::shipped;

use crate::args::{Bar, print_json};

/// The GPU backend beside PyTorch's half precision on the same GPU: pictures a second.
///
/// The peer needs a python3 with torch and diffusers (`--python` names another); without, its figures are null.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of a shipped model, or a .waft file whose checkpoint lies beside it in `checkpoint`.
    #[arg(long)]
    model: String,
    /// Pictures at once [default: the best of 256, 1024, 4096 and 8192, for the peer too].
    #[arg(long)]
    batch: Option<u32>,
    /// Batches that are timed, after one that is not.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Interpreter of the peer.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Batches that are tried.
const BATCHES: [u32; 4] = [256, 1024, 4096, 8192];

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.batch == Some(0) || args.repeat == 0 {
        bail!("--batch and --repeat: at least 1");
    }
    let mut device = Cuda::open(0)?;
    let bytes = shipped::find(&args.model, None, None, &Bar::default())?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let weights = shipped::weights(&args.model, &model)?;
    let steps = model.schedule(0).map_or(0, |list| list.steps);
    let batches = args.batch.map_or(BATCHES.to_vec(), |batch| vec![batch]);

    let mut ours: Vec<(u32, f64)> = vec![];
    for &size in &batches {
        let count = size as usize;
        let batch = |count: usize| Batch {
            request: Request::new(),
            seed: 1,
            classes: classes_in_turn(&model, count),
            count,
            weights: weights.clone(),
            ..Batch::default()
        };
        gpu::draw(&mut device, &model, &batch(count), Some(size), &())?;
        let total = count * args.repeat as usize;
        let started = Instant::now();
        gpu::draw(&mut device, &model, &batch(total), Some(size), &())?;
        ours.push((size, total as f64 / started.elapsed().as_secs_f64()));
    }
    let (batch, rate) = ours.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).context("no batch")?;
    let peer = peer(args, &batches, steps).unwrap_or_else(|error| {
        eprintln!("no figures of PyTorch: {error:#}");
        Value::Null
    });
    let macs = model.header().macs as f64 * f64::from(steps);
    let report = json!({
        "device": gpu::Device::name(&device),
        "driver": gpu::Device::driver(&device),
        "model": args.model,
        "precision": waft_host::export::precision_name(model.precision()),
        "steps": steps,
        "batch": batch,
        "pictures_per_second": rate,
        "unet_calls_per_second": rate * f64::from(steps),
        "macs_per_second": rate * macs,
        "batches": ours.iter().map(|(size, rate)| json!({"batch": size, "pictures_per_second": rate})).collect::<Vec<_>>(),
        "pytorch": peer,
        "ratio": peer["pictures_per_second"].as_f64().map(|peer| rate / peer),
        // What the chip reaches where nothing but multiplying is done, measured by the peer's own library.
        "floor_seconds_per_picture": peer["int8_macs_per_second"].as_f64().map(|fastest| macs / fastest),
    });
    if args.json {
        return print_json(&report);
    }
    println!("{}: {rate:.0} pictures a second, {steps} steps, batches of {batch}", gpu::Device::name(&device));
    match (peer["pictures_per_second"].as_f64(), report["ratio"].as_f64()) {
        (Some(peer), Some(ratio)) => println!("PyTorch, half precision: {peer:.0} pictures a second; ratio {ratio:.2}"),
        _ => println!("PyTorch was not measured"),
    }
    Ok(())
}

/// Runs the peer's script and reads its one JSON object.
fn peer(args: &Args, batches: &[u32], steps: u32) -> anyhow::Result<Value> {
    let beside = PathBuf::from(&args.model).parent().map(|folder| folder.join("checkpoint")).unwrap_or_default();
    let checkpoint =
        if beside.is_dir() { beside } else { shipped::models_folder().join(&args.model).join("checkpoint") };
    let sizes: Vec<String> = batches.iter().map(ToString::to_string).collect();
    // From standard input, so that a copied program needs no file.
    let mut child = Command::new(&args.python)
        .arg("-")
        .arg(&checkpoint)
        .args(["--steps", &steps.to_string(), "--repeat", &args.repeat.to_string(), "--batches", &sizes.join(",")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", args.python.display()))?;
    child.stdin.take().context("no standard input")?.write_all(include_bytes!("../../bench_cuda.py"))?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
