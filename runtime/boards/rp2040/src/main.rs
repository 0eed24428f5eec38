//! Raspberry Pi Pico, SSD1306 display at I2C0 (SDA GP4, SCL GP5): digits one after the other, at 125 MHz, in the idle task of
//! an RTIC application. Every task of yours that has a priority interrupts it.
//!
//! `cargo run --release` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use {defmt_rtt as _, panic_probe as _};

#[rtic::app(device = embassy_rp::pac, peripherals = false)]
mod app {
    use defmt::{info, unwrap, warn};
    use embassy_rp::i2c::{self, Blocking, I2c};
    use embassy_rp::peripherals::I2C0;
    use embassy_rp::watchdog::Watchdog;
    use embassy_time::{Duration, Instant};
    use embedded_graphics::image::Image;
    use embedded_graphics::pixelcolor::BinaryColor;
    use embedded_graphics::prelude::*;
    use ssd1306::mode::{BufferedGraphicsMode, DisplayConfig};
    use ssd1306::prelude::{DisplayRotation, DisplaySize128x64, I2CInterface};
    use ssd1306::{I2CDisplayInterface, Ssd1306};
    use waft::graphics::Picture;
    use waft::{Arena, Request, Session};
    use waft_models::digits;

    type Display =
        Ssd1306<I2CInterface<I2c<'static, I2C0, Blocking>>, DisplaySize128x64, BufferedGraphicsMode<DisplaySize128x64>>;

    #[shared]
    struct Shared {}

    #[local]
    struct Local {
        session: Session<'static>,
        display: Option<Display>,
        watchdog: Watchdog,
    }

    // A local resource is exclusive without being taken.
    #[init(local = [arena: Arena<{ digits::I8.arena_bytes() }> = Arena::new()])]
    fn init(cx: init::Context) -> (Shared, Local) {
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
        let session = unwrap!(Session::new(&digits::I8, cx.local.arena.as_mut_slice()));
        (Shared {}, Local { session, display: has_display.then_some(display), watchdog })
    }

    #[idle(local = [session, display, watchdog])]
    fn idle(cx: idle::Context) -> ! {
        let idle::LocalResources { session, display, watchdog, .. } = cx.local;
        let mut seed = 0u64;
        loop {
            let started = Instant::now();
            let mut run = unwrap!(session.sample(Request::new().class((seed % 10) as u16).seed(seed).steps(10)));
            while unwrap!(run.step()).is_some() {
                // A bounded slice of work is done.
                watchdog.feed(Duration::from_millis(500));
            }
            info!("digit {} in {} ms", seed % 10, started.elapsed().as_millis());
            let image = unwrap!(run.image());
            if let Some(display) = display {
                display.clear(BinaryColor::Off).expect("infallible");
                Image::new(&Picture::new(&image, 8), Point::new(32, 0)).draw(display).expect("infallible");
                if display.flush().is_err() {
                    warn!("the display does not answer");
                }
            }
            seed += 1;
        }
    }
}
