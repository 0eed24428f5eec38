//! The command line's contracts: outputs, JSON keys, exit codes, and files that are whole or absent.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

mod commands;
mod options;
#[cfg(unix)]
mod outputs;
mod snapshots;

fn waft(arguments: &[&str]) -> Output {
    // Help is as wide as the terminal that these name.
    let mut command = Command::new(env!("CARGO_BIN_EXE_waft"));
    command.args(arguments).env_remove("COLUMNS").env_remove("LINES").output().expect("runs")
}

/// The one JSON object that a successful command prints.
fn json(arguments: &[&str]) -> Value {
    let output = waft(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object and nothing else")
}

/// What a failing command says.
fn failure(arguments: &[&str]) -> String {
    let output = waft(arguments);
    assert!(!output.status.success(), "{arguments:?} must fail");
    assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
    String::from_utf8(output.stderr).expect("text")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the repository").to_path_buf()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn golden(name: &str) -> String {
    text(&root().join("tests").join("goldens").join(name)).to_string()
}

/// A small model.
fn export(to: &Path, options: &[&str]) {
    let arguments =
        ["export-weights", &golden("heads"), "--precision", "f32", "--steps", "3", "--json", "--out", text(to)];
    json(&[&arguments[..], options].concat());
}
