//! Checks that build and run what the repository publishes, on this machine.

use std::process::Command;

use anyhow::{Context, ensure};
use waft_host::export::ExportOptions;

use super::firmware::exported;
use crate::repository::{root, run};
use crate::{linux, setup};

/// Board examples in runtime/boards, and what they are built for.
pub(super) const EXAMPLES: [(&str, &str); 6] = [
    ("rp2040", "thumbv6m-none-eabi"),
    ("rp2350", "thumbv8m.main-none-eabihf"),
    ("nrf52840", "thumbv7em-none-eabihf"),
    ("stm32f429", "thumbv7em-none-eabihf"),
    ("stm32h743", "thumbv7em-none-eabihf"),
    ("esp32c3", "riscv32imc-unknown-none-elf"),
];

/// Published packages.
const PACKAGES: [&str; 4] = ["waft", "waft-kernels", "waft-models", "waft-host"];

/// Limit of the files of `waft-models`: checkpoints and pictures do not belong to it.
const MODELS_BYTES: u64 = 2_000_000;

/// What turns overflow checks on in the core without a second build of everything else.
pub(super) const OVERFLOW_CHECKS: [&str; 2] = ["--config", "profile.release.package.waft.overflow-checks=true"];

/// `cargo test` of the workspace with the tests of a GPU: whichever of them are run, one build serves all.
pub(super) fn test() -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--release", "--features", "waft-tests/cuda"]).args(OVERFLOW_CHECKS);
    command
}

/// The tests of all crates.
pub(super) fn tests() -> anyhow::Result<()> {
    run(&mut test())
}

/// The core's unit tests on AArch64 Linux under an emulator, whose processor has the dot products of bytes.
pub(super) fn aarch64() -> anyhow::Result<()> {
    let mut command = linux::cargo("test")?;
    command.args(["--quiet", "--lib"]).args(OVERFLOW_CHECKS);
    command.env("RUSTFLAGS", "-Dwarnings");
    run(command.env("WAFT_TEST_INSTRUCTIONS", "NEON with dot products"))
}

/// The packages as they would be published: they build from their own files alone, with every feature, by the oldest supported
/// compiler, and the models are small.
pub(super) fn packages(missing: &mut Vec<String>) -> anyhow::Result<()> {
    // What cargo unpacked for a folder it takes for the same packages ever after: the folder is another one each time.
    let folder = tempfile::tempdir_in(root().join("target"))?;
    let target = folder.path().to_string_lossy();
    let of = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).args(["--allow-dirty", "--quiet", "--target-dir", &target]);
        PACKAGES.iter().for_each(|package| {
            command.args(["-p", package]);
        });
        command
    };
    let mut publish = of(&["publish", "--dry-run", "--all-features"]);
    match setup::oldest_compiler() {
        Some(compiler) => {
            publish.env("RUSTC", compiler);
        }
        None => {
            let version = setup::OLDEST;
            missing.push(format!("rust-version {version}: `rustup toolchain install {version}` gives what checks it"));
        }
    }
    // A warning tells what a package lacks, though it builds: conditions that its build script sets, if that was left out.
    publish.env("RUSTFLAGS", "-D warnings");
    // That they build is what counts.
    run(publish.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    // Cargo removes the archive of a dry run.
    run(&mut of(&["package", "--no-verify"]))?;
    let models = format!("waft-models-{}.crate", env!("CARGO_PKG_VERSION"));
    let bytes = std::fs::metadata(folder.path().join("package").join(models))?.len();
    ensure!(bytes <= MODELS_BYTES, "waft-models: a package of {bytes} bytes, above {MODELS_BYTES}");
    eprintln!("waft-models: a package of {bytes} bytes");
    Ok(())
}

/// What builds a board's example; the gigabytes of its debug information are not what is checked.
fn example(board: &str, triple: &str) -> anyhow::Result<Command> {
    let mut command = setup::toolchain(triple)?.build(&root().join("runtime").join("boards").join(board), triple);
    command.env("CARGO_TARGET_DIR", root().join("target").join("boards")).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    Ok(command)
}

/// The examples for real boards build.
pub(super) fn boards() -> anyhow::Result<()> {
    for (board, triple) in EXAMPLES {
        eprintln!("building the example for {board}");
        let status = example(board, triple)?.arg("--quiet").status().context("cannot run cargo")?;
        ensure!(status.success(), "the example for {board} does not build");
    }
    streamed_files()
}

/// The program that writes a model and its weights into the flash of the STM32H743's board takes those of `--stream`, and only
/// those that belong together.
fn streamed_files() -> anyhow::Result<()> {
    let options = ExportOptions { stream: Some(16 * 1024), calibration_images: 2, ..ExportOptions::default() };
    let export = exported("digits", &options)?;
    let files = tempfile::tempdir()?;
    let [model, weights] = ["model.waft", "model.weights"].map(|name| files.path().join(name));
    std::fs::write(&model, export.bytes.as_slice())?;
    let bytes = export.weights.context("the weights of --stream")?;
    for (len, fits) in [(bytes.len(), true), (bytes.len() - 16, false)] {
        std::fs::write(&weights, &bytes[..len])?;
        let mut command = example("stm32h743", "thumbv7em-none-eabihf")?;
        command.env("WAFT_MODEL", &model).env("WAFT_WEIGHTS", &weights).args(["--bin", "program"]);
        let output = command.output().context("cannot run cargo")?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == fits, "a model with {len} bytes of weights: {text}");
        ensure!(fits || text.contains("WAFT_WEIGHTS is not"), "weights of another model: {text}");
    }
    Ok(())
}
