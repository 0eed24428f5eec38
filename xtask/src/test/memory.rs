//! What watches the core's memory: Miri and AddressSanitizer.

use std::process::Command;

use anyhow::{Context, ensure};

use super::build::OVERFLOW_CHECKS;
use crate::repository::{root, run};
use crate::setup;

/// Miri finds no undefined behaviour in the core's unit tests, whole runs included, and the core refuses big-endian targets.
pub(super) fn miri(missing: &mut Vec<String>) -> anyhow::Result<()> {
    if !setup::has_miri() {
        missing.push("miri: `rustup +nightly component add miri rust-src` gives what runs it".into());
        return Ok(());
    }
    // An interpreter takes one core: two run beside each other. Kernels do not depend on the width of addresses.
    let mut wide = under_miri("x86_64-unknown-linux-gnu", &[]);
    let mut narrow = under_miri("i686-unknown-linux-gnu", &["arch"]);
    let (wide, narrow) = rayon::join(|| run(&mut wide), || run(&mut narrow));
    wide.and(narrow)?;
    let mut big_endian = under_miri("s390x-unknown-linux-gnu", &[]);
    let output = big_endian.current_dir(root()).output().context("cannot run cargo")?;
    let message = String::from_utf8_lossy(&output.stderr);
    let refused = !output.status.success() && message.contains("big-endian targets are not supported");
    ensure!(refused, "a big-endian target is not refused:\n{message}");
    Ok(())
}

/// Tests that an interpreter takes minutes for, and learns nothing from: what they run has no unsafe code and binds no memory.
/// So have kernels for other cores where their instructions are modelled; of those with the DSP extension the compiler is told.
const SAFE: [&str; 26] = [
    "accelerator::activation",
    "arch::wide",
    "fixed",
    "format::checksum",
    "format::conv2d",
    "format::validate",
    "guidance",
    "noise",
    "sampler",
    "threshold",
    "weights::tests",
    "::armv6m",
    "::armv7m",
    "::mve",
    "::neon",
    "::riscv",
    "::vfp",
    "::convolve_",
    "::finish_",
    "::gather_",
    "::moments_",
    "::scores_",
    "::unfold_",
    "::winograd_multiply",
    "::winograd_output",
    "::winograd2_output",
];

/// The core's unit tests in Miri for a target, but for those whose names contain one of `skipped`, and the [`SAFE`] ones.
fn under_miri(target: &str, skipped: &[&str]) -> Command {
    let mut command = nightly();
    command.args(["miri", "test", "--quiet", "-p", "waft", "--lib", "--target", target, "--"]);
    for name in SAFE.iter().chain(skipped) {
        command.args(["--skip", name]);
    }
    // A build waits for every other in its folder.
    command.env("CARGO_TARGET_DIR", root().join("target").join("miri").join(target));
    command
}

/// AddressSanitizer finds nothing in the core's unit tests, whole runs in each precision included.
pub(super) fn asan(missing: &mut Vec<String>) -> anyhow::Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || !setup::has_miri() {
        missing.push(format!("asan: needs {TARGET} and a nightly toolchain"));
        return Ok(());
    }
    let mut command = nightly();
    command.args(["test", "--quiet", "-p", "waft", "--lib", "--target", TARGET]).args(OVERFLOW_CHECKS).arg("--release");
    command.env("RUSTFLAGS", "-Zsanitizer=address").env("CARGO_TARGET_DIR", root().join("target").join("asan"));
    run(&mut command)
}

/// Cargo of the nightly toolchain.
fn nightly() -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly");
    // What `cargo xtask` set for its own toolchain does not hold for another.
    for name in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}
