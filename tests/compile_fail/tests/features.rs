//! Features of the core that do not go together are refused, with what to do.

use std::process::Command;

#[test]
fn no_precision_does_not_compile() {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/Cargo.toml")])
        .args(["--no-default-features", "--features", "attention"])
        .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-precision"))
        .output()
        .expect("runs cargo");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the core builds without a precision");
    assert!(message.contains("waft: enable at least one precision: i8, f16 or f32"), "{message}");
}
