//! Help, `inspect` and the main error messages, word by word. `cargo insta review`, or INSTA_UPDATE=always, takes changes.

use std::process::Output;

use crate::{golden, text, waft};

/// Exit code, stdout and stderr, without what differs between machines.
fn snapshot(name: &str, arguments: &[&str]) {
    let Output { status, stdout, stderr } = waft(arguments);
    let [stdout, stderr] = [stdout, stderr].map(|stream| String::from_utf8(stream).expect("text"));
    let code = status.code().expect("ended by itself");
    insta::with_settings!({
        filters => [
            (r"waft \d+\.\d+\.\d+\S*", "waft [VERSION]"),
            (r"(/[^\s/:]+)+/(goldens|models)/", "[REPOSITORY]/$2/"),
            (r"/\S*/\.tmp\w+", "[FOLDER]"),
            // Estimates change with the kernels.
            (r" +(\d+\.\d\d|unknown)  (yes|no)", " [SECONDS]  $2"),
            (r"\(os error \d+\)", "(os error [N])"),
        ],
        omit_expression => true,
        prepend_module_to_snapshot => false,
    }, { insta::assert_snapshot!(name, format!("exit code {code}\n{stdout}{stderr}")) });
}

#[test]
fn help() {
    snapshot("help", &["--help"]);
    snapshot("version", &["--version"]);
    for command in ["export-weights", "sample", "predict", "inspect", "compare", "parity", "quality", "merge", "sign"] {
        snapshot(&format!("help_{command}"), &[command, "--help"]);
    }
}

#[test]
fn inspect() {
    snapshot("inspect_digits", &["inspect", "digits"]);
}

#[test]
fn errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let heads = golden("heads");
    snapshot("error_command", &["sampel"]);
    snapshot("error_model", &["sample", "--model", "nobody"]);
    snapshot("error_class", &["sample", "--model", "digits", "--class", "11"]);
    snapshot("error_steps", &["sample", "--model", "digits", "--steps", "1001"]);
    snapshot("error_extension", &["sample", "--model", "digits", "--out", "a.bmp"]);
    snapshot("error_checkpoint", &["export-weights", &path("nowhere"), "--out", &path("a.waft")]);
    snapshot("error_folder", &["export-weights", &heads, "--out", folder.path().to_str().expect("UTF-8")]);
    snapshot("error_same_output", &["export-weights", &heads, "--stream", "4096", "--out", &path("a.weights")]);
    snapshot(
        "error_precision",
        &["export-weights", &heads, "--precision", "f16", "--weights", "i4", "--calib", "3", "--out", &path("a.waft")],
    );
    std::fs::write(path("no.waft"), [0; 200]).expect("writes");
    snapshot("error_no_model", &["inspect", &path("no.waft")]);
    snapshot("error_key", &["sign", &path("no.waft"), "--key", &path("k"), "--out", &path("k")]);
}
