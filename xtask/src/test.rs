//! `test`: everything that this machine can check, with what it needs set up first.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use waft::{Guidance, Model, Request};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportOptions, Recipe, export};
use waft_host::sample::{Batch, digest, draw};
use waft_host::shipped;

use crate::args::Backend;
use crate::boards;
use crate::c;
use crate::firmware::{self, Firmware};
use crate::header;
use crate::kernels::{self, Comparison};
use crate::setup;

/// Runs every test that this machine can run, and says what it could not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the firmware under QEMU, and all that it would install.
    #[arg(long)]
    no_firmware: bool,
}

/// Folders that are workspaces of their own.
const OUTSIDE: [&str; 5] = ["kernels/ptx", "runtime/c", "tests/driver", "tests/firmware", "tests/fuzz"];

/// Board examples in runtime/boards, and what they are built for.
const EXAMPLES: [(&str, &str); 4] = [
    ("rp2350", "thumbv8m.main-none-eabihf"),
    ("nrf52840", "thumbv7em-none-eabihf"),
    ("stm32f429", "thumbv7em-none-eabihf"),
    ("esp32c3", "riscv32imc-unknown-none-elf"),
];

/// Lanes and options that must build alone.
const FEATURES: [&str; 12] = [
    "i8",
    "f16",
    "f32",
    "i8,attention",
    "i8,conditioning",
    "i4,attention",
    "step-scales,conditioning",
    "i8,f16,attention,conditioning",
    "i8,defmt,rand_core",
    "f16,micromath,attention,conditioning",
    "i8,f16,f32,attention,conditioning,micromath,defmt,rand_core,embedded-io,embedded-storage,ed25519,embedded-graphics",
    "i8,embedded-storage",
];

/// Limits of the digits firmware's code and constants, the harness included.
const TEXT_BYTES: [(&str, u64); 2] = [("thumbv6m-none-eabi", 28 * 1024), ("thumbv7em-none-eabihf", 32 * 1024)];
/// Limits of the digits firmware on every target.
const DATA_BSS_BYTES: u64 = 512;
const STACK_BYTES: u64 = 3072;
const STEP_INSTRUCTIONS: u64 = 2_000_000;

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut summary = vec![];
    let mut part = |name: &'static str, test: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<()> {
        eprintln!("\n== {name}");
        let started = Instant::now();
        test().with_context(|| format!("{name} failed"))?;
        summary.push((name, started.elapsed()));
        Ok(())
    };
    part("format", &mut || {
        cargo(&["fmt", "--all", "--check"])?;
        let examples = EXAMPLES.iter().map(|(board, _)| format!("runtime/boards/{board}"));
        let mut folders = OUTSIDE.iter().map(|folder| folder.to_string()).chain(examples);
        folders.try_for_each(|folder| cargo(&["fmt", "--check", "--manifest-path", &format!("{folder}/Cargo.toml")]))
    })?;
    part("clippy", &mut || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
        let c = &["clippy", "-q", "--manifest-path", "runtime/c/Cargo.toml", "--", "-D", "warnings"];
        cargo(c)
    })?;
    part("C header", &mut || header::run(&header::Args { check: true }))?;
    part("features", &mut || {
        FEATURES.iter().try_for_each(|features| {
            cargo(&[
                "clippy",
                "-q",
                "-p",
                "waft",
                "--no-default-features",
                "--features",
                features,
                "--",
                "-D",
                "warnings",
            ])
        })
    })?;
    part("docs", &mut || {
        let mut command = Command::new("cargo");
        status(command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    part("tests", &mut || cargo(&["test", "--workspace", "--release"]))?;
    let mut missing = vec![];
    part("cuda", &mut || {
        cargo(&["clippy", "-q", "-p", "xtask", "--no-default-features", "--", "-D", "warnings"])?;
        // Without a GPU they are ignored, not passed.
        cargo(&["test", "--release", "-p", "waft-tests", "--features", "cuda", "--test", "cuda"])?;
        if let Err(error) = Backend::Cuda.open() {
            missing
                .push(format!("parity on a GPU: {error}; `cargo xtask parity --backend cuda` on a machine with one"));
        }
        Ok(())
    })?;
    part("driver", &mut driver_test)?;
    if args.no_firmware {
        missing.push("firmware and the compiler for kernels: left out by --no-firmware".into());
    } else {
        part("kernels", &mut || {
            if let Comparison::OtherCompiler { committed, here } = kernels::check()? {
                missing.push(format!("kernels/waft.ptx against its sources: {committed} made it, here is {here}"));
            }
            Ok(())
        })?;
        part("firmware", &mut firmware_tests)?;
        part("boards", &mut board_examples)?;
    }
    report(&summary, &missing);
    Ok(())
}

fn report(summary: &[(&str, Duration)], missing: &[String]) {
    println!("\nall passed:");
    for (name, time) in summary {
        println!("  {name:<10} {:>6.1} s", time.as_secs_f64());
    }
    for what in missing {
        println!("NOT RUN  {what}");
    }
}

fn status(command: &mut Command) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let status = command.current_dir(root).status().context("cannot run cargo")?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    status(Command::new("cargo").args(arguments))
}

/// The tests of the GPU once more, over a driver that executes kernels on the host: calls, arguments, sizes and graphs, but
/// no GPU.
fn driver_test() -> anyhow::Result<()> {
    let folder = firmware::root().join("target").join("driver");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--manifest-path", "tests/driver/Cargo.toml"]);
    status(build.env("CARGO_TARGET_DIR", &folder))?;
    let path = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    let mut test = Command::new("cargo");
    test.args([
        "test",
        "--release",
        "-p",
        "waft-tests",
        "--features",
        "cuda",
        "--test",
        "cuda",
        "--",
        "--test-threads=1",
    ]);
    status(test.env(path, folder.join("release")))
}

/// The firmware draws the host's pictures on every target, within its limits, without a panic path or a float routine.
fn firmware_tests() -> anyhow::Result<()> {
    let bytes = shipped::find("digits", None, None, &())?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let requests = [(7, 1, 10, 1.0), (0, 2, 10, 1.0), (3, u64::MAX, 20, 1.0), (5, 5, 10, 2.5)];
    let mut expected = vec![];
    for (class, seed, steps, guidance) in requests {
        let request = Request::new().class(class).steps(steps).guidance(Guidance::from_f32(guidance));
        let batch = Batch { request, seed, count: 1, ..Batch::default() };
        let pictures = draw(&model, &batch, &())?;
        expected.push(digest(pictures.iter().map(|picture| picture.bytes.as_slice())));
    }
    for board in boards::find("all")? {
        let image = Firmware::build(board, bytes.as_slice(), &[])?;
        for ((class, seed, steps, guidance), expected) in requests.into_iter().zip(&expected) {
            let request = firmware::Request { steps: Some(steps), seed, class: Some(class), guidance: Some(guidance) };
            let report = image.draw(request)?;
            let what = format!("{}: class {class}, seed {seed}, {steps} steps, guidance {guidance}", board.name);
            ensure!(&report.digest == expected, "{what}: digest {} but the host's is {expected}", report.digest);
            ensure!(report.stack_bytes <= STACK_BYTES, "{what}: stack of {} bytes", report.stack_bytes);
            let step = report.max_step_instructions.unwrap_or(0);
            ensure!(step <= STEP_INSTRUCTIONS, "{what}: a step of {step} instructions");
            ensure!(report.panic_free, "{what}: a panic path survives");
            let text = TEXT_BYTES.iter().find(|(target, _)| *target == board.name);
            ensure!(text.is_none_or(|(_, limit)| report.text_bytes <= *limit), "{what}: text {}", report.text_bytes);
            ensure!(report.data_bss_bytes <= DATA_BSS_BYTES, "{what}: data and bss of {} bytes", report.data_bss_bytes);
        }
        eprintln!("{}: {} pictures as on the host", board.name, expected.len());
    }
    stream_test(requests[0], &expected[0])?;
    four_bit_test(requests[3])?;
    step_scales_test(requests[3])?;
    step_test()?;
    for target in c::targets() {
        let (class, seed, steps, guidance) = requests[3];
        let request = firmware::Request { steps: Some(steps), seed, class: Some(class), guidance: Some(guidance) };
        let found = c::draw(target, bytes.as_slice(), request)?;
        ensure!(found == expected[3], "C on {target}: digest {found} but the host's is {}", expected[3]);
        eprintln!("{target}: the C firmware draws the host's picture");
    }
    let half = shipped::find("digits", Some(waft::Precision::F16), None, &())?;
    ensure!(
        Firmware::build(boards::find("thumbv7em-none-eabihf")?[0], half.as_slice(), &[])?.panic_free,
        "a panic path survives in the f16 precision"
    );
    let floats = firmware::float_routines(bytes.as_slice())?;
    if !floats.is_empty() {
        bail!("the i8 firmware contains float routines: {}", floats.join(", "));
    }
    eprintln!("no float routine in the soft-float image");
    Ok(())
}

/// Digits with weights that pass through 16 KiB draw the same picture on a Cortex-M4F in 20 KiB of memory.
fn stream_test((class, seed, steps, guidance): (u16, u64, u32, f32), expected: &str) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(shipped::models_folder().join("digits").join("checkpoint"))?;
    let options = ExportOptions { stream: Some(16 * 1024), ..ExportOptions::default() };
    let export = export(&checkpoint, &options, &())?;
    let weights = export.weights.unwrap_or_default();
    let board = boards::find("thumbv7em-none-eabihf")?[0];
    let request = firmware::Request { steps: Some(steps), seed, class: Some(class), guidance: Some(guidance) };
    let report = Firmware::build(board, export.bytes.as_slice(), &weights)?.draw(request)?;
    ensure!(report.digest == expected, "streamed: digest {} but the host's is {expected}", report.digest);
    ensure!(report.panic_free, "a panic path survives in streaming");
    let memory = report.arena_bytes + report.data_bss_bytes + report.stack_bytes;
    ensure!(memory <= 20 * 1024, "streaming takes {memory} bytes of memory");
    eprintln!("streamed weights: the same picture in {memory} bytes of memory");
    Ok(())
}

/// Digits with four-bit weights are the host's.
fn four_bit_test(request: (u16, u64, u32, f32)) -> anyhow::Result<()> {
    let bytes = shipped::read(&shipped::models_folder().join("digits").join("digits-i4.waft"))?;
    same_pictures("four-bit weights", bytes.as_slice(), request)
}

/// Digits with activation scales of each step, likewise.
fn step_scales_test(request: (u16, u64, u32, f32)) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(shipped::models_folder().join("digits").join("checkpoint"))?;
    let recipe = Recipe { step_scales: true, ..Recipe::default() };
    let options = ExportOptions { recipe, calibration_images: 4, ..ExportOptions::default() };
    let export = export(&checkpoint, &options, &())?;
    same_pictures("scales of each step", export.bytes.as_slice(), request)
}

/// A model draws the host's picture on cores that load 16 bits and that do not, without a panic path.
fn same_pictures(what: &str, bytes: &[u8], (class, seed, steps, guidance): (u16, u64, u32, f32)) -> anyhow::Result<()> {
    let model = Model::from_bytes(bytes)?;
    let request = Request::new().class(class).steps(steps).guidance(Guidance::from_f32(guidance));
    let batch = Batch { request, seed, count: 1, ..Batch::default() };
    let pictures = draw(&model, &batch, &())?;
    let expected = digest(pictures.iter().map(|picture| picture.bytes.as_slice()));
    for target in ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf"] {
        let request = firmware::Request { steps: Some(steps), seed, class: Some(class), guidance: Some(guidance) };
        let report = Firmware::build(boards::find(target)?[0], bytes, &[])?.draw(request)?;
        ensure!(report.digest == expected, "{target}, {what}: digest {} but the host's is {expected}", report.digest);
        ensure!(report.panic_free, "{target}: a panic path survives with {what}");
    }
    eprintln!("{what}: the same picture");
    Ok(())
}

/// No step of a 32×32 model is long on a Cortex-M4F.
fn step_test() -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(shipped::models_folder().join("emoji").join("checkpoint"))?;
    let options = ExportOptions { steps: vec![1], calibration_images: 4, ..ExportOptions::default() };
    let export = export(&checkpoint, &options, &())?;
    let request = firmware::Request { steps: None, seed: 1, class: Some(0), guidance: None };
    let board = boards::find("thumbv7em-none-eabihf")?[0];
    let report = Firmware::build(board, export.bytes.as_slice(), &[])?.draw(request)?;
    let step = report.max_step_instructions.unwrap_or(u64::MAX);
    ensure!(step <= STEP_INSTRUCTIONS, "emoji: a step of {step} instructions");
    eprintln!("emoji: no step longer than {step} instructions");
    Ok(())
}

/// The examples for real boards build.
fn board_examples() -> anyhow::Result<()> {
    for (board, triple) in EXAMPLES {
        eprintln!("building the example for {board}");
        let folder = firmware::root().join("runtime").join("boards").join(board);
        let mut command = setup::toolchain(triple)?.build(&folder, triple);
        command.env("CARGO_TARGET_DIR", firmware::root().join("target").join("boards")).arg("--quiet");
        let status = command.status().context("cannot run cargo")?;
        ensure!(status.success(), "the example for {board} does not build");
    }
    Ok(())
}
