//! ESP32-C3, SSD1306 display at I2C0 (SDA GPIO 5, SCL GPIO 6): draws digits one after the other, at 160 MHz.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use embedded_graphics::image::Image;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use esp_hal::clock::CpuClock;
use esp_hal::debugger::debugger_connected;
use esp_hal::i2c::master::{Config, I2c};
use esp_hal::time::{Duration, Instant};
use esp_hal::timer::timg::{MwdtStage, TimerGroup};
use ssd1306::mode::DisplayConfig;
use ssd1306::prelude::{DisplayRotation, DisplaySize128x64};
use ssd1306::{I2CDisplayInterface, Ssd1306};
use waft::graphics::Picture;
use waft::{Arena, Request, Session};
use waft_models::digits;
use {defmt_rtt as _, esp_backtrace as _};

esp_bootloader_esp_idf::esp_app_desc!();

static ARENA: Arena<{ digits::I8.arena_bytes() }> = Arena::new();

#[esp_hal::main]
fn main() -> ! {
    let p = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::_160MHz));
    let i2c = I2c::new(p.I2C0, Config::default()).expect("a valid speed").with_sda(p.GPIO5).with_scl(p.GPIO6);
    let mut display = Ssd1306::new(I2CDisplayInterface::new(i2c), DisplaySize128x64, DisplayRotation::Rotate0)
        .into_buffered_graphics_mode();
    // Digits are drawn without a display as well: the log tells.
    let has_display = display.init().is_ok();
    if !has_display {
        warn!("no display answers at I2C0");
    }
    let mut watchdog = TimerGroup::new(p.TIMG0).wdt;
    watchdog.set_timeout(MwdtStage::Stage0, Duration::from_millis(500));
    // This watchdog goes on while a debugger halts the core.
    if debugger_connected() {
        warn!("a debugger is connected: the watchdog stays off");
    } else {
        watchdog.enable();
    }

    let mut session = unwrap!(Session::new(&digits::I8, unwrap!(ARENA.take())));
    let mut seed = 0u64;
    loop {
        let started = Instant::now();
        let mut run = unwrap!(session.sample(Request::new().class((seed % 10) as u16).seed(seed).steps(10)));
        while unwrap!(run.step()).is_some() {
            watchdog.feed();
        }
        info!("digit {} in {} ms", seed % 10, started.elapsed().as_millis());
        let image = unwrap!(run.image());
        if has_display {
            display.clear(BinaryColor::Off).expect("infallible");
            Image::new(&Picture::new(&image, 8), Point::new(32, 0)).draw(&mut display).expect("infallible");
            if display.flush().is_err() {
                warn!("the display does not answer");
            }
        }
        seed += 1;
    }
}
