//! Building the firmware's images, and what is in them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use object::{Object, ObjectSection, ObjectSymbol};
use waft::Model;
use waft::format::{Activation, Affine, NONE, Op, Shuffle, WeightLayout};
use waft_host::export::precision_name;
use waft_host::sample::digest;

use crate::boards::{self, Board, SOFT_FLOAT};
use crate::repository::root;
use crate::setup;

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
    if model.header().history[0] != NONE {
        features.push("history");
    }
    if (0..model.schedules()).filter_map(|index| model.schedule(index)).any(|schedule| schedule.threshold != 0) {
        features.push("thresholding");
    }
    if model.header().variance != 0 {
        features.push("learned-variance");
    }
    if ops.iter().any(|op| matches!(op, Op::Attention(_))) {
        features.push("attention");
    }
    if ops.iter().any(|op| matches!(op, Op::Embed(_) | Op::Linear(_))) {
        features.push("conditioning");
    }
    let activation = |op: &Op| match op {
        Op::Conv2d(conv) => conv.gather().activation(),
        Op::Embed(embed) => Some(embed.activation()),
        Op::Activate(activate) => Some(activate.activation()),
        Op::Observe(observe) => Some(observe.activation()),
        Op::LayerNorm(norm) => norm.gather().activation(),
        _ => None,
    };
    if ops.iter().filter_map(activation).any(|activation| activation != Activation::Silu) {
        features.push("activations");
    }
    if ops.iter().any(|op| matches!(op, Op::GroupNorm(norm) if norm.affine() != Affine::Constant)) {
        features.push("scale-shift");
    }
    let is_unet1d = |op: &Op| match op {
        Op::Activate(_) | Op::Observe(_) => true,
        Op::Conv2d(conv) => conv.shuffle() != Shuffle::None,
        _ => false,
    };
    if ops.iter().any(|op| matches!(op, Op::Conv2d(op) if op.tile_rows > 0)) {
        features.push("tiles");
    }
    if ops.iter().any(|op| matches!(op, Op::Conv2d(op) if op.layout().is_transformed())) {
        features.push("stored-tiles");
    }
    if ops.iter().any(|op| matches!(op, Op::LayerNorm(_))) {
        features.push("layer-norm");
    }
    if ops.iter().any(|op| matches!(op, Op::LinearAttention(_))) {
        features.push("linear-attention");
    }
    if model.header().gradient != 0 {
        features.push("classifier");
    }
    if ops.iter().any(|op| matches!(op, Op::Filter(_))) {
        features.push("filter");
    }
    if ops.iter().any(is_unet1d) {
        features.push("unet1d");
    }
    features
}

/// What an image carries besides code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contents<'a> {
    /// The model file.
    pub(crate) model: &'a [u8],
    /// Its weights' own file, or nothing.
    pub(crate) weights: &'a [u8],
    /// A picture to start from, then its mask if it has one; or nothing.
    pub(crate) original: &'a [u8],
    /// What a policy acts on, in the precision's own type; or nothing.
    pub(crate) observation: &'a [u8],
}

impl<'a> Contents<'a> {
    /// A model with its weights, which starts from noise.
    pub(crate) fn of(model: &'a [u8]) -> Self {
        Self { model, ..Self::default() }
    }
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

/// Builds the firmware that counts the instructions of each operation. Where the emulator can load the model, the image carries
/// none: models of the same features have the same.
pub(crate) fn profiling_image(board: &Board, model: &[u8]) -> anyhow::Result<PathBuf> {
    let options: &[&str] = if board.model_at.is_some() { &["profile", "loaded"] } else { &["profile"] };
    compile(board, Contents::of(model), options)
}

/// A model's file for the firmware, whose name carries its contents.
pub(crate) fn model_file(model: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = root().join("target").join("firmware");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}.waft", &digest([model])[..16]));
    std::fs::write(&file, model)?;
    Ok(file)
}

/// Builds the firmware that measures kernels which are no operations of their own.
pub(crate) fn kernels_image(board: &Board, model: &[u8]) -> anyhow::Result<PathBuf> {
    compile(board, Contents::of(model), &["kernels"])
}

/// Builds the firmware for a board. Returns the image, and whether no panic path survives in it: whether it links with a panic
/// handler that cannot be linked.
pub(crate) fn image(board: &Board, contents: Contents<'_>) -> anyhow::Result<(PathBuf, bool)> {
    let panics = || Ok((compile(board, contents, &[])?, false));
    match compile(board, contents, &["prove-panic-free"]) {
        // WebAssembly imports what it lacks.
        Ok(image) if contains(&std::fs::read(&image)?, PANIC_SYMBOL) => panics(),
        Ok(image) => Ok((image, true)),
        Err(error) if error.to_string().contains(PANIC_SYMBOL) => panics(),
        Err(error) => Err(error),
    }
}

/// Builds the firmware crate with a model and what else it should be able to do.
fn compile(board: &Board, contents: Contents<'_>, options: &[&'static str]) -> anyhow::Result<PathBuf> {
    let Contents { model, weights, original, observation } = contents;
    let Board { triple, layout, .. } = *board;
    let toolchain = setup::toolchain(triple)?;
    let folder = root().join("target").join("firmware");
    // The file is part of the program; its name carries its contents so that cargo sees a change.
    let model_file = model_file(model)?;
    let weights_file = model_file.with_extension("weights");
    std::fs::write(&weights_file, weights)?;
    let original_file = folder.join(format!("{}.original", &digest([original])[..16]));
    std::fs::write(&original_file, original)?;
    let observation_file = folder.join(format!("{}.observation", &digest([observation])[..16]));
    std::fs::write(&observation_file, observation)?;
    let parsed = Model::from_bytes(model)?;
    let precision = precision_name(parsed.precision());
    let mut features = features(&parsed);
    if !weights.is_empty() {
        features.push("stream");
    }
    if !original.is_empty() {
        features.push("original");
    }
    if board.has_mve {
        features.push("mve");
    }
    features.extend(options);
    eprintln!(
        "building the firmware for {triple} on {layout}{}",
        options.iter().map(|o| format!(", {o}")).collect::<String>()
    );
    let mut command = toolchain.build(&source(), triple);
    // One of them: what an image does not depend on does not build it anew.
    match board.model_at.filter(|_| options.contains(&"loaded")) {
        Some(address) => command.env("WAFT_MODEL_AT", address.to_string()).env_remove("WAFT_MODEL_FILE"),
        None => command.env("WAFT_MODEL_FILE", &model_file).env_remove("WAFT_MODEL_AT"),
    };
    let output = command
        .args(["--features", &features.join(",")])
        .env("WAFT_WEIGHTS_FILE", &weights_file)
        .env("WAFT_ORIGINAL_FILE", &original_file)
        .env("WAFT_OBSERVATION_FILE", &observation_file)
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
    let kept = built.with_file_name([&[layout, precision][..], options, &["image"]].concat().join("-"));
    std::fs::copy(&built, &kept)?;
    Ok(kept)
}

/// Names of float routines that a soft-float image of the firmware contains: none, if it computes in integers only.
pub(crate) fn float_routines(model: &[u8]) -> anyhow::Result<Vec<String>> {
    let (image, _) = image(boards::find(SOFT_FLOAT)?[0], Contents::of(model))?;
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

/// Bytes of an image by kind, the model and the arena included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) code: u64,
    pub(crate) constants: u64,
    pub(crate) data: u64,
    pub(crate) bss: u64,
}

impl Sizes {
    pub(crate) fn of(image: &Path) -> anyhow::Result<Self> {
        let data = std::fs::read(image)?;
        let file = object::File::parse(&*data)?;
        let size = |names: &[&str]| -> u64 {
            names.iter().filter_map(|name| file.section_by_name(name)).map(|section| section.size()).sum()
        };
        Ok(Self {
            code: size(&[".vector_table", ".text", "<code>"]),
            constants: size(&[".rodata", ".model", ".data.rel.ro", "<data>"]),
            data: size(&[".data"]),
            // A WebAssembly module does not say how much of its memory is static and zero.
            bss: size(&[".bss", ".uninit"]),
        })
    }

    /// Everything that is programmed.
    pub(crate) const fn flash(&self) -> u64 {
        self.code + self.constants + self.data
    }
}
