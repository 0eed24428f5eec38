//! `test`: everything that this machine can check, with what it needs set up first.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;

use crate::header;

mod build;
mod c;
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
    /// The Rust of the READMEs compiles, on cores without atomic swaps too.
    Readme,
    /// The oldest supported compiler builds what is published.
    Oldest,
    /// The published packages are complete and small.
    Packages,
    /// The tests of all crates, with overflow checks in the core.
    Tests,
    /// The core's unit tests in Miri, with addresses of 64 and of 32 bits; a big-endian target is refused.
    Miri,
    /// The same tests under AddressSanitizer, on x86-64.
    Asan,
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
    /// The examples for real boards build.
    Boards,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// Whether it sets up what runs firmware or a browser, or compiles kernels.
    fn is_firmware(self) -> bool {
        matches!(self, Self::Readme | Self::Kernels | Self::Firmware | Self::C | Self::Web | Self::Boards)
    }

    /// Runs it. What could not be checked goes into the list.
    fn run(self, missing: &mut Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Format => source::format(),
            Self::Clippy => source::clippy(),
            Self::Header => header::run(&header::Args { check: true }),
            Self::Features => source::features(),
            Self::Docs => source::docs(),
            Self::Readme => readme::readme(),
            Self::Oldest => build::oldest(missing),
            Self::Packages => build::packages(),
            Self::Tests => build::tests(),
            Self::Miri => memory::miri(missing),
            Self::Asan => memory::asan(missing),
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

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (mut times, mut missing) = (vec![], vec![]);
    for &part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(&part) {
            continue;
        }
        if args.no_firmware && part.is_firmware() {
            missing.push(format!("{}: left out by --no-firmware", part.name()));
            continue;
        }
        eprintln!("\n== {}", part.name());
        let started = Instant::now();
        part.run(&mut missing).with_context(|| format!("{} failed", part.name()))?;
        times.push((part.name(), started.elapsed()));
    }
    let all = if args.only.is_empty() { "all " } else { "" };
    println!("\n{all}passed:");
    for (name, time) in &times {
        println!("  {name:<10} {:>6.1} s", time.as_secs_f64());
    }
    println!("  {:<10} {:>6.1} s", "together", times.iter().map(|(_, time)| *time).sum::<Duration>().as_secs_f64());
    for what in missing {
        println!("NOT RUN  {what}");
    }
    Ok(())
}
