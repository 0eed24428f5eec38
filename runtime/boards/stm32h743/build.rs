//! Puts memory.x where the linker finds it, and the files that `program` writes where it includes them: `WAFT_MODEL`, and
//! `WAFT_WEIGHTS` of a model that was exported with `--stream`.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let put = |from: &str, name: &str| {
        println!("cargo::rerun-if-changed={from}");
        fs::copy(Path::new(from), out.join(name)).unwrap_or_else(|error| panic!("{from}: {error}"));
    };
    put("memory.x", "memory.x");
    println!("cargo::rerun-if-env-changed=WAFT_MODEL");
    println!("cargo::rerun-if-env-changed=WAFT_WEIGHTS");
    put(&env::var("WAFT_MODEL").unwrap_or_else(|_| "../../../models/emoji/emoji-i8.waft".into()), "model.waft");
    match env::var("WAFT_WEIGHTS") {
        Ok(weights) => put(&weights, "model.weights"),
        Err(_) => fs::write(out.join("model.weights"), []).expect("OUT_DIR is writable"),
    }
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
