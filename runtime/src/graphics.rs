//! Pictures on displays, through `embedded-graphics`.
//!
//! ```
//! # use embedded_graphics::{image::Image, mock_display::MockDisplay, pixelcolor::BinaryColor, prelude::*};
//! # use waft::graphics::Picture;
//! # fn show(image: &waft::Image<'_>, display: &mut MockDisplay<BinaryColor>) {
//! // An 8×8 picture as 32×32 pixels of an OLED.
//! let picture = Picture::new(image, 4);
//! Image::new(&picture, Point::new(16, 0)).draw(display).unwrap();
//! # }
//! ```

use core::marker::PhantomData;

use embedded_graphics_core::draw_target::DrawTarget;
use embedded_graphics_core::geometry::{OriginDimensions, Point, Size};
use embedded_graphics_core::image::ImageDrawable;
use embedded_graphics_core::pixelcolor::{BinaryColor, Gray8, Rgb565, Rgb888, RgbColor};
use embedded_graphics_core::primitives::Rectangle;

use crate::session::Image;

/// A display's colour, made from the red, green and blue of a pixel; grey pictures give the same byte three times.
pub trait FromPixel {
    /// The nearest colour.
    fn from_pixel(rgb: [u8; 3]) -> Self;
}

/// Rec. 601 luma.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 77 + u32::from(g) * 150 + u32::from(b) * 29 + 128) >> 8) as u8
}

impl FromPixel for BinaryColor {
    fn from_pixel(rgb: [u8; 3]) -> Self {
        if luma(rgb) >= 128 { BinaryColor::On } else { BinaryColor::Off }
    }
}

impl FromPixel for Gray8 {
    fn from_pixel(rgb: [u8; 3]) -> Self {
        Gray8::new(luma(rgb))
    }
}

impl FromPixel for Rgb565 {
    fn from_pixel([r, g, b]: [u8; 3]) -> Self {
        let scale = |value: u8, max: u8| ((u32::from(value) * u32::from(max) + 127) / 255) as u8;
        Rgb565::new(scale(r, Rgb565::MAX_R), scale(g, Rgb565::MAX_G), scale(b, Rgb565::MAX_B))
    }
}

impl FromPixel for Rgb888 {
    fn from_pixel([r, g, b]: [u8; 3]) -> Self {
        Rgb888::new(r, g, b)
    }
}

/// A picture of one (grey) or three (RGB) channels, drawn with square pixels of `scale` display pixels.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a, C> {
    image: Image<'a>,
    scale: u32,
    color: PhantomData<C>,
}

impl<'a, C> Picture<'a, C> {
    /// `image` with each pixel as `scale`×`scale`; a scale of 0 counts as 1.
    pub fn new(image: &Image<'a>, scale: u32) -> Self {
        Self { image: *image, scale: scale.max(1), color: PhantomData }
    }
}

impl<C: FromPixel> Picture<'_, C> {
    /// The colour at a place of the scaled picture; black outside.
    fn pixel(&self, x: u32, y: u32) -> C {
        let (x, y) = ((x / self.scale) as usize, (y / self.scale) as usize);
        let channels = self.image.channels();
        let at = (y * self.image.width() + x) * channels;
        let byte = |channel: usize| self.image.data().get(at + channel).copied().unwrap_or(0);
        C::from_pixel(if channels == 3 { [byte(0), byte(1), byte(2)] } else { [byte(0); 3] })
    }
}

impl<C> OriginDimensions for Picture<'_, C> {
    fn size(&self) -> Size {
        Size::new(self.image.width() as u32 * self.scale, self.image.height() as u32 * self.scale)
    }
}

impl<C: FromPixel + embedded_graphics_core::pixelcolor::PixelColor> ImageDrawable for Picture<'_, C> {
    type Color = C;

    fn draw<D: DrawTarget<Color = C>>(&self, target: &mut D) -> Result<(), D::Error> {
        self.draw_sub_image(target, &Rectangle::new(Point::zero(), self.size()))
    }

    fn draw_sub_image<D: DrawTarget<Color = C>>(&self, target: &mut D, area: &Rectangle) -> Result<(), D::Error> {
        let area = area.intersection(&Rectangle::new(Point::zero(), self.size()));
        let Size { width, height } = area.size;
        let left = area.top_left.x.unsigned_abs();
        let top = area.top_left.y.unsigned_abs();
        let colors = (0..height).flat_map(|y| (0..width).map(move |x| self.pixel(left + x, top + y)));
        target.fill_contiguous(&Rectangle::new(Point::zero(), area.size), colors)
    }
}
