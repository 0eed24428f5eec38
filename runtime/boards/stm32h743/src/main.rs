//! WeAct MiniSTM32H743: emoji, 32×32 pixels, from a model in the QSPI flash, on the board's ST7735 display (SPI4), without an
//! executor. The model is computed where QUADSPI maps it, or, if it was exported with `--stream`, its weights pass through a
//! window in memory.
//!
//! `cargo run --release --bin program` writes the model, then `cargo run --release` flashes this with probe-rs and shows the log.
#![no_std]
#![no_main]

use cortex_m::asm;
use defmt::{error, info, unwrap, warn};
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::pac::DBGMCU;
use embassy_stm32::peripherals::IWDG1;
use embassy_stm32::spi::{self, Spi};
use embassy_stm32::time::mhz;
use embassy_stm32::wdg::IndependentWatchdog;
use embedded_graphics::image::Image;
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;
use embedded_hal_bus::spi::ExclusiveDevice;
use mipidsi::Builder;
use mipidsi::interface::SpiInterface;
use mipidsi::models::ST7735s;
use mipidsi::options::{ColorInversion, ColorOrder, Orientation, Rotation};
use waft::graphics::Picture;
use waft::weights::Flash;
use waft::{Arena, Model, Request, Session, WeightSource};
use waft_stm32h743::{ExternalFlash, Mapped, clocks, flash_pins, weights_at};
use {defmt_rtt as _, panic_probe as _};

/// What the model needs is known when it is read: emoji 160,704 bytes.
static ARENA: Arena<{ 384 * 1024 }> = Arena::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let p = embassy_stm32::init(clocks());
    let mut core = unwrap!(cortex_m::Peripherals::take());
    let Some(flash) = ExternalFlash::new(&mut core.MPU, p.QUADSPI, flash_pins!(p)) else {
        stop("no W25Q64 answers at QUADSPI")
    };
    let mapped = flash.map(&mut core.MPU);
    core.SCB.enable_icache();
    core.SCB.enable_dcache(&mut core.CPUID);

    let mut config = spi::Config::default();
    config.frequency = mhz(15);
    let bus = Spi::new_blocking_txonly(p.SPI4, p.PE12, p.PE14, config);
    let select = Output::new(p.PE11, Level::High, Speed::High);
    let data_command = Output::new(p.PE13, Level::Low, Speed::High);
    // Low lights it.
    let _backlight = Output::new(p.PE10, Level::Low, Speed::Low);
    let device = ExclusiveDevice::new_no_delay(bus, select).expect("infallible");
    let mut buffer = [0u8; 512];
    let interface = SpiInterface::new(device, data_command, &mut buffer);
    // Pictures are drawn without a display as well: the log tells.
    let mut display = Builder::new(ST7735s, interface)
        .display_size(80, 160)
        .display_offset(26, 1)
        .orientation(Orientation::new().rotate(Rotation::Deg90))
        .invert_colors(ColorInversion::Inverted)
        .color_order(ColorOrder::Bgr)
        .init(&mut embassy_time::Delay)
        .ok();
    if display.as_mut().is_none_or(|display| display.clear(Rgb565::BLACK).is_err()) {
        warn!("no display at SPI4");
    }

    let Some(bytes) = mapped.model() else { stop("no model in the QSPI flash: `cargo run --release --bin program`") };
    let model = match Model::from_bytes(bytes) {
        Ok(model) => model,
        Err(error) => {
            error!("{}", error);
            stop("the model in the QSPI flash cannot be used: `cargo run --release --bin program`")
        }
    };
    info!("{} of {} bytes, {} of weights", model.name(), bytes.len(), model.header().weights_bytes);

    // The longest step takes a few milliseconds at 480 MHz. A halted core does not feed.
    DBGMCU.apb4fzr1().modify(|freeze| freeze.set_iwdg1(true));
    let mut watchdog = IndependentWatchdog::new(p.IWDG1, 500_000);
    watchdog.unleash();

    let memory = unwrap!(ARENA.take());
    let show = |picture: &waft::Image<'_>| {
        let Some(display) = &mut display else { return };
        if Image::new(&Picture::new(picture, 2), Point::new(48, 8)).draw(display).is_err() {
            warn!("the display does not answer");
        }
    };
    if model.header().weights_bytes == 0 {
        draw(unwrap!(Session::new(&model, memory)), watchdog, show)
    } else {
        let weights: Flash<Mapped> = Flash::new(mapped, weights_at(bytes.len()) as u32);
        draw(unwrap!(Session::with_weights(&model, memory, weights)), watchdog, show)
    }
}

/// Draws one class after the other.
fn draw<W: WeightSource>(
    mut session: Session<'_, W>,
    mut watchdog: IndependentWatchdog<'_, IWDG1>,
    mut show: impl FnMut(&waft::Image<'_>),
) -> ! {
    let model = session.model();
    // Not the class that means "no class".
    let classes = model.classes() - u16::from(model.unconditional_class().is_some());
    let mut seed = 0u64;
    loop {
        let class = (seed % u64::from(classes.max(1))) as u16;
        let request = Request::new().seed(seed);
        let request = if classes > 0 { request.class(class) } else { request };
        let started = embassy_time::Instant::now();
        let mut run = unwrap!(session.sample(request));
        while unwrap!(run.step()).is_some() {
            watchdog.pet();
        }
        info!("class {} in {} ms", class, started.elapsed().as_millis());
        show(&unwrap!(run.image()));
        seed += 1;
    }
}

/// Says why nothing is drawn.
fn stop(why: &str) -> ! {
    error!("{}", why);
    loop {
        asm::wfi();
    }
}
