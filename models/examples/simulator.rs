//! The board examples' drawing on this computer: ten digits on a simulated 128×64 OLED and on a 320×240 colour display,
//! written as PNG files.
//!
//! `cargo run --release -p waft-models --example simulator -- FOLDER`

use std::path::PathBuf;

use embedded_graphics::image::Image;
use embedded_graphics::pixelcolor::{BinaryColor, Rgb565};
use embedded_graphics::prelude::*;
use embedded_graphics_simulator::{BinaryColorTheme, OutputSettingsBuilder, SimulatorDisplay};
use waft::graphics::Picture;
use waft::{Request, Session};
use waft_models::digits;

static ARENA: waft::Arena<{ digits::I8.arena_bytes() }> = waft::Arena::new();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let mut oled = SimulatorDisplay::<BinaryColor>::new(Size::new(128, 64));
    let mut color = SimulatorDisplay::<Rgb565>::new(Size::new(320, 240));
    let mut session = Session::new(&digits::I8, ARENA.take().ok_or("the arena is in use")?)?;
    for digit in 0..10u16 {
        let mut run = session.sample(Request::new().class(digit).seed(digit.into()).steps(10))?;
        while run.step()?.is_some() {}
        let image = run.image().ok_or("incomplete")?;
        let (column, row) = (i32::from(digit % 5), i32::from(digit / 5));
        Image::new(&Picture::new(&image, 3), Point::new(4 + 25 * column, 4 + 32 * row)).draw(&mut oled)?;
        Image::new(&Picture::new(&image, 7), Point::new(4 + 64 * column, 32 + 120 * row)).draw(&mut color)?;
    }
    let theme = OutputSettingsBuilder::new().theme(BinaryColorTheme::OledBlue).scale(3).build();
    oled.to_rgb_output_image(&theme).save_png(folder.join("oled.png"))?;
    color.to_rgb_output_image(&OutputSettingsBuilder::new().build()).save_png(folder.join("color.png"))?;
    Ok(())
}
