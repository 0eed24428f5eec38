//! Measuring the firmware: what it draws, how long it takes and what it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use waft::Model;

use crate::boards::Board;
use crate::build::{self, Contents, Sizes};
use crate::emulate::{Printed, Request};
use crate::setup;

/// What the firmware did and what it needs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) core: &'static str,
    /// The compiler that built it.
    pub(crate) compiler: String,
    /// SHA-256 of the image's bytes.
    pub(crate) digest: String,
    /// Instructions of the whole image; none where the machine has no exact counter.
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

/// An image for one target and model.
pub(crate) struct Firmware {
    board: &'static Board,
    compiler: String,
    image: PathBuf,
    pub(crate) sizes: Sizes,
    pub(crate) model_bytes: u64,
    pub(crate) arena_bytes: u64,
    pub(crate) panic_free: bool,
}

impl Firmware {
    /// Builds the image.
    pub(crate) fn build(board: &'static Board, contents: Contents<'_>) -> anyhow::Result<Self> {
        let parsed = Model::from_bytes(contents.model)?;
        if let Some(emulator) = board.emulator() {
            setup::tool(emulator)?;
        }
        let compiler = setup::toolchain(board.triple)?.version().to_string();
        let (image, panic_free) = build::image(board, contents)?;
        let arena_bytes = parsed.arena_bytes() as u64;
        let sizes = Sizes::of(&image)?;
        let model_bytes = (contents.model.len() + contents.weights.len()) as u64;
        Ok(Self { board, compiler, image, sizes, model_bytes, arena_bytes, panic_free })
    }

    /// Draws one image.
    pub(crate) fn draw(&self, request: &Request) -> anyhow::Result<Report> {
        let printed = Printed::by(self.board, &self.image, request)?;
        Ok(Report {
            target: self.board.name.into(),
            core: self.board.core,
            compiler: self.compiler.clone(),
            digest: printed.digest()?,
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

/// What one operation of a network did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// Instructions over the whole run; none where the machine has no exact counter.
    pub(crate) instructions: Option<u64>,
    /// Checksum of its result when it was last complete.
    pub(crate) checksum: u32,
}

/// What the firmware prints that counts the instructions of each operation of a model.
pub(crate) fn profiled(board: &Board, model: &[u8], request: &Request) -> anyhow::Result<Printed> {
    if let Some(emulator) = board.emulator() {
        setup::tool(emulator)?;
    }
    let image = build::profiling_image(board, model)?;
    Printed::by_loading(board, &image, &build::model_file(model)?, request)
}

/// What each operation of a model does on a board, by index.
pub(crate) fn profile(
    board: &'static Board,
    model: &[u8],
    request: &Request,
) -> anyhow::Result<BTreeMap<u16, Operation>> {
    let printed = profiled(board, model, request)?;
    let index = |key: &str| u16::from_str_radix(key, 16).context("an operation's index");
    printed
        .numbers("op")
        .map(|(key, ticks)| {
            let checksum = printed.number(&format!("crc{key}"))? as u32;
            Ok((index(key)?, Operation { instructions: board.instructions(ticks?), checksum }))
        })
        .collect()
}

/// What each kernel that is no operation of its own takes on a board, by name; its instructions, and a number that its results
/// give.
pub(crate) fn kernels(board: &'static Board, model: &[u8]) -> anyhow::Result<BTreeMap<String, (Option<u64>, u64)>> {
    if let Some(emulator) = board.emulator() {
        setup::tool(emulator)?;
    }
    let printed = Printed::by(board, &build::kernels_image(board, model)?, &Request::default())?;
    printed
        .numbers("ticks:")
        .map(|(name, ticks)| {
            Ok((name.to_string(), (board.instructions(ticks?), printed.number(&format!("sum:{name}"))?)))
        })
        .collect()
}
