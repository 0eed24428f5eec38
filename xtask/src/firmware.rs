//! `firmware`: builds the bare-metal image, runs it under QEMU and measures it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use object::{Object, ObjectSection, ObjectSymbol};
use serde::Serialize;
use waft::{Guidance, Model};
use waft_host::sample::digest;
use waft_host::shipped;

use crate::args::{print_json, progress};
use crate::setup;

/// Builds the firmware for a bare-metal target and draws a picture with it under QEMU.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple.
    #[arg(long, default_value = BOARDS[0].target)]
    target: String,
    /// Name of a shipped model, or a .waft file; the i8 lane.
    #[arg(long)]
    model: String,
    /// Steps [default: the first list of the model].
    #[arg(long)]
    steps: Option<u32>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Class to draw.
    #[arg(long)]
    class: Option<u16>,
    /// Classifier-free guidance.
    #[arg(long)]
    guidance: Option<f32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A target and the board that stands for it.
struct Board {
    target: &'static str,
    emulator: &'static str,
    machine: &'static [&'static str],
    /// Nanoseconds of virtual time, which are instructions, for each tick of the firmware's timer.
    instructions_per_tick: u64,
}

const BOARDS: [Board; 1] = [Board {
    target: "thumbv7em-none-eabihf",
    emulator: "qemu-system-arm",
    machine: &["-M", "mps2-an386"],
    instructions_per_tick: 40,
}];

/// The target whose images show float arithmetic as calls: hard float hides it in instructions.
const SOFT_FLOAT: &str = "thumbv7em-none-eabi";

/// A picture to draw on the device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    pub(crate) steps: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) class: Option<u16>,
    pub(crate) guidance: Option<f32>,
}

/// What the firmware did and what it needs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    /// SHA-256 of the picture's bytes.
    pub(crate) digest: String,
    /// Instructions of the whole picture.
    pub(crate) instructions: u64,
    /// Instructions of the longest `step()`.
    pub(crate) max_step_instructions: u64,
    /// Everything that is programmed: code, constants, model, initial data.
    pub(crate) flash_bytes: u64,
    /// Code and constants besides the model, the harness included.
    pub(crate) text_bytes: u64,
    /// Memory of the session.
    pub(crate) arena_bytes: u64,
    /// Static memory besides the arena.
    pub(crate) data_bss_bytes: u64,
    /// Deepest stack, measured by painting.
    pub(crate) stack_bytes: u64,
    /// Whether an image whose panic handler cannot be linked links.
    pub(crate) panic_free: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let steps = args.steps.map(|steps| steps as usize);
    let bytes = shipped::find(&args.model, Some(waft::Lane::I8), steps, &progress("exporting"))?;
    let request = Request { steps: args.steps, seed: args.seed, class: args.class, guidance: args.guidance };
    let report = Firmware::build(&args.target, bytes.as_slice())?.draw(request)?;
    if args.json {
        return print_json(&serde_json::to_value(&report)?);
    }
    println!("{}: SHA-256 {}", report.target, report.digest);
    println!("  instructions  {:>12}, longest step {}", report.instructions, report.max_step_instructions);
    println!("  flash         {:>12} bytes, of which {} are not the model", report.flash_bytes, report.text_bytes);
    println!("  arena         {:>12} bytes", report.arena_bytes);
    println!("  data and bss  {:>12} bytes besides", report.data_bss_bytes);
    println!("  stack         {:>12} bytes", report.stack_bytes);
    println!("  panic-free    {:>12}", report.panic_free);
    Ok(())
}

/// An image for one target and model.
pub(crate) struct Firmware {
    board: &'static Board,
    image: PathBuf,
    model_bytes: u64,
    arena_bytes: u64,
    panic_free: bool,
}

impl Firmware {
    /// Builds the image, and once more with a panic handler that cannot be linked.
    pub(crate) fn build(target: &str, model: &[u8]) -> anyhow::Result<Self> {
        let board = BOARDS.iter().find(|board| board.target == target).with_context(|| {
            let known: Vec<&str> = BOARDS.iter().map(|board| board.target).collect();
            format!("--target {target}: supported are {}", known.join(", "))
        })?;
        let parsed = Model::from_bytes(model)?;
        if parsed.lane() != waft::Lane::I8 {
            bail!("the firmware is built with the i8 lane only; export the model in it");
        }
        setup::emulator(board.emulator)?;
        let panic_free = build_image(target, model, &["prove-panic-free"]).is_ok();
        let image = build_image(target, model, &[])?;
        let arena_bytes = parsed.arena_bytes() as u64;
        Ok(Self { board, image, model_bytes: model.len() as u64, arena_bytes, panic_free })
    }

    /// Draws one picture under QEMU.
    pub(crate) fn draw(&self, request: Request) -> anyhow::Result<Report> {
        let mut words = vec![format!("seed={}", request.seed)];
        words.extend(request.class.map(|class| format!("class={class}")));
        words.extend(request.steps.map(|steps| format!("steps={steps}")));
        words.extend(request.guidance.map(|scale| format!("guidance={}", Guidance::from_f32(scale).to_bits())));
        let mut semihosting = "enable=on,target=native,arg=waft".to_string();
        words.iter().for_each(|word| semihosting += &format!(",arg={word}"));
        let mut command = Command::new(self.board.emulator);
        command
            .args(self.board.machine)
            .args(["-nographic", "-monitor", "none", "-serial", "none"])
            .args(["-icount", "shift=0,align=off,sleep=off"])
            .args(["-semihosting-config", &semihosting, "-kernel"])
            .arg(&self.image);
        let output = run_for(&mut command, Duration::from_secs(600))?;
        let values: HashMap<&str, &str> = output.lines().filter_map(|line| line.split_once('=')).collect();
        let image = values.get("image").with_context(|| {
            format!("the firmware drew nothing ({}); does the model have that class and step count?", output.trim())
        })?;
        let number = |key: &str| -> anyhow::Result<u64> {
            let text = values.get(key).with_context(|| format!("the firmware did not report {key}"))?;
            Ok(u64::from_str_radix(text, 16)?)
        };
        let sizes = sizes(&self.image)?;
        Ok(Report {
            target: self.board.target.into(),
            digest: digest([from_hex(image)?.as_slice()]),
            instructions: number("ticks")? * self.board.instructions_per_tick,
            max_step_instructions: number("longest_ticks")? * self.board.instructions_per_tick,
            flash_bytes: sizes.flash,
            text_bytes: sizes.flash.saturating_sub(self.model_bytes),
            arena_bytes: self.arena_bytes,
            data_bss_bytes: sizes.memory.saturating_sub(self.arena_bytes),
            stack_bytes: number("stack")?,
            panic_free: self.panic_free,
        })
    }
}

/// Names of float routines that a soft-float image of the firmware contains: none, if it computes in integers only.
pub(crate) fn float_routines(model: &[u8]) -> anyhow::Result<Vec<String>> {
    let image = build_image(SOFT_FLOAT, model, &[])?;
    let data = std::fs::read(&image)?;
    let file = object::File::parse(&*data)?;
    let is_float = |name: &str| {
        let plain = ["sf3", "df3", "sf2", "df2", "sfsi", "dfsi", "sfdi", "dfdi", "sisf", "sidf", "disf", "didf"];
        name.starts_with("__aeabi_f")
            || name.starts_with("__aeabi_d") && !name.starts_with("__aeabi_div")
            || name.starts_with("__aeabi_i2")
            || name.starts_with("__") && plain.iter().any(|end| name.ends_with(end))
    };
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok()).filter(|name| is_float(name)).map(Into::into).collect())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Builds the firmware crate and returns the image.
fn build_image(target: &str, model: &[u8], features: &[&str]) -> anyhow::Result<PathBuf> {
    let toolchain = setup::toolchain(target)?;
    let folder = root().join("target").join("firmware");
    std::fs::create_dir_all(&folder)?;
    // The file is part of the program; its name carries its contents so that cargo sees a change.
    let model_file = folder.join(format!("{}.waft", &digest([model])[..16]));
    std::fs::write(&model_file, model)?;
    eprintln!("building the firmware for {target}{}", if features.is_empty() { "" } else { " (panic-free proof)" });
    let output = toolchain
        .build(&root().join("tests").join("firmware"), target)
        .args(["--features", &features.join(",")])
        .env("WAFT_MODEL_FILE", &model_file)
        .env("CARGO_TARGET_DIR", &folder)
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        bail!("the firmware does not build for {target}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    let built = folder.join(target).join("release").join("waft-firmware");
    let kept = built.with_extension(if features.is_empty() { "elf" } else { "proof" });
    std::fs::copy(&built, &kept)?;
    Ok(kept)
}

/// Standard output of a program that ends in time and successfully.
fn run_for(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("piped above")?;
    let mut stderr = child.stderr.take().context("piped above")?;
    // Semihosting prints on one or the other, depending on QEMU's version.
    let readers = [
        std::thread::spawn(move || std::io::read_to_string(&mut stdout)),
        std::thread::spawn(move || std::io::read_to_string(&mut stderr)),
    ];
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            bail!("the emulator did not end within {} seconds", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    for reader in readers {
        text += &reader.join().map_err(|_| anyhow::anyhow!("reading the emulator's output failed"))??;
    }
    if !status.success() {
        bail!("the firmware ended with {status}: {}", text.trim());
    }
    Ok(text)
}

struct Sizes {
    flash: u64,
    memory: u64,
}

/// Bytes of an image that lie in flash, and in static memory.
fn sizes(image: &Path) -> anyhow::Result<Sizes> {
    let data = std::fs::read(image)?;
    let file = object::File::parse(&*data)?;
    let size = |names: &[&str]| -> u64 {
        names.iter().filter_map(|name| file.section_by_name(name)).map(|section| section.size()).sum()
    };
    let flash = size(&[".vector_table", ".text", ".rodata", ".data"]);
    Ok(Sizes { flash, memory: size(&[".data", ".bss", ".uninit"]) })
}

fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
