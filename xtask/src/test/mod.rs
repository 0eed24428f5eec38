//! `test`: everything that this machine can check, with what it needs set up first.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::header;

mod build;
mod c;
mod c_readme;
mod commands;
mod cores;
mod firmware;
mod gpu;
mod memory;
mod readme;
mod source;
mod web;

/// Runs every test that this machine can run, and says what it could not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run these parts only, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Leave out the firmware under QEMU, and all that it would install.
    #[arg(long, conflicts_with = "only")]
    no_firmware: bool,
}

/// What there is to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The sources are formatted, no file is too long, and none is left out of its crate.
    Format,
    /// clippy has no complaints.
    Clippy,
    /// The C header is what the C interface's source gives.
    Header,
    /// Every set of the core's features builds without a warning.
    Features,
    /// The documentation builds without a warning.
    Docs,
    /// The Rust of the READMEs compiles, on cores without atomic swaps too; commands are understood, and quick ones run.
    Readme,
    /// The published packages are complete and small, and the oldest supported compiler builds them.
    Packages,
    /// The tests of all crates, with overflow checks in the core.
    Tests,
    /// The core's unit tests in Miri, with addresses of 64 and of 32 bits; a big-endian target is refused.
    Miri,
    /// The same tests under AddressSanitizer, on x86-64.
    Asan,
    /// The same tests on AArch64 Linux, emulated, with all instruction sets that it has.
    Aarch64,
    /// The examples for real boards build.
    Boards,
    /// The tests of the GPU backend: on a GPU, if there is one.
    Cuda,
    /// The same over a driver that executes kernels on the host.
    Driver,
    /// The committed kernels are what their sources give, and assemble.
    Kernels,
    /// The firmware on every target, and what it costs.
    Firmware,
    /// The C interface on this computer and on bare metal, from source and from packages.
    C,
    /// The page in a browser draws what the core draws.
    Web,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// Whether it sets up what runs firmware or a browser, or compiles kernels.
    fn is_firmware(self) -> bool {
        matches!(
            self,
            Self::Readme | Self::Kernels | Self::Firmware | Self::C | Self::Web | Self::Boards | Self::Aarch64
        )
    }

    /// Whether it builds in folders of its own, so that it can run beside any other part.
    fn is_apart(self) -> bool {
        let is_checked = matches!(self, Self::Features | Self::Packages | Self::Miri | Self::Asan);
        is_checked || matches!(self, Self::Aarch64 | Self::Boards | Self::Firmware | Self::C | Self::Web)
    }

    /// Runs it. What could not be checked goes into the list.
    fn run(self, missing: &mut Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Format => source::format(),
            Self::Clippy => source::clippy(),
            Self::Header => header::run(&header::Args { check: true }),
            Self::Features => source::features(),
            Self::Docs => source::docs(),
            Self::Readme => readme::readme().and_then(|()| commands::commands()),
            Self::Packages => build::packages(missing),
            Self::Tests => build::tests(),
            Self::Miri => memory::miri(missing),
            Self::Asan => memory::asan(missing),
            Self::Aarch64 => build::aarch64(),
            Self::Cuda => gpu::cuda(missing),
            Self::Driver => gpu::driver(),
            Self::Kernels => gpu::kernels(missing),
            Self::Firmware => firmware::firmware(missing),
            Self::C => c::interface(),
            Self::Web => web::browser(),
            Self::Boards => build::boards(),
        }
    }
}

/// What a part took, and what of it could not be checked.
#[derive(Clone)]
struct Passed {
    name: String,
    time: Duration,
    missing: Vec<String>,
}

/// How a line of the report starts that says what was not run.
const NOT_RUN: &str = "NOT RUN  ";

/// How many lines of a failed part stand in the error.
const LAST_LINES: usize = 40;

/// Runs the command, two parts at a time: compilers, linkers and interpreters keep few cores busy. Parts that build in folders of
/// their own run beside those that do not, and take what time is left when these have ended.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let is_wanted = |part: &Part| match args.only.as_slice() {
        [] => !(args.no_firmware && part.is_firmware()),
        only => only.contains(part),
    };
    let parts: Vec<Part> = Part::value_variants().iter().copied().filter(is_wanted).collect();
    let (apart, together): (Vec<Part>, Vec<Part>) = parts.iter().partition(|part| part.is_apart() && parts.len() > 1);
    // The tests build this program anew, in its place.
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("xtask");
    fs::copy(std::env::current_exe()?, &program)?;
    let has_failed = AtomicBool::new(false);
    let checked = |part: Part, result: anyhow::Result<Passed>| {
        has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result.with_context(|| format!("{} failed", part.name()))
    };
    let goes_on = || !has_failed.load(Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let rest = || {
        let next = || goes_on().then(|| apart.get(next.fetch_add(1, Ordering::Relaxed)).copied()).flatten();
        std::iter::from_fn(next)
            .map(|part| checked(part, run_apart(&program, part)))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let (here, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(rest);
        let here = together.iter().take_while(|_| goes_on()).map(|&part| checked(part, run_here(part)));
        let here = here.collect::<anyhow::Result<Vec<_>>>().and_then(|here| Ok([here, rest()?].concat()));
        (here, beside.join())
    });
    let beside = beside.map_err(|_| anyhow::anyhow!("the parts beside the others panicked"))?;
    let passed = [here?, beside?].concat();

    let all = if args.only.is_empty() { "all " } else { "" };
    println!("\n{all}passed:");
    for Passed { name, time, .. } in &passed {
        println!("  {name:<10} {:>6.1} s", time.as_secs_f64());
    }
    println!("  {:<10} {:>6.1} s", "in all", started.elapsed().as_secs_f64());
    if args.no_firmware {
        let left_out = Part::value_variants().iter().filter(|part| part.is_firmware());
        left_out.for_each(|part| println!("{NOT_RUN}{}: left out by --no-firmware", part.name()));
    }
    passed.iter().flat_map(|part| &part.missing).for_each(|what| println!("{NOT_RUN}{what}"));
    Ok(())
}

/// Runs a part in this process, which shows what it prints.
fn run_here(part: Part) -> anyhow::Result<Passed> {
    eprintln!("\n== {}", part.name());
    let (started, mut missing) = (Instant::now(), vec![]);
    part.run(&mut missing)?;
    Ok(Passed { name: part.name(), time: started.elapsed(), missing })
}

/// Runs a part in a process of its own, and shows what it has printed when it has ended.
fn run_apart(program: &Path, part: Part) -> anyhow::Result<Passed> {
    let name = part.name();
    eprintln!("\n== {name} starts beside the others");
    let started = Instant::now();
    let output = Command::new(program).args(["test", "--only", &name]).output()?;
    let (printed, report) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    eprintln!("\n== {name}, beside the others\n{printed}{report}");
    // Other parts print more before the run ends: what this one died of stands at the end too.
    ensure!(output.status.success(), "it ended with {}:\n{}", output.status, last_lines(&printed));
    let missing = report.lines().filter_map(|line| line.strip_prefix(NOT_RUN)).map(Into::into).collect();
    Ok(Passed { name, time: started.elapsed(), missing })
}

/// The end of what a part has printed.
fn last_lines(printed: &str) -> String {
    let lines: Vec<&str> = printed.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
