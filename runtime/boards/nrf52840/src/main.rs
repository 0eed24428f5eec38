//! nRF52840 DK, SSD1306 display at TWI0 (SDA P0.26, SCL P0.27): draws digits one after the other in an embassy task
//! that lets others run between steps.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use embassy_executor::Spawner;
use embassy_futures::yield_now;
use embassy_nrf::twim::{self, Twim};
use embassy_nrf::wdt::{self, HaltConfig, Watchdog};
use embassy_nrf::{bind_interrupts, peripherals};
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

bind_interrupts!(struct Interrupts {
    TWISPI0 => twim::InterruptHandler<peripherals::TWISPI0>;
});

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let p = embassy_nrf::init(Default::default());
    // The driver copies what lies in flash here before it sends it.
    let mut buffer = [0; 16];
    let i2c = Twim::new(p.TWISPI0, Interrupts, p.P0_26, p.P0_27, twim::Config::default(), &mut buffer);
    let mut display = Ssd1306::new(I2CDisplayInterface::new(i2c), DisplaySize128x64, DisplayRotation::Rotate0)
        .into_buffered_graphics_mode();
    // Digits are drawn without a display as well: the log tells.
    let has_display = display.init().is_ok();
    if !has_display {
        warn!("no display answers at TWI0");
    }
    let mut config = wdt::Config::default();
    config.timeout_ticks = 32_768 / 2;
    config.action_during_debug_halt = HaltConfig::Pause;
    let Ok((_, [mut watchdog])) = Watchdog::try_new(p.WDT, config) else { defmt::panic!("the watchdog runs already") };

    let mut session = unwrap!(Session::new(&digits::I8, unwrap!(ARENA.take())));
    for seed in 0u64.. {
        let request = Request::new().class((seed % 10) as u16).seed(seed).steps(10);
        let started = Instant::now();
        let mut run = unwrap!(session.sample(request));
        while unwrap!(run.step()).is_some() {
            // A bounded slice of work is done.
            watchdog.pet();
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
