//! The C interface, built and run: `libwaft.a` for a target, linked into tests/c by a C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use waft::Model;
use waft_host::export::precision_name;
use waft_host::sample::digest;

use crate::boards::{self, Board};
use crate::firmware::{self, Printed, Request};
use crate::setup;

/// How C is compiled for a board.
struct Compiler {
    board: &'static str,
    program: &'static str,
    package: &'static str,
    flags: &'static [&'static str],
    code_start: &'static str,
    data_start: &'static str,
}

const fn arm(board: &'static str, flags: &'static [&'static str]) -> Compiler {
    Compiler {
        board,
        program: "arm-none-eabi-gcc",
        package: "gcc-arm-none-eabi",
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
        program: "riscv64-unknown-elf-gcc",
        package: "gcc-riscv64-unknown-elf",
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
        .build(&firmware::root().join("runtime").join("c"), board.triple)
        .args(["--no-default-features", "--features", &features.join(",")])
        .env("CARGO_TARGET_DIR", folder)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("libwaft.a does not build for {}:\n{}", board.triple, String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.join(board.triple).join("release").join("libwaft.a"))
}

/// Draws a picture with the C firmware of a target; its digest. That it links is the proof that no panic path survives.
pub(crate) fn draw(target: &str, model: &[u8], request: Request) -> anyhow::Result<String> {
    let compiler = COMPILERS.iter().find(|compiler| compiler.board == target).with_context(|| {
        format!("--target {target}: C firmware exists for {}", targets().collect::<Vec<_>>().join(", "))
    })?;
    let board = boards::find(target)?[0];
    board.set_up()?;
    setup::program(compiler.program, &[compiler.package])?;
    let parsed = Model::from_bytes(model)?;
    let folder = firmware::root().join("target").join("c");
    std::fs::create_dir_all(&folder)?;
    let library = library(board, &firmware::features(&parsed), &folder)?;

    let source = firmware::root().join("tests").join("c");
    let model_file = folder.join("model.waft");
    std::fs::write(&model_file, model)?;
    let script = std::fs::read_to_string(source.join("link.ld"))?
        .replace("CODE_START", compiler.code_start)
        .replace("DATA_START", compiler.data_start);
    let script_file = folder.join(format!("{target}.ld"));
    std::fs::write(&script_file, script)?;
    let image = folder.join(format!("{target}-{}.elf", precision_name(parsed.precision())));
    eprintln!("compiling the C firmware for {target}");
    let output = Command::new(compiler.program)
        .args(compiler.flags)
        .args(["-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-ffunction-sections"])
        .args(["-nostdlib", "-nostartfiles", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"])
        .arg(format!("-DMODEL_FILE=\"{}\"", model_file.display()))
        .arg(format!("-DARENA_BYTES={}", parsed.arena_bytes()))
        .arg("-I")
        .arg(firmware::root().join("runtime").join("c"))
        .arg("-T")
        .arg(&script_file)
        .args([source.join("start.c"), source.join("main.c"), library])
        .arg("-o")
        .arg(&image)
        .output()
        .with_context(|| format!("cannot run {}", compiler.program))?;
    if !output.status.success() {
        bail!("the C firmware does not build for {target}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let printed = Printed::by(&mut board.command(&source, &image, &request.words()))?;
    Ok(digest([printed.picture()?.as_slice()]))
}
