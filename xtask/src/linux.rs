//! The core on AArch64 Linux, emulated: what a Raspberry Pi and its like run.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::boards::Tool;
use crate::repository::root;
use crate::setup;

/// What `--target` calls it.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-musl";

const EMULATOR: Tool = Tool { program: "qemu-aarch64", packages: &["qemu-user"] };

/// A command of cargo on the core with its instruction sets, optimized, whose programs the emulator runs.
pub(crate) fn cargo(name: &str) -> anyhow::Result<Command> {
    setup::tool(EMULATOR)?;
    let mut command = setup::toolchain_with_std(TARGET)?.cargo(&root(), name, TARGET);
    command.args(["--release", "--package", "waft", "--features", "std"]);
    // The compiler brings a linker and the target's start-up code.
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER", EMULATOR.program);
    command.env("CARGO_TARGET_DIR", root().join("target").join("aarch64"));
    Ok(command)
}

/// What the emulator executed for an instruction set, and the checksum that the program printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) instructions: u64,
    pub(crate) checksum: u32,
}

/// Runs the example `operations` of the core: instructions of the operation before `count`, without those before it.
pub(crate) fn operation(model: &Path, count: u16, instructions: &str) -> anyhow::Result<Counted> {
    // Of two runs the second is counted, which finds memory as it needs it.
    let run = |count: u16, runs: &str| execute(model, &[&count.to_string(), runs, instructions]);
    let once = |count: u16| -> anyhow::Result<Counted> {
        let [one, two] = [run(count, "1")?, run(count, "2")?];
        ensure!(one.checksum == two.checksum, "two runs differ");
        Ok(Counted { instructions: two.instructions.saturating_sub(one.instructions), ..two })
    };
    let [before, with] = [once(count - 1)?, once(count)?];
    Ok(Counted { instructions: with.instructions.saturating_sub(before.instructions), ..with })
}

/// Compiles the example.
pub(crate) fn build() -> anyhow::Result<()> {
    let status = cargo("build")?.args(["--quiet", "--example", "operations"]).status().context("cannot run cargo")?;
    ensure!(status.success(), "the example does not build");
    Ok(())
}

/// Runs the example in the emulator, which says of each block of code what is in it when it is first met, and whenever it is
/// executed.
fn execute(model: &Path, arguments: &[&str]) -> anyhow::Result<Counted> {
    let program =
        root().join("target").join("aarch64").join(TARGET).join("release").join("examples").join("operations");
    let mut child = Command::new(EMULATOR.program)
        .args(["-d", "in_asm,exec,nochain"])
        .arg(&program)
        .arg(model)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| EMULATOR.program)?;
    let instructions = count(BufReader::new(child.stderr.take().context("piped above")?))?;
    let status = child.wait()?;
    ensure!(status.success(), "the emulated program ended with {status}");
    let mut text = String::new();
    child.stdout.take().context("piped above")?.read_to_string(&mut text)?;
    Ok(Counted { instructions, checksum: u32::from_str_radix(text.trim(), 16).context("no checksum")? })
}

/// Instructions that were executed, by a log: `IN:` begins a block, whose lines begin with addresses, and `Trace` names the
/// address of one that is executed.
fn count(log: impl BufRead) -> anyhow::Result<u64> {
    let mut blocks: HashMap<u64, u64> = HashMap::new();
    let (mut block, mut total) = (None, 0);
    let address = |text: &str| u64::from_str_radix(text, 16);
    for line in log.lines() {
        let line = line?;
        if let Some(trace) = line.strip_prefix("Trace ") {
            let at = trace.split(['[', '/']).nth(2).context("no address")?;
            let Some(instructions) = blocks.get(&address(at)?) else { bail!("the block at {at} was never met") };
            total += instructions;
        } else if line.starts_with("IN:") {
            block = None;
        } else if let Some((at, _)) = line.strip_prefix("0x").and_then(|line| line.split_once(':')) {
            let first = *block.get_or_insert(address(at)?);
            let known = blocks.entry(first).or_default();
            *known = if address(at)? == first { 1 } else { *known + 1 };
        }
    }
    ensure!(total > 0, "the emulator logged nothing");
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_as_often_as_they_are_executed() {
        let log = "----\nIN: _start\n0x00400580:  d280  mov x29, #0\n0x00400584:  d280  mov x30, #0\n\n\
                   Trace 0: 0x7f [00000000/0000000000400580/00000000/ff] _start\n----\nIN: \n0x00400588:  9400  bl\n\n\
                   Trace 0: 0x7f [00000000/0000000000400588/00000000/ff] main\n\
                   Trace 0: 0x7f [00000000/0000000000400580/00000000/ff] _start\n";
        assert_eq!(count(log.as_bytes()).expect("a log"), 5);
        assert!(count("".as_bytes()).is_err());
        assert!(count("Trace 0: 0x7f [0/0000000000400580/0/ff]\n".as_bytes()).is_err());
    }
}
