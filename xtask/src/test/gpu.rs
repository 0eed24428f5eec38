//! The GPU backend: its tests, and its kernels as they are committed.

use std::process::Command;

use super::build::test;
use crate::args::Backend;
use crate::kernels::{self, Comparison};
use crate::repository::{root, run};

/// On a GPU. Without one they are ignored, not passed.
pub(super) fn cuda(missing: &mut Vec<String>) -> anyhow::Result<()> {
    run(test().args(["--test", "cuda"]))?;
    if let Err(error) = Backend::Cuda.open() {
        missing.push(format!("parity on a GPU: {error}; `cargo xtask parity --backend cuda` on a machine with one"));
    }
    Ok(())
}

/// Once more, over a driver that executes kernels on the host: calls, arguments, sizes and graphs, but no GPU.
pub(super) fn driver() -> anyhow::Result<()> {
    let folder = root().join("target").join("driver");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--manifest-path", "tests/driver/Cargo.toml"]);
    run(build.env("CARGO_TARGET_DIR", &folder))?;
    let path = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    run(test().args(["--test", "cuda", "--", "--test-threads=1"]).env(path, folder.join("release")))
}

/// The committed kernels are what the sources give, if the compiler that made them is here.
pub(super) fn kernels(missing: &mut Vec<String>) -> anyhow::Result<()> {
    if let Comparison::OtherCompiler { committed, here } = kernels::check()? {
        missing.push(format!("kernels/waft.ptx against its sources: {committed} made it, here is {here}"));
    }
    Ok(())
}
