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

/// The README's picture: the same line as `shipped_models_are_inside_the_program` of `host/tests/cli` has from `waft`.
#[test]
fn the_products_commands_are_the_same() {
    let request =
        ["sample", "--model", "digits", "--class", "7", "--seed", "1", "--count", "16", "--steps", "10", "--json"];
    let output = xtask(&request);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = r#"{"channels":1,"count":16,"digest":"7e8f7135e827196ee92d406255a68de9049668e94db95259a9832819d255d125","height":8,"precision":"i8","width":8}"#;
    assert_eq!(String::from_utf8(output.stdout).expect("text"), format!("{line}\n"));
}

#[test]
fn targets_that_do_not_exist_are_refused() {
    let output = xtask(&["firmware", "--target", "z80-unknown-none", "--model", "digits"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.contains("thumbv7em-none-eabihf"), "{error}");
}
