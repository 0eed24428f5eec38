//! Raspberry Pi Pico 2, SSD1306 display at I2C0 (SDA GP4, SCL GP5): draws digits one after the other in an embassy task
//! that lets others run between steps. The clock is 150 MHz.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use embassy_executor::Spawner;
use embassy_futures::yield_now;
use embassy_rp::i2c::{self, I2c};
use embassy_rp::watchdog::Watchdog;
use embassy_time::{Duration, Instant, Timer};
use embedded_graphics::image::Image;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use ssd1306::mode::DisplayConfig;
use ssd1306::prelude::{DisplayRotation, DisplaySize128x64};
use ssd1306::{I2CDisplayInterface, Ssd1306};
use waft::graphics::Picture;
use waft::{Arena, Request, Session};
use waft_models::digits;
use {defmt_rtt as _, panic_probe as _};

static ARENA: Arena<{ digits::I8.arena_bytes() }> = Arena::new();

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let p = embassy_rp::init(Default::default());
    let i2c = I2c::new_blocking(p.I2C0, p.PIN_5, p.PIN_4, i2c::Config::default());
    let mut display = Ssd1306::new(I2CDisplayInterface::new(i2c), DisplaySize128x64, DisplayRotation::Rotate0)
        .into_buffered_graphics_mode();
    // Digits are drawn without a display as well: the log tells.
    let has_display = display.init().is_ok();
    if !has_display {
        warn!("no display answers at I2C0");
    }
    let mut watchdog = Watchdog::new(p.WATCHDOG);
    watchdog.pause_on_debug(true);
    watchdog.start(Duration::from_millis(500));

    let mut session = unwrap!(Session::new(&digits::I8, unwrap!(ARENA.take())));
    for seed in 0u64.. {
        let request = Request::new().class((seed % 10) as u16).seed(seed).steps(10);
        let started = Instant::now();
        let mut run = unwrap!(session.sample(request));
        while unwrap!(run.step()).is_some() {
            // A bounded slice of work is done.
            watchdog.feed(Duration::from_millis(500));
            yield_now().await;
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
        Timer::after(Duration::from_millis(300)).await;
    }
}
