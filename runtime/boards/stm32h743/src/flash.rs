//! The W25Q64 behind QUADSPI: programmed by commands, then mapped into memory.

use core::slice;

use cortex_m::asm;
use cortex_m::peripheral::MPU;
use embassy_stm32::Peri;
use embassy_stm32::mode::Blocking;
use embassy_stm32::peripherals::{PB2, PB6, PD11, PD12, PD13, PE2, QUADSPI};
use embassy_stm32::qspi::enums::{AddressSize, DummyCycles, MemorySize, QspiWidth, SampleShifting};
use embassy_stm32::qspi::{Config, Qspi, TransferConfig};
use embedded_storage::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// The smallest piece that can be erased.
pub const SECTOR: usize = 4096;
/// What [`ExternalFlash::write`] erases at a time.
const BLOCK: usize = 64 * 1024;
/// The most that one command programs.
const PAGE: usize = 256;

/// Commands of the W25Q64.
mod command {
    pub const READ_ID: u8 = 0x9F;
    pub const READ_STATUS: u8 = 0x05;
    pub const READ_STATUS_2: u8 = 0x35;
    pub const WRITE_STATUS_2: u8 = 0x31;
    pub const ENABLE_WRITE: u8 = 0x06;
    pub const ERASE_BLOCK: u8 = 0xD8;
    pub const PROGRAM_PAGE: u8 = 0x02;
    pub const READ_QUAD_OUTPUT: u8 = 0x6B;
}

/// Manufacturer, type and capacity of Winbond's W25Q64, with Q and M at its end.
const IDS: [[u8; 3]; 2] = [[0xEF, 0x40, 0x17], [0xEF, 0x70, 0x17]];
const BUSY: u8 = 1 << 0;
/// Quad enable, in the second status register.
const QUAD: u8 = 1 << 1;

/// The flash, before it is mapped.
pub struct ExternalFlash {
    qspi: Qspi<'static, QUADSPI, Blocking>,
}

/// Where the flash is connected.
pub struct Pins {
    pub data: (Peri<'static, PD11>, Peri<'static, PD12>, Peri<'static, PE2>, Peri<'static, PD13>),
    pub clock: Peri<'static, PB2>,
    pub select: Peri<'static, PB6>,
}

impl ExternalFlash {
    /// With a clock of 240 / 4 = 60 MHz; `None` if no W25Q64 answers.
    pub fn new(mpu: &mut MPU, qspi: Peri<'static, QUADSPI>, pins: Pins) -> Option<Self> {
        // The core reads ahead from normal memory, which disturbs commands.
        protect(mpu, &[WHOLE]);
        let mut config = Config::default();
        config.memory_size = MemorySize::_8MiB;
        config.address_size = AddressSize::_24bit;
        config.prescaler = 3;
        config.sample_shifting = SampleShifting::HalfCycle;
        let (d0, d1, d2, d3) = pins.data;
        let qspi = Qspi::new_blocking_bank1(qspi, d0, d1, d2, d3, pins.clock, pins.select, config);
        let mut flash = Self { qspi };
        let mut id = [0; 3];
        flash.read_register(command::READ_ID, &mut id);
        if !IDS.contains(&id) {
            return None;
        }
        // Some are delivered without; the bit stays.
        let status = flash.register(command::READ_STATUS_2);
        if status & QUAD == 0 {
            flash.enable_write();
            let write = TransferConfig { dwidth: QspiWidth::SING, ..single(command::WRITE_STATUS_2) };
            flash.qspi.blocking_write(&[status | QUAD], write);
            flash.wait();
        }
        Some(flash)
    }

    /// Erases the flash from its beginning as far as needed and programs `parts`: each with the address of its first byte, in
    /// ascending order, multiples of 256.
    pub fn write(&mut self, parts: &[(usize, &[u8])]) {
        let end = parts.last().map_or(0, |(at, bytes)| at + bytes.len());
        for block in (0..end).step_by(BLOCK) {
            self.enable_write();
            self.qspi.blocking_command(addressed(command::ERASE_BLOCK, block));
            self.wait();
        }
        for (at, bytes) in parts {
            for (page, bytes) in bytes.chunks(PAGE).enumerate() {
                self.enable_write();
                let program = addressed(command::PROGRAM_PAGE, at + page * PAGE);
                self.qspi.blocking_write(bytes, TransferConfig { dwidth: QspiWidth::SING, ..program });
                self.wait();
            }
        }
    }

    /// Maps it into memory for good.
    pub fn map(mut self, mpu: &mut MPU) -> Mapped {
        let read = addressed(command::READ_QUAD_OUTPUT, 0);
        self.qspi.enable_memory_map(&TransferConfig { dwidth: QspiWidth::QUAD, dummy: DummyCycles::_8, ..read });
        protect(mpu, &[WHOLE, FLASH]);
        // The peripheral stays as it is.
        core::mem::forget(self.qspi);
        unsafe extern "C" {
            static _external_flash: u8;
            static _external_flash_end: u8;
        }
        let start = &raw const _external_flash;
        let len = (&raw const _external_flash_end).addr() - start.addr();
        // SAFETY: memory.x names what is mapped from now on; nothing writes there.
        Mapped(unsafe { slice::from_raw_parts(start, len) })
    }

    fn register(&mut self, command: u8) -> u8 {
        let mut byte = [0];
        self.read_register(command, &mut byte);
        byte[0]
    }

    fn read_register(&mut self, command: u8, into: &mut [u8]) {
        self.qspi.blocking_read(into, TransferConfig { dwidth: QspiWidth::SING, ..single(command) });
    }

    fn enable_write(&mut self) {
        self.qspi.blocking_command(single(command::ENABLE_WRITE));
    }

    fn wait(&mut self) {
        while self.register(command::READ_STATUS) & BUSY != 0 {}
    }
}

/// A command on one line.
fn single(instruction: u8) -> TransferConfig {
    TransferConfig { iwidth: QspiWidth::SING, instruction, ..TransferConfig::default() }
}

/// The same with an address.
fn addressed(instruction: u8, at: usize) -> TransferConfig {
    TransferConfig { awidth: QspiWidth::SING, address: Some(at as u32), ..single(instruction) }
}

/// A region of the memory protection unit at the start of QUADSPI's memory: its attributes and its size, a power of two.
struct Region {
    attributes: u32,
    log2_bytes: u32,
}

/// No access, so that the core does not read ahead where nothing is: strongly ordered, not for code.
const WHOLE: Region = Region { attributes: 1 << 28, log2_bytes: 28 };
/// Read only, cached (write-through), not for code.
const FLASH: Region = Region { attributes: 1 << 28 | 0b110 << 24 | 1 << 17, log2_bytes: 23 };

/// Puts regions into effect, later ones above earlier ones; everything else has the architecture's attributes.
fn protect(mpu: &mut MPU, regions: &[Region]) {
    asm::dmb();
    // SAFETY: no memory that Rust knows of lies in the regions, but that which `map` hands out after it made it readable.
    unsafe {
        mpu.ctrl.write(0);
        for (number, region) in (0..).zip(regions) {
            mpu.rnr.write(number);
            mpu.rbar.write(0x9000_0000);
            mpu.rasr.write(region.attributes | (region.log2_bytes - 1) << 1 | 1);
        }
        // Enabled, with the default map for privileged code.
        mpu.ctrl.write(0b101);
    }
    asm::dsb();
    asm::isb();
}

/// The flash in memory, read only.
#[derive(Clone, Copy)]
pub struct Mapped(&'static [u8]);

impl Mapped {
    /// The model file at its beginning, whose length the file itself tells; `None` if there is none.
    pub fn model(&self) -> Option<&'static [u8]> {
        let len = self.0.get(8..12)?.try_into().ok().map(u32::from_le_bytes)?;
        self.0.get(..len as usize).filter(|bytes| bytes.starts_with(b"WAFT"))
    }

    /// Whether these bytes lie at an address.
    pub fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|rest| rest.starts_with(bytes))
    }
}

/// An address behind the end of the flash.
#[derive(Clone, Copy, Debug)]
pub struct OutOfRange;

impl NorFlashError for OutOfRange {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

impl ErrorType for Mapped {
    type Error = OutOfRange;
}

impl ReadNorFlash for Mapped {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), OutOfRange> {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..into.len())).ok_or(OutOfRange)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}
