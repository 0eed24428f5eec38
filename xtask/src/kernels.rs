//! `kernels`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::args::write_whole;
use crate::repository::root;
use crate::setup;

/// Compiles the GPU's kernels to PTX, and checks that the assembler takes them without spilling registers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed file instead of replacing it.
    #[arg(long)]
    check: bool,
}

/// What the kernels must assemble for.
const ARCHITECTURES: [&str; 4] = ["sm_75", "sm_80", "sm_86", "sm_90"];

/// How a comparison with the committed file came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// It is what the sources give.
    Same,
    /// Another compiler made it: there is nothing to compare.
    OtherCompiler {
        /// The compiler that made the committed file.
        committed: String,
        /// The compiler at hand.
        here: String,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.check {
        match check()? {
            Comparison::Same => println!("kernels/waft.ptx is what the sources give"),
            Comparison::OtherCompiler { committed, here } => {
                bail!("kernels/waft.ptx was made by {committed}, but the compiler here is {here}: nothing to compare")
            }
        }
        return Ok(());
    }
    let ptx = compile()?;
    write_whole(&path(), ptx.as_bytes())?;
    assemble(&path())?;
    println!("kernels/waft.ptx: {} bytes, {}", ptx.len(), maker(&ptx));
    Ok(())
}

/// Whether the committed file is what the sources give; that the assembler takes it in any case.
pub(crate) fn check() -> anyhow::Result<Comparison> {
    assemble(&path())?;
    let committed = std::fs::read_to_string(path())?;
    let ptx = compile()?;
    if maker(&committed) != maker(&ptx) {
        return Ok(Comparison::OtherCompiler { committed: maker(&committed).into(), here: maker(&ptx).into() });
    }
    ensure!(committed == ptx, "kernels/waft.ptx is not what the sources give: run `cargo xtask kernels`");
    Ok(Comparison::Same)
}

fn path() -> PathBuf {
    root().join("kernels").join("waft.ptx")
}

/// The compiler that a file names in its first line.
fn maker(ptx: &str) -> &str {
    ptx.lines().next().map_or("", |line| line.trim_start_matches("// "))
}

/// PTX of all kernels. The assembly of the library is the product; the link after it, which nobody needs, may fail.
fn compile() -> anyhow::Result<String> {
    let folder = root().join("kernels").join("ptx");
    let toolchain = setup::ptx_toolchain()?;
    let product =
        root().join("target").join("ptx").join("nvptx64-nvidia-cuda").join("release").join("deps").join("waft_ptx.s");
    // What is there may come from other sources.
    if product.exists() {
        std::fs::remove_file(&product)?;
        // Cargo does not know that its product is gone.
        std::fs::File::open(folder.join("src").join("lib.rs"))?.set_modified(std::time::SystemTime::now())?;
    }
    let mut command = toolchain.build(&folder, "nvptx64-nvidia-cuda");
    // Threads of a warp that jump through a table part; comparisons become predicates.
    command
        .env("CARGO_TARGET_DIR", root().join("target").join("ptx"))
        .env("RUSTFLAGS", "-C target-cpu=sm_75 -C target-feature=+ptx65 -C jump-tables=no --emit=asm")
        .arg("--quiet");
    let output = command.output().context("cannot run cargo")?;
    let Ok(assembly) = std::fs::read_to_string(&product) else {
        bail!("the kernels do not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    };
    for kernel in waft_host::gpu::kernel_names() {
        ensure!(assembly.contains(&format!(".entry {kernel}(")), "the compiler gave no kernel {kernel}");
    }
    Ok(format!("// {}\n{}", toolchain.version(), normalize(&assembly)))
}

/// Assembly without what depends on the machine: comments, and the hashes of crates, which depend on their folders.
fn normalize(assembly: &str) -> String {
    let mut text = String::new();
    for line in assembly.lines().filter(|line| !line.trim_start().starts_with("//") && !line.trim().is_empty()) {
        let mut rest = line;
        while let Some(at) = rest.find(['_', 'a']) {
            let (head, tail) = rest.split_at(at);
            text.push_str(head);
            let is_boundary = text.chars().last().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$');
            let end = tail.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(tail.len());
            if is_boundary && (tail.starts_with("_R") || tail.starts_with("anon_$_")) {
                text.push_str(&stable_name(&tail[..end]));
                rest = &tail[end..];
            } else {
                text.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
        text.push_str(rest.trim_end());
        text.push('\n');
    }
    text
}

/// A mangled name without hashes: crate disambiguators (`Cs…_`, RFC 2603) and those of anonymous constants.
fn stable_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("anon_$_") {
        return format!("anon_{}", rest.rsplit("_$_").next().unwrap_or(rest));
    }
    let mut stable = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("Cs") {
        let (head, tail) = rest.split_at(at + 1);
        stable.push_str(head);
        match tail.find('_') {
            // The disambiguator ends in an underscore, the crate's name and its length follow.
            Some(end) if tail[end + 1..].starts_with(|c: char| c.is_ascii_digit()) => rest = &tail[end + 1..],
            _ => {
                stable.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
    }
    stable + rest
}

/// Assembles for every architecture.
fn assemble(ptx: &Path) -> anyhow::Result<()> {
    let ptxas = setup::ptxas()?;
    for architecture in ARCHITECTURES {
        let null = if cfg!(windows) { "NUL" } else { "/dev/null" };
        let output = Command::new(&ptxas).args(["-v", "-arch", architecture, "-o", null]).arg(ptx).output();
        let output = output.with_context(|| format!("cannot run {}", ptxas.display()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ptxas refuses the kernels for {architecture}:\n{text}");
        let spills = text
            .lines()
            .find(|line| line.contains("spill") && !line.contains(" 0 bytes spill stores, 0 bytes spill loads"));
        if let Some(line) = spills {
            bail!("ptxas spills registers for {architecture}: {line}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hashes() {
        let line = "call.uni _RNvNtNtCsanIojcP8aaR_4core9panicking5panic, (anon_$_18e942d7_$_86);";
        assert_eq!(normalize(line), "call.uni _RNvNtNtC4core9panicking5panic, (anon_86);\n");
        assert_eq!(normalize("// made\n\n\tadd.s32 \t%r1, %r2;  \n"), "\tadd.s32 \t%r1, %r2;\n");
    }
}
