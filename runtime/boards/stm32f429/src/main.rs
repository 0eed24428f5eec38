//! STM32F429 Discovery: digits on its ILI9341 display (SPI5), 320×240 RGB565, without an executor.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::pac::DBGMCU;
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, Hse, HseMode, Pll, PllMul, PllPDiv, PllPreDiv, PllSource, Sysclk,
};
use embassy_stm32::spi::{self, Spi};
use embassy_stm32::time::mhz;
use embassy_stm32::wdg::IndependentWatchdog;
use embedded_graphics::image::Image;
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_hal_bus::spi::ExclusiveDevice;
use mipidsi::Builder;
use mipidsi::interface::SpiInterface;
use mipidsi::models::ILI9341Rgb565;
use waft::graphics::Picture;
use waft::{Arena, Request, Session};
use waft_models::digits;
use {defmt_rtt as _, panic_probe as _};

static ARENA: Arena<{ digits::I8.arena_bytes() }> = Arena::new();

/// 168 MHz from the board's crystal of 8 MHz.
fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.hse = Some(Hse { freq: mhz(8), mode: HseMode::Oscillator });
    config.rcc.pll_src = PllSource::HSE;
    config.rcc.pll =
        Some(Pll { prediv: PllPreDiv::DIV4, mul: PllMul::MUL168, divp: Some(PllPDiv::DIV2), divq: None, divr: None });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.ahb_pre = AHBPrescaler::DIV1;
    config.rcc.apb1_pre = APBPrescaler::DIV4;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let p = embassy_stm32::init(clocks());
    let mut config = spi::Config::default();
    config.frequency = mhz(8);
    let bus = Spi::new_blocking(p.SPI5, p.PF7, p.PF9, p.PF8, config);
    let select = Output::new(p.PC2, Level::High, Speed::High);
    let data_command = Output::new(p.PD13, Level::Low, Speed::High);
    let mut delay = embassy_time::Delay;
    let device = ExclusiveDevice::new_no_delay(bus, select).expect("infallible");
    let mut buffer = [0u8; 512];
    let interface = SpiInterface::new(device, data_command, &mut buffer);
    // Digits are drawn without a display as well: the log tells.
    let mut display = Builder::new(ILI9341Rgb565, interface).init(&mut delay).ok();
    if display.as_mut().is_none_or(|display| display.clear(Rgb565::BLACK).is_err()) {
        warn!("no display at SPI5");
    }

    // The longest step takes a few milliseconds at 168 MHz. A halted core does not feed.
    DBGMCU.apb1fzr().modify(|freeze| freeze.set_iwdg(true));
    let mut watchdog = IndependentWatchdog::new(p.IWDG, 500_000);
    watchdog.unleash();

    let mut session = unwrap!(Session::new(&digits::I8, unwrap!(ARENA.take())));
    let mut seed = 0u64;
    loop {
        let started = embassy_time::Instant::now();
        let mut run = unwrap!(session.sample(Request::new().class((seed % 10) as u16).seed(seed).steps(10)));
        while unwrap!(run.step()).is_some() {
            watchdog.pet();
        }
        info!("digit {} in {} ms", seed % 10, started.elapsed().as_millis());
        let image = unwrap!(run.image());
        if let Some(display) = &mut display
            && Image::new(&Picture::new(&image, 16), Point::new(56, 96)).draw(display).is_err()
        {
            warn!("the display does not answer");
        }
        seed += 1;
    }
}
