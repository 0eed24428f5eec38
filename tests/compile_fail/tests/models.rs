//! A model that is damaged, cut short or of another format version stops the compiler, with what to do; a large one, or one
//! of many tensors, does not keep it long.
//!
//! The compiler's words around ours change from release to release: `TRYBUILD=overwrite cargo test -p waft-compile-fail`
//! writes those of the one at hand.

use std::path::{Path, PathBuf};

use waft::Model;

#[expect(unreachable_pub, reason = "it is public in waft-tests")]
#[path = "../../src/many.rs"]
mod many;

/// Writes a file that the programs include.
fn forge(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

#[test]
fn large_models_compile() {
    let digits = std::fs::read(shipped("digits/digits-i4.waft")).expect("reads");
    let digits = Model::from_bytes(&digits).expect("a model");
    let tensors = many::with_more_tensors(&digits, 1000, false);
    let files =
        [("WAFT_EMOJI", Some(shipped("emoji/emoji-i8.waft"))), ("WAFT_TENSORS", Some(forge("tensors.waft", &tensors)))];
    temp_env::with_vars(files, || {
        let programs = trybuild::TestCases::new();
        programs.pass("tests/programs/pass/*.rs");
    });
}

#[test]
fn broken_models_do_not_compile() {
    let model = std::fs::read(shipped("digits/digits-i4.waft")).expect("reads");
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
