//! STM32F429 Discovery: digits on its ILI9341 display (SPI5), 320×240 RGB565, without an executor.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use defmt::{info, unwrap};
use embassy_stm32::gpio::{Level, Output, Speed};
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

#[cortex_m_rt::entry]
fn main() -> ! {
    let p = embassy_stm32::init(Default::default());
    let mut config = spi::Config::default();
    config.frequency = mhz(8);
    let bus = Spi::new_blocking(p.SPI5, p.PF7, p.PF9, p.PF8, config);
    let select = Output::new(p.PC2, Level::High, Speed::High);
    let data_command = Output::new(p.PD13, Level::Low, Speed::High);
    let mut delay = embassy_time::Delay;
    let device = ExclusiveDevice::new_no_delay(bus, select).expect("infallible");
    let mut buffer = [0u8; 512];
    let interface = SpiInterface::new(device, data_command, &mut buffer);
    let mut display = Builder::new(ILI9341Rgb565, interface).init(&mut delay).expect("a display at SPI5");
    display.clear(Rgb565::BLACK).expect("the display answers");

    // The longest step is far below a millisecond at 168 MHz.
    let mut watchdog = IndependentWatchdog::new(p.IWDG, 500_000);
    watchdog.unleash();

    let mut session = unwrap!(Session::new(&digits::I8, unwrap!(ARENA.take())));
    let mut seed = 0u64;
    loop {
        let mut run = unwrap!(session.sample(Request::new().class((seed % 10) as u16).seed(seed).steps(10)));
        while unwrap!(run.step()).is_some() {
            watchdog.pet();
        }
        info!("digit {}", seed % 10);
        let image = unwrap!(run.image());
        Image::new(&Picture::new(&image, 16), Point::new(56, 96)).draw(&mut display).expect("the display answers");
        seed += 1;
    }
}
