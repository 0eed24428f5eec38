//! Chips that people have, and what a model means for them.

use serde::Serialize;
use waft::Model;
use waft::format::Schedule;

use super::{cores, of_picture};

/// A microcontroller, with the flash of its usual board where it has none of its own.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// Its name.
    pub name: &'static str,
    /// What [`cores`] calls its core.
    pub target: &'static str,
    /// Its highest clock, in megahertz.
    pub megahertz: u32,
    /// Memory in one piece, in KiB.
    pub ram: u64,
    /// Flash that code and model lie in, in KiB.
    pub flash: u64,
    /// Cycles that an instruction takes on average: an assumption.
    pub cycles_per_instruction: f64,
}

const fn chip(
    name: &'static str,
    target: &'static str,
    megahertz: u32,
    [ram, flash]: [u64; 2],
    cycles_per_instruction: f64,
) -> Chip {
    Chip { name, target, megahertz, ram, flash, cycles_per_instruction }
}

const M0_PLUS: &str = "thumbv6m-none-eabi";
const M3: &str = "thumbv7m-none-eabi";
const M4F: &str = "thumbv7em-none-eabihf";
const M7: &str = "thumbv7em-none-eabihf/cortex-m7";
const M33: &str = "thumbv8m.main-none-eabihf";
const RV32IMC: &str = "riscv32imc-unknown-none-elf";

/// Clocks are the highest that the makers allow, memory is what lies in one piece. STM32's were looked up in ST's own tables, as
/// `stm32-metapac` and embassy's limits have them, the others where the line says. Two-cycle loads and taken branches make 1.3 to
/// 1.4 cycles of an instruction on cores with short pipelines; a Cortex-M7 issues two at once.
pub const CHIPS: [Chip; 11] = [
    // 264 KB, of which 256 are striped over four banks; 2 MB on the Pico (RP2040 and Pico data sheets).
    chip("RP2040", M0_PLUS, 133, [256, 2048], 1.4),
    // 520 KB, of which 512 are striped over eight banks; 4 MB on the Pico 2 (RP2350 and Pico 2 data sheets).
    chip("RP2350", M33, 150, [512, 4096], 1.3),
    // G0B1xE.
    chip("STM32G0B1", M0_PLUS, 64, [144, 512], 1.4),
    // F103xB.
    chip("STM32F103", M3, 72, [20, 128], 1.3),
    // F411xE.
    chip("STM32F411", M4F, 100, [128, 512], 1.3),
    // F429xI: 256 KB, of which 64 are coupled to the core at another address.
    chip("STM32F429", M4F, 180, [192, 2048], 1.3),
    // H743xI of revision V: the AXI SRAM.
    chip("STM32H743", M7, 480, [512, 2048], 0.9),
    // U585xI: SRAM 1 to 3.
    chip("STM32U585", M33, 160, [768, 2048], 1.3),
    // Product specification; 1 MB, 256 KB.
    chip("nRF52840", M4F, 64, [256, 1024], 1.3),
    // The application core; product specification.
    chip("nRF5340", M33, 128, [512, 1024], 1.3),
    // 400 KB, of which 16 are cache and 313 are a program's data beside the boot loader, as esp-hal's linker script has it.
    chip("ESP32-C3", RV32IMC, 160, [313, 4096], 1.3),
];

/// Bytes that a firmware takes besides the model and the arena: code and constants, and stack and static data.
const FIRMWARE: [u64; 2] = [32 * 1024, 4 * 1024];

/// What a model means for a chip.
#[derive(Clone, Debug, Serialize)]
pub struct ChipCost {
    /// The chip.
    pub chip: &'static str,
    /// Its core.
    pub core: &'static str,
    /// Its clock.
    pub megahertz: u32,
    /// Bytes of flash that are missing, 0 if the model fits.
    pub missing_flash_bytes: u64,
    /// Bytes of memory that are missing, 0 if the arena fits.
    pub missing_ram_bytes: u64,
    /// Instructions of a picture: an estimate, `None` if the core was never measured with that
    /// kind of arithmetic.
    pub instructions: Option<u64>,
    /// Cycles of an instruction, assumed.
    pub cycles_per_instruction: f64,
    /// Seconds of a picture that follow.
    pub seconds: Option<f64>,
}

impl ChipCost {
    /// Whether model and arena fit.
    pub const fn fits(&self) -> bool {
        self.missing_flash_bytes == 0 && self.missing_ram_bytes == 0
    }
}

/// What a model means for each of [`CHIPS`], by its first list of steps.
pub fn costs(model: &Model<'_>) -> Vec<ChipCost> {
    let list = model.schedule(0);
    CHIPS.iter().map(|chip| cost(chip, model, list.as_ref(), 0)).collect()
}

/// What a model means for a chip by a list of steps, of which some are guided.
pub fn cost(chip: &Chip, model: &Model<'_>, list: Option<&Schedule>, guided_steps: u32) -> ChipCost {
    let header = model.header();
    let missing = |needed: u64, kibibytes: u64| needed.saturating_sub(kibibytes * 1024);
    let core = cores().get(chip.target);
    let instructions = core
        .zip(list)
        .and_then(|(core, list)| of_picture(core, model, list, guided_steps))
        .map(|instructions| instructions.round() as u64);
    let rate = f64::from(chip.megahertz) * 1e6;
    ChipCost {
        chip: chip.name,
        core: core.map_or(chip.target, |core| &core.core),
        megahertz: chip.megahertz,
        missing_flash_bytes: missing(u64::from(header.file_bytes) + FIRMWARE[0], chip.flash),
        missing_ram_bytes: missing(u64::from(header.arena_bytes) + FIRMWARE[1], chip.ram),
        instructions,
        cycles_per_instruction: chip.cycles_per_instruction,
        seconds: instructions.map(|instructions| instructions as f64 * chip.cycles_per_instruction / rate),
    }
}

/// The costs as a table for people.
pub fn table(costs: &[ChipCost], steps: u32) -> String {
    let mut text = format!("{:<10} {:<11} {:>4}  {:>10}  {}\n", "chip", "core", "MHz", "seconds", "fits");
    for cost in costs {
        let seconds = cost.seconds.map_or_else(|| "unknown".into(), |seconds| format!("{seconds:.2}"));
        let lacks = [("flash", cost.missing_flash_bytes), ("memory", cost.missing_ram_bytes)];
        let lacks: Vec<String> = lacks
            .iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(what, bytes)| format!("{bytes} bytes of {what} too little"))
            .collect();
        let fits = if lacks.is_empty() { "yes".into() } else { format!("no, {}", lacks.join(", ")) };
        text += &format!("{:<10} {:<11} {:>4}  {seconds:>10}  {fits}\n", cost.chip, cost.core, cost.megahertz);
    }
    text + &format!(
        "seconds of a picture in {steps} steps, guidance 1: an estimate, instructions (within 10 % of an emulator's for the \
         shipped models) times an assumed 0.9 to 1.4 cycles, see --json; waits for flash are left out\n"
    )
}
