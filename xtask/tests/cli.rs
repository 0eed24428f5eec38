//! The commands of the repository, and that the product's are beside them; what those do is tested in `host/tests/cli`.

use std::process::{Command, Output};

fn xtask(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("runs")
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "export-weights",
        "sample",
        "predict",
        "inspect",
        "firmware",
        "size",
        "sign",
        "header",
        "test",
        "quality",
        "merge",
        "parity",
        "kernels",
        "bench",
    ] {
        let output = xtask(&[command, "--help"]);
        assert!(output.status.success() && output.stdout.len() > 100, "{command}");
    }
}

#[test]
fn targets_that_do_not_exist_are_refused() {
    let output = xtask(&["firmware", "--target", "z80-unknown-none", "--model", "digits"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.contains("thumbv7em-none-eabihf"), "{error}");
}
