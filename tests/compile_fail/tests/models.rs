//! A model that is damaged, cut short or of another format version stops the compiler, with what to do.
//!
//! The compiler's words around ours change from release to release: `TRYBUILD=overwrite cargo test -p waft-compile-fail`
//! writes those of the one at hand.

use std::path::{Path, PathBuf};

/// Writes a file that the programs include.
fn forge(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

#[test]
fn broken_models_do_not_compile() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits/digits-i4.waft");
    let model = std::fs::read(shipped).expect("reads");
    let mut damaged = model.clone();
    *damaged.last_mut().expect("a model has bytes") ^= 1;
    // The version stands behind the magic number, in every version of the format.
    let mut outdated = model.clone();
    outdated[4..6].copy_from_slice(&(waft::format::VERSION - 1).to_le_bytes());
    let files = [
        ("WAFT_DAMAGED", Some(forge("damaged.waft", &damaged))),
        ("WAFT_OUTDATED", Some(forge("outdated.waft", &outdated))),
        ("WAFT_TRUNCATED", Some(forge("truncated.waft", &model[..model.len() / 2]))),
    ];
    temp_env::with_vars(files, || {
        let programs = trybuild::TestCases::new();
        programs.compile_fail("tests/programs/*.rs");
    });
}
