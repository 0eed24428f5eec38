//! The C interface, built and run: `libwaft.a` for a target, linked into tests/c by a C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use waft::Model;
use waft_host::export::precision_name;

use crate::boards::{self, Board, Tool};
use crate::build;
use crate::emulate::{Printed, Request};
use crate::repository::root;
use crate::setup;

/// How C is compiled for a board.
struct Compiler {
    board: &'static str,
    tool: Tool,
    flags: &'static [&'static str],
    code_start: &'static str,
    data_start: &'static str,
}

const fn arm(board: &'static str, flags: &'static [&'static str]) -> Compiler {
    Compiler {
        board,
        tool: Tool { program: "arm-none-eabi-gcc", packages: &["gcc-arm-none-eabi"] },
        flags,
        code_start: "0x00000000",
        data_start: "0x20000000",
    }
}

const COMPILERS: [Compiler; 3] = [
    arm("thumbv6m-none-eabi", &["-mcpu=cortex-m0plus", "-mthumb"]),
    arm("thumbv7em-none-eabihf", &["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]),
    Compiler {
        board: "riscv32imac-unknown-none-elf",
        tool: Tool { program: "riscv64-unknown-elf-gcc", packages: &["gcc-riscv64-unknown-elf"] },
        flags: &["-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany"],
        code_start: "0x80000000",
        data_start: "0x80400000",
    },
];

/// The targets with a C firmware.
pub(crate) fn targets() -> impl Iterator<Item = &'static str> {
    COMPILERS.iter().map(|compiler| compiler.board)
}

/// Builds the library for a target and returns its path.
fn library(board: &Board, features: &[&str], folder: &Path) -> anyhow::Result<PathBuf> {
    let output = setup::toolchain(board.triple)?
        .build(&root().join("runtime").join("c"), board.triple)
        .args(["--no-default-features", "--features", &features.join(",")])
        .env("CARGO_TARGET_DIR", folder)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("libwaft.a does not build for {}:\n{}", board.triple, String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.join(board.triple).join("release").join("libwaft.a"))
}

/// Draws an image with the C firmware of a target and returns its digest. That it links is the proof that no panic path survives.
pub(crate) fn draw(target: &str, model: &[u8], request: &Request) -> anyhow::Result<String> {
    let compiler = COMPILERS.iter().find(|compiler| compiler.board == target).with_context(|| {
        format!("--target {target}: C firmware exists for {}", targets().collect::<Vec<_>>().join(", "))
    })?;
    let board = boards::find(target)?[0];
    board.emulator().into_iter().chain([compiler.tool]).try_for_each(setup::tool)?;
    let parsed = Model::from_bytes(model)?;
    let folder = root().join("target").join("c");
    std::fs::create_dir_all(&folder)?;
    let library = library(board, &build::features(&parsed), &folder)?;

    let source = root().join("tests").join("c");
    let model_file = folder.join("model.waft");
    std::fs::write(&model_file, model)?;
    let script = std::fs::read_to_string(source.join("link.ld"))?
        .replace("CODE_START", compiler.code_start)
        .replace("DATA_START", compiler.data_start);
    let script_file = folder.join(format!("{target}.ld"));
    std::fs::write(&script_file, script)?;
    let image = folder.join(format!("{target}-{}.elf", precision_name(parsed.precision())));
    eprintln!("compiling the C firmware for {target}");
    let output = Command::new(compiler.tool.program)
        .args(compiler.flags)
        .args(["-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-ffunction-sections"])
        .args(["-nostdlib", "-nostartfiles", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"])
        .arg(format!("-DMODEL_FILE=\"{}\"", model_file.display()))
        .arg(format!("-DARENA_BYTES={}", parsed.arena_bytes()))
        .arg("-I")
        .arg(root().join("runtime").join("c"))
        .arg("-T")
        .arg(&script_file)
        .args([source.join("start.c"), source.join("main.c"), library])
        .arg("-o")
        .arg(&image)
        .output()
        .with_context(|| format!("cannot run {}", compiler.tool.program))?;
    if !output.status.success() {
        bail!("the C firmware does not build for {target}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Printed::by(board, &image, request)?.digest()
}
