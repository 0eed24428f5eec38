//! Writes a model file, and the weights' own file of one that was exported with `--stream`, into the QSPI flash: those that
//! `WAFT_MODEL` and `WAFT_WEIGHTS` name when this is built, or the shipped emoji. Then `cargo run --release` draws from there.
//!
//! `cargo run --release --bin program` flashes it with probe-rs and shows the log.
#![no_std]
#![no_main]

use cortex_m::asm;
use defmt::{error, info, unwrap};
use waft_stm32h743::{ExternalFlash, clocks, flash_pins, weights_at};
use {defmt_rtt as _, panic_probe as _};

waft::include_model!(MODEL, concat!(env!("OUT_DIR"), "/model.waft")); // a corrupted file does not compile
const WEIGHTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.weights"));

#[cortex_m_rt::entry]
fn main() -> ! {
    const {
        let expected = MODEL.header().weights_bytes as usize;
        assert!(
            expected == WEIGHTS.len(),
            "WAFT_WEIGHTS is not the weights' own file of WAFT_MODEL: export both again"
        );
    }
    let p = embassy_stm32::init(clocks());
    let mut core = unwrap!(cortex_m::Peripherals::take());
    match ExternalFlash::new(&mut core.MPU, p.QUADSPI, flash_pins!(p)) {
        Some(mut flash) => {
            let model = MODEL.bytes();
            let at = weights_at(model.len());
            info!("writing {} bytes of the model and {} of weights", model.len(), WEIGHTS.len());
            flash.write(&[(0, model), (at, WEIGHTS)]);
            let mapped = flash.map(&mut core.MPU);
            if mapped.holds(0, model) && mapped.holds(at, WEIGHTS) {
                info!("written and read back");
            } else {
                error!("what is read back is not what was written");
            }
        }
        None => error!("no W25Q64 answers at QUADSPI"),
    }
    loop {
        asm::wfi();
    }
}
