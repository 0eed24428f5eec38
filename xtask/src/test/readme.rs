//! The Rust of the READMEs, as a user would copy it: every block is a module of one crate that is checked for cores with and
//! without atomic swaps, over the dependency lines that the README gives.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::repository::{root, run};
use crate::setup;

/// Files whose blocks are checked.
const FILES: [&str; 3] = ["README.md", "runtime/README.md", "models/README.md"];

/// A core without atomic swaps of each family, and one with them.
const TARGETS: [&str; 3] = ["thumbv6m-none-eabi", "riscv32imc-unknown-none-elf", "thumbv7em-none-eabihf"];

/// Where the lines find the crates, and the folders that stand for it here.
const REPOSITORY: &str = concat!("git = \"", env!("CARGO_PKG_REPOSITORY"), "\"");
const CRATES: [(&str, &str); 2] = [("waft", "runtime"), ("waft-models", "models")];

/// The blocks of a language that a file has.
pub(super) fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```").is_some_and(|info| info.split(',').next() == Some(language)) {
            found.push(
                lines
                    .by_ref()
                    .take_while(|line| !line.starts_with("```"))
                    .fold(String::new(), |block, line| block + line + "\n"),
            );
        }
    }
    found
}

/// Every block of Rust compiles on every kind of core.
pub(super) fn readme() -> anyhow::Result<()> {
    let folder = root().join("target").join("readme");
    fs::create_dir_all(folder.join("src"))?;
    let model = root().join("models").join("digits").join("digits-i8.waft");
    let mut source = "#![no_std]\n#![allow(dead_code)]\n".to_string();
    let mut dependencies = String::new();
    for file in FILES {
        let text = fs::read_to_string(root().join(file)).context(file)?;
        for (index, block) in blocks(&text, "rust").into_iter().enumerate() {
            // Where a block says that its model lies.
            for name in block.split('"').filter(|word| word.ends_with(".waft")) {
                fs::copy(&model, folder.join("src").join(name))?;
            }
            source += &format!("\n/// {file}, block {}\nmod {}_{index} {{\n{block}}}\n", index + 1, module(file));
        }
        for block in blocks(&text, "json") {
            serde_json::from_str::<serde_json::Value>(&block).with_context(|| format!("{file}: {block}"))?;
        }
        blocks(&text, "toml").into_iter().for_each(|block| dependencies += &block);
    }
    ensure!(source.contains("mod readme_md_0") && dependencies.contains("waft = {"), "README.md has no example");
    let text = fs::read_to_string(root().join("README.md"))?;
    let models = text.split('`').find(|code| code.starts_with("waft-models = {")).context("no line for waft-models")?;
    dependencies += models;
    for (name, here) in CRATES {
        let line = dependencies.lines().find(|line| line.starts_with(&format!("{name} = "))).context(name)?.to_string();
        ensure!(line.contains(REPOSITORY), "{line}: names no repository");
        let path = format!("path = {:?}", root().join(here));
        dependencies = dependencies.replace(&line, &line.replace(REPOSITORY, &path));
    }
    let manifest = format!(
        "[package]\nname = \"readme\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n{dependencies}\n\
         embassy-futures = \"0.1\"\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src").join("lib.rs"), source)?;
    TARGETS.iter().try_for_each(|target| check(&folder, target))
}

/// A file's name as a module's.
fn module(file: &str) -> String {
    file.to_lowercase().replace(['/', '.'], "_")
}

/// Checks the crate for a target, without a warning.
fn check(folder: &Path, target: &str) -> anyhow::Result<()> {
    eprintln!("the README's Rust for {target}");
    // Sets the target up.
    setup::toolchain(target)?;
    let mut command = Command::new("cargo");
    command.args(["check", "--quiet", "--target", target, "--manifest-path"]).arg(folder.join("Cargo.toml"));
    run(command.env("CARGO_TARGET_DIR", folder.join("target")).env("RUSTFLAGS", "-D warnings"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocks_end_where_their_fence_does() {
        let text = "a\n```rust,ignore\none\ntwo\n```\n```toml\nthree\n```\n```rust\nfour\n```\n";
        assert_eq!(super::blocks(text, "rust"), ["one\ntwo\n", "four\n"]);
        assert_eq!(super::blocks(text, "toml"), ["three\n"]);
    }
}
