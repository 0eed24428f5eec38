//! The machines that the firmware runs on: what they are built for and what stands for them.

use anyhow::Context;

/// A program, and Debian's packages that bring it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) packages: &'static [&'static str],
}

/// A target, and the machine that stands for it.
pub(crate) struct Board {
    /// What `--target` calls it: the triple, and the core where several share it.
    pub(crate) name: &'static str,
    pub(crate) triple: &'static str,
    pub(crate) core: &'static str,
    /// What the firmware's build script calls it.
    pub(crate) layout: &'static str,
    /// Whether the core has the vector extension of Armv8.1-M.
    pub(crate) has_mve: bool,
    /// Where the emulator can put a model that no image carries: memory that the image leaves alone.
    pub(crate) model_at: Option<u32>,
    pub(crate) machine: Machine,
}

/// What runs an image.
pub(crate) enum Machine {
    /// A system emulator, the arguments that choose the machine, and the instructions in four units of its counter.
    Qemu { program: &'static str, arguments: &'static [&'static str], instructions_in_four: u64 },
    /// Node.js.
    Node,
    /// This machine.
    Native,
}

const fn arm(
    name: &'static str,
    triple: &'static str,
    core: &'static str,
    layout: &'static str,
    arguments: &'static [&'static str],
    instructions_in_four: u64,
) -> Board {
    let machine = Machine::Qemu { program: "qemu-system-arm", arguments, instructions_in_four };
    // Memory of 16 megabytes beside that of code and data.
    Board { name, triple, core, layout, has_mve: false, model_at: Some(0x2100_0000), machine }
}

const fn virt(
    triple: &'static str,
    core: &'static str,
    machine: Machine,
    layout: &'static str,
    model_at: Option<u32>,
) -> Board {
    Board { name: triple, triple, core, layout, has_mve: false, model_at, machine }
}

/// `-icount shift=0` makes an instruction a nanosecond: a tick of a 25 MHz clock is 40 of them.
pub(crate) const BOARDS: [Board; 12] = [
    arm("thumbv6m-none-eabi", "thumbv6m-none-eabi", "Cortex-M0+", "mps2-an385", &["-M", "mps2-an385"], 160),
    arm("thumbv7m-none-eabi", "thumbv7m-none-eabi", "Cortex-M3", "mps2-an385", &["-M", "mps2-an385"], 160),
    arm("thumbv7em-none-eabi", "thumbv7em-none-eabi", "Cortex-M4", "mps2-an386", &["-M", "mps2-an386"], 160),
    arm("thumbv7em-none-eabihf", "thumbv7em-none-eabihf", "Cortex-M4F", "mps2-an386", &["-M", "mps2-an386"], 160),
    Board {
        model_at: Some(0x6000_0000),
        ..arm(
            "thumbv7em-none-eabihf/cortex-m7",
            "thumbv7em-none-eabihf",
            "Cortex-M7",
            "mps2-an500",
            &["-M", "mps2-an500"],
            160,
        )
    },
    Board {
        // The secure alias.
        model_at: Some(0x1010_0000),
        ..arm(
            "thumbv8m.main-none-eabihf",
            "thumbv8m.main-none-eabihf",
            "Cortex-M33",
            "mps2-an505",
            &["-M", "mps2-an505"],
            200,
        )
    },
    Board {
        has_mve: true,
        // The flash, where linked models lie too.
        model_at: Some(0x3800_0000),
        ..arm(
            "thumbv8m.main-none-eabihf/cortex-m55",
            "thumbv8m.main-none-eabihf",
            "Cortex-M55",
            "mps3-an547",
            &["-M", "mps3-an547"],
            125,
        )
    },
    virt(
        "riscv32imac-unknown-none-elf",
        "RV32IMAC",
        Machine::Qemu {
            program: "qemu-system-riscv32",
            arguments: &["-M", "virt", "-bios", "none"],
            instructions_in_four: 4,
        },
        "riscv-virt",
        Some(0x8410_0000),
    ),
    virt(
        "riscv32imc-unknown-none-elf",
        "RV32IMC",
        Machine::Qemu {
            program: "qemu-system-riscv32",
            arguments: &["-M", "virt", "-bios", "none"],
            instructions_in_four: 4,
        },
        "riscv-virt",
        Some(0x8410_0000),
    ),
    virt(
        "aarch64-unknown-none",
        "Cortex-A53",
        Machine::Qemu {
            program: "qemu-system-aarch64",
            arguments: &["-M", "virt", "-cpu", "cortex-a53", "-m", "128", "-nic", "none"],
            instructions_in_four: 64,
        },
        "aarch64-virt",
        Some(0x4420_0000),
    ),
    virt("wasm32-unknown-unknown", "WebAssembly", Machine::Node, "wasm", None),
    virt("x86_64-unknown-linux-gnu", "x86-64", Machine::Native, "linux", None),
];

/// The target whose images show float arithmetic as calls: hard float hides it in instructions.
pub(crate) const SOFT_FLOAT: &str = "thumbv7em-none-eabi";

/// The boards that `--target` means: one, or `all` that this machine can run.
pub(crate) fn find(target: &str) -> anyhow::Result<Vec<&'static Board>> {
    if target == "all" {
        return Ok(BOARDS.iter().filter(|board| board.runs_here()).collect());
    }
    let found = BOARDS.iter().find(|board| board.name == target).with_context(|| {
        let known: Vec<&str> = BOARDS.iter().map(|board| board.name).collect();
        format!("--target {target}: supported are all, {}", known.join(", "))
    })?;
    Ok(vec![found])
}

impl Board {
    /// Whether this kind of computer can run it at all.
    fn runs_here(&self) -> bool {
        !matches!(self.machine, Machine::Native) || cfg!(all(target_arch = "x86_64", target_os = "linux"))
    }

    /// What runs its images, if that is not this machine itself.
    pub(crate) const fn emulator(&self) -> Option<Tool> {
        match self.machine {
            Machine::Qemu { program, .. } => Some(Tool { program, packages: &["qemu-system-arm", "qemu-system-misc"] }),
            Machine::Node => Some(Tool { program: "node", packages: &["nodejs"] }),
            Machine::Native => None,
        }
    }

    /// Instructions that units of the machine's counter stand for, if it has one.
    pub(crate) const fn instructions(&self, ticks: u64) -> Option<u64> {
        match self.machine {
            Machine::Qemu { instructions_in_four, .. } => Some(ticks * instructions_in_four / 4),
            Machine::Node | Machine::Native => None,
        }
    }
}
