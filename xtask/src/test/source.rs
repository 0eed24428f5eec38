//! Checks of the sources that run nothing: format, lints, features, documentation.

use std::path::Path;
use std::process::Command;

use super::build::EXAMPLES;
use crate::repository::{cargo, root, run};

/// Folders that are workspaces of their own.
const OUTSIDE: [&str; 6] = ["kernels/ptx", "runtime/c", "runtime/web", "tests/driver", "tests/firmware", "tests/fuzz"];

/// Sets of precisions, with what belongs to one of them.
const PRECISIONS: [&str; 10] = [
    "i8",
    "i8,i4",
    "i8,step-scales",
    "i8,i4,step-scales",
    "f16",
    "f32",
    "f16,f32",
    "i8,f16",
    "i8,f32",
    "i8,i4,step-scales,f16,f32",
];

/// Sets of operations that not every model needs.
const OPERATIONS: [&str; 6] =
    ["", "attention", "conditioning", "activations", "scale-shift", "attention,conditioning,activations,scale-shift"];

/// Features that add an interface or exchange a function.
const INTERFACES: [&str; 7] =
    ["micromath", "defmt", "rand_core", "embedded-graphics", "ed25519", "embedded-storage", "embedded-io"];

/// rustfmt has nothing to change.
pub(super) fn format() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    let examples = EXAMPLES.iter().map(|(board, _)| format!("runtime/boards/{board}"));
    let mut folders = OUTSIDE.iter().map(|folder| folder.to_string()).chain(examples);
    folders.try_for_each(|folder| cargo(&["fmt", "--check", "--manifest-path", &format!("{folder}/Cargo.toml")]))
}

/// clippy has no complaints, in the workspace and in what is none of its members but compiles for this machine.
pub(super) fn clippy() -> anyhow::Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["clippy", "-q", "-p", "xtask", "--no-default-features", "--", "-D", "warnings"])?;
    for features in ["i8", "f16", "f32", "i8,i4,step-scales,f16,f32,attention,conditioning,activations,scale-shift"] {
        outside("runtime/c", &["--no-default-features", "--features", features])?;
    }
    outside("runtime/web", &[])?;
    outside("tests/driver", &[])?;
    outside("tests/fuzz", &[])?;
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        // Only the release profile aborts on a panic, which a program without the standard library must.
        outside(
            "tests/firmware",
            &["--release", "--features", "i8,i4,step-scales,attention,conditioning,activations,scale-shift"],
        )?;
        outside("tests/firmware", &["--release", "--features", "i8,attention,conditioning,stream"])?;
    }
    Ok(())
}

/// clippy of a workspace of its own, with its build folder under the repository's.
fn outside(folder: &str, options: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.args(["clippy", "-q", "--manifest-path"]).arg(Path::new(folder).join("Cargo.toml")).args(options);
    command.args(["--", "-D", "warnings"]).env("CARGO_TARGET_DIR", root().join("target").join("outside"));
    // What the firmware is built around.
    let model = root().join("models").join("digits").join("digits-i8.waft");
    run(command.env("WAFT_BOARD", "linux").env("WAFT_MODEL_FILE", &model).env("WAFT_WEIGHTS_FILE", &model))
}

/// Every set of features that a firmware may choose builds without a warning.
pub(super) fn features() -> anyhow::Result<()> {
    let check = |features: &str| {
        cargo(&["clippy", "-q", "-p", "waft", "--no-default-features", "--features", features, "--", "-D", "warnings"])
    };
    for precisions in PRECISIONS {
        for operations in OPERATIONS {
            check(&format!("{precisions},{operations}"))?;
        }
    }
    for interface in INTERFACES {
        for precision in ["i8", "f16", "f32"] {
            check(&format!("{precision},{interface}"))?;
        }
    }
    cargo(&["clippy", "-q", "-p", "waft", "--all-features", "--", "-D", "warnings"])
}

/// The documentation builds without a warning, that of the core with every feature as well.
pub(super) fn docs() -> anyhow::Result<()> {
    for packages in [&["--workspace"][..], &["-p", "waft", "--all-features"]] {
        let mut command = Command::new("cargo");
        run(command.args(["doc", "--no-deps"]).args(packages).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}
