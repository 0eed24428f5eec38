//! WeAct MiniSTM32H743: its clocks and its QSPI flash, a W25Q64 at bank 1, which holds a model file and, of a model that was
//! exported with `--stream`, the weights' own file behind it.
#![no_std]

mod flash;

use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, Hse, HseMode, Pll, PllDiv, PllMul, PllPreDiv, PllSource, Sysclk, VoltageScale,
};
use embassy_stm32::time::mhz;

pub use flash::{ExternalFlash, Mapped, OutOfRange, Pins};

/// 480 MHz from the board's crystal of 25 MHz; 240 MHz for the buses and QUADSPI, 120 MHz for peripherals.
pub fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.hse = Some(Hse { freq: mhz(25), mode: HseMode::Oscillator });
    config.rcc.pll1 = Some(Pll {
        source: PllSource::HSE,
        prediv: PllPreDiv::DIV5,
        mul: PllMul::MUL192,
        fracn: None,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.d1c_pre = AHBPrescaler::DIV1;
    config.rcc.ahb_pre = AHBPrescaler::DIV2;
    config.rcc.apb1_pre = APBPrescaler::DIV2;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.apb3_pre = APBPrescaler::DIV2;
    config.rcc.apb4_pre = APBPrescaler::DIV2;
    // What 480 MHz need; chips of revision V have it, those before reach 400 MHz.
    config.rcc.voltage_scale = VoltageScale::Scale0;
    config
}

/// Where the weights' own file begins, behind a model file of so many bytes: at the next sector.
pub const fn weights_at(model_bytes: usize) -> usize {
    model_bytes.next_multiple_of(flash::SECTOR)
}

/// The pins of the board's flash.
#[macro_export]
macro_rules! flash_pins {
    ($p:ident) => {
        $crate::Pins { data: ($p.PD11, $p.PD12, $p.PE2, $p.PD13), clock: $p.PB2, select: $p.PB6 }
    };
}
