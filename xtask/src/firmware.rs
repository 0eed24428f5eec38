//! `firmware`: builds the bare-metal image, runs it under QEMU and measures it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use object::{Object, ObjectSection, ObjectSymbol};
use serde::Serialize;
use waft::format::{Op, WeightLayout};
use waft::{Guidance, Model};
use waft_host::export::precision_name;
use waft_host::sample::digest;
use waft_host::shipped;

use crate::args::{Bar, Precision, print_json};
use crate::boards::{self, Board, SOFT_FLOAT};
use crate::c;
use crate::setup;

/// Builds the firmware for a bare-metal target and draws a picture with it under QEMU.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple, with `/core` where several cores share it, or `all`.
    #[arg(long, default_value = "thumbv7em-none-eabihf")]
    target: String,
    /// Name of a shipped model, or a .waft file.
    #[arg(long)]
    model: String,
    /// Precision of a shipped model [default: i8].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
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
    /// Draw through the C interface, on the targets that have a C firmware.
    #[arg(long)]
    c: bool,
    /// Print one JSON object a target.
    #[arg(long)]
    json: bool,
}

/// A picture to draw on the device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    pub(crate) steps: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) class: Option<u16>,
    pub(crate) guidance: Option<f32>,
}

impl Request {
    /// The firmware's command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("seed={}", self.seed)];
        words.extend(self.class.map(|class| format!("class={class}")));
        words.extend(self.steps.map(|steps| format!("steps={steps}")));
        words.extend(self.guidance.map(|scale| format!("guidance={}", Guidance::from_f32(scale).to_bits())));
        words
    }
}

/// What the firmware did and what it needs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) core: &'static str,
    /// SHA-256 of the picture's bytes.
    pub(crate) digest: String,
    /// Instructions of the whole picture; none where the machine has no exact counter.
    pub(crate) instructions: Option<u64>,
    /// Instructions of the longest `step()`.
    pub(crate) max_step_instructions: Option<u64>,
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
    let bytes = shipped::find(&args.model, args.precision.map(Into::into), steps, &Bar::default())?;
    let weights = shipped::weights(&args.model, &Model::from_bytes(bytes.as_slice())?)?;
    let request = Request { steps: args.steps, seed: args.seed, class: args.class, guidance: args.guidance };
    if args.c {
        return run_c(args, bytes.as_slice(), request);
    }
    let boards = boards::find(&args.target)?;
    if !args.json {
        println!(
            "{:<37} {:<11} {:>13} {:>9} {:>7} {:>6} {:>6} {:>10}  SHA-256",
            "target", "core", "instructions", "max step", "text", "ram+", "stack", "panic-free"
        );
    }
    for board in boards {
        let report = Firmware::build(board, bytes.as_slice(), &weights)?.draw(request)?;
        if args.json {
            print_json(&serde_json::to_value(&report)?)?;
            continue;
        }
        let count = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
        println!(
            "{:<37} {:<11} {:>13} {:>9} {:>7} {:>6} {:>6} {:>10}  {}",
            report.target,
            report.core,
            count(report.instructions),
            count(report.max_step_instructions),
            report.text_bytes,
            report.data_bss_bytes,
            report.stack_bytes,
            report.panic_free,
            report.digest
        );
    }
    Ok(())
}

fn run_c(args: &Args, model: &[u8], request: Request) -> anyhow::Result<()> {
    let targets: Vec<&str> = if args.target == "all" { c::targets().collect() } else { vec![&args.target] };
    for target in targets {
        let digest = c::draw(target, model, request)?;
        if args.json {
            print_json(&serde_json::json!({ "target": target, "language": "c", "digest": digest }))?;
        } else {
            println!("{target:<37} C           {digest}");
        }
    }
    Ok(())
}

/// An image for one target and model.
pub(crate) struct Firmware {
    board: &'static Board,
    image: PathBuf,
    pub(crate) sizes: Sizes,
    pub(crate) model_bytes: u64,
    pub(crate) arena_bytes: u64,
    pub(crate) panic_free: bool,
}

impl Firmware {
    /// Builds the image, and once more with a panic handler that cannot be linked.
    pub(crate) fn build(board: &'static Board, model: &[u8], weights: &[u8]) -> anyhow::Result<Self> {
        let parsed = Model::from_bytes(model)?;
        board.set_up()?;
        let panic_free = match build_image(board.triple, board.layout, model, weights, true) {
            // WebAssembly imports what it lacks.
            Ok(image) => !contains(&std::fs::read(image)?, PANIC_SYMBOL),
            Err(error) if error.to_string().contains(PANIC_SYMBOL) => false,
            Err(error) => return Err(error),
        };
        let image = build_image(board.triple, board.layout, model, weights, false)?;
        let arena_bytes = parsed.arena_bytes() as u64;
        let sizes = Sizes::of(&image)?;
        Ok(Self { board, image, sizes, model_bytes: (model.len() + weights.len()) as u64, arena_bytes, panic_free })
    }

    /// Draws one picture.
    pub(crate) fn draw(&self, request: Request) -> anyhow::Result<Report> {
        let printed = Printed::by(&mut self.board.command(&source(), &self.image, &request.words()))?;
        Ok(Report {
            target: self.board.name.into(),
            core: self.board.core,
            digest: digest([printed.picture()?.as_slice()]),
            instructions: self.board.instructions(printed.number("ticks")?),
            max_step_instructions: self.board.instructions(printed.number("longest_ticks")?),
            flash_bytes: self.sizes.flash(),
            text_bytes: self.sizes.flash().saturating_sub(self.model_bytes),
            arena_bytes: self.arena_bytes,
            data_bss_bytes: (self.sizes.data + self.sizes.bss).saturating_sub(self.arena_bytes),
            stack_bytes: printed.number("stack")?,
            panic_free: self.panic_free,
        })
    }
}

/// What a firmware printed: lines `key=value`.
pub(crate) struct Printed(String);

impl Printed {
    /// Runs a firmware to its end.
    pub(crate) fn by(command: &mut Command) -> anyhow::Result<Self> {
        run_for(command, Duration::from_secs(600)).map(Self)
    }

    fn value(&self, key: &str) -> anyhow::Result<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once('='));
        lines.find(|(found, _)| *found == key).map(|(_, value)| value).with_context(|| {
            format!("the firmware printed no {key} ({}); does the model have that class and step count?", self.0.trim())
        })
    }

    fn number(&self, key: &str) -> anyhow::Result<u64> {
        Ok(u64::from_str_radix(self.value(key)?, 16)?)
    }

    /// The picture's bytes.
    pub(crate) fn picture(&self) -> anyhow::Result<Vec<u8>> {
        let pairs = self.value("image")?.as_bytes().chunks(2);
        pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
    }
}

/// Names of float routines that a soft-float image of the firmware contains: none, if it computes in integers only.
pub(crate) fn float_routines(model: &[u8]) -> anyhow::Result<Vec<String>> {
    let image = build_image(SOFT_FLOAT, "mps2-an386", model, &[], false)?;
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

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The precision and the operations that a model uses, as features of the core.
pub(crate) fn features(model: &Model<'_>) -> Vec<&'static str> {
    let mut features = vec![precision_name(model.precision())];
    let ops: Vec<Op> = (0..model.ops()).filter_map(|index| model.op(index)).collect();
    if ops.iter().any(|op| matches!(op, Op::Conv2d(conv) if conv.layout() == WeightLayout::Groups4)) {
        features.push("i4");
    }
    if ops.iter().any(|op| matches!(op, Op::Conv2d(conv) if conv.weight_sums != 0)) {
        features.push("step-scales");
    }
    if ops.iter().any(|op| matches!(op, Op::Attention(_))) {
        features.push("attention");
    }
    if ops.iter().any(|op| matches!(op, Op::Embed(_) | Op::Linear(_))) {
        features.push("conditioning");
    }
    features
}

/// The firmware crate.
fn source() -> PathBuf {
    root().join("tests").join("firmware")
}

/// What a surviving panic path refers to.
const PANIC_SYMBOL: &str = "waft_panic_path_survives";

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Builds the firmware crate, as it is or with a panic handler that cannot be linked, and returns the image.
fn build_image(triple: &str, layout: &str, model: &[u8], weights: &[u8], proof: bool) -> anyhow::Result<PathBuf> {
    let toolchain = setup::toolchain(triple)?;
    let folder = root().join("target").join("firmware");
    std::fs::create_dir_all(&folder)?;
    // The file is part of the program; its name carries its contents so that cargo sees a change.
    let model_file = folder.join(format!("{}.waft", &digest([model])[..16]));
    std::fs::write(&model_file, model)?;
    let weights_file = model_file.with_extension("weights");
    std::fs::write(&weights_file, weights)?;
    let parsed = Model::from_bytes(model)?;
    let precision = precision_name(parsed.precision());
    let mut features = features(&parsed);
    if !weights.is_empty() {
        features.push("stream");
    }
    if proof {
        features.push("prove-panic-free");
    }
    eprintln!("building the firmware for {triple} on {layout}{}", if proof { " (panic-free proof)" } else { "" });
    let output = toolchain
        .build(&source(), triple)
        .args(["--features", &features.join(",")])
        .env("WAFT_MODEL_FILE", &model_file)
        .env("WAFT_WEIGHTS_FILE", &weights_file)
        .env("WAFT_BOARD", layout)
        .env("CARGO_TARGET_DIR", &folder)
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        bail!("the firmware does not build for {triple}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    let extension = if triple.starts_with("wasm") { "wasm" } else { "" };
    let built = folder.join(triple).join("release").join("waft-firmware").with_extension(extension);
    let kept = built.with_file_name(format!("{layout}-{precision}-{}", if proof { "proof" } else { "image" }));
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

/// Bytes of an image by kind, the model and the arena included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) code: u64,
    pub(crate) constants: u64,
    pub(crate) data: u64,
    pub(crate) bss: u64,
}

impl Sizes {
    fn of(image: &Path) -> anyhow::Result<Self> {
        let data = std::fs::read(image)?;
        let file = object::File::parse(&*data)?;
        let size = |names: &[&str]| -> u64 {
            names.iter().filter_map(|name| file.section_by_name(name)).map(|section| section.size()).sum()
        };
        Ok(Self {
            code: size(&[".vector_table", ".text", "<code>"]),
            constants: size(&[".rodata", ".data.rel.ro", "<data>"]),
            data: size(&[".data"]),
            // A WebAssembly module does not say how much of its memory is static and zero.
            bss: size(&[".bss", ".uninit"]),
        })
    }

    /// Everything that is programmed.
    fn flash(&self) -> u64 {
        self.code + self.constants + self.data
    }
}
