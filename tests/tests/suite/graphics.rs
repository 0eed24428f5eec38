//! Pictures on displays: what `embedded-graphics` draws is what the picture holds.

use embedded_graphics::image::Image;
use embedded_graphics::mock_display::MockDisplay;
use embedded_graphics::pixelcolor::{BinaryColor, Gray8, Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use waft::graphics::{FromPixel, Picture};
use waft::{Model, Request, Session};
use waft_host::export::ExportOptions;
use waft_host::sample::arena;
use waft_tests::{exported, golden, model};

/// Draws a picture and hands it over.
fn with_picture(model: &Model<'_>, request: Request, show: impl FnOnce(&waft::Image<'_>)) {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("fits");
    let mut run = session.sample(request).expect("valid");
    while run.step().expect("runs").is_some() {}
    show(&run.image().expect("complete"));
}

#[test]
fn grey_pictures_are_scaled_and_thresholded() {
    with_picture(&waft_models::digits::I8, Request::new().class(3).seed(1), |image| {
        let mut display = MockDisplay::<BinaryColor>::new();
        display.set_allow_out_of_bounds_drawing(false);
        let picture = Picture::new(image, 4);
        Image::new(&picture, Point::new(10, 20)).draw(&mut display).expect("infallible");
        for y in 0..64 {
            for x in 0..64 {
                let inside = (10..42).contains(&x) && (20..52).contains(&y);
                let expected = inside.then(|| {
                    let byte = image.data()[((y - 20) / 4 * 8 + (x - 10) / 4) as usize];
                    BinaryColor::from(byte >= 128)
                });
                assert_eq!(display.get_pixel(Point::new(x, y)), expected, "({x}, {y})");
            }
        }
    });
}

#[test]
fn colours_keep_their_channels() {
    let export = exported(
        &golden("cifar_small"),
        &ExportOptions { steps: vec![1], calibration_images: 1, ..ExportOptions::default() },
    );
    with_picture(&model(&export.bytes), Request::new().seed(1), |image| {
        assert_eq!(image.channels(), 3);
        let mut display = MockDisplay::<Rgb888>::new();
        Image::new(&Picture::new(image, 1), Point::zero()).draw(&mut display).expect("infallible");
        for (i, rgb) in image.data().as_chunks::<3>().0.iter().enumerate() {
            let at = Point::new((i % image.width()) as i32, (i / image.width()) as i32);
            assert_eq!(display.get_pixel(at), Some(Rgb888::new(rgb[0], rgb[1], rgb[2])));
        }
        // A part of it starts at the part's corner.
        let mut display = MockDisplay::<Rgb888>::new();
        let whole = Picture::<Rgb888>::new(image, 1);
        let part = whole.sub_image(&embedded_graphics::primitives::Rectangle::new(Point::new(3, 5), Size::new(4, 2)));
        Image::new(&part, Point::zero()).draw(&mut display).expect("infallible");
        let rgb = &image.data()[3 * (6 * image.width() + 4)..][..3];
        assert_eq!(display.get_pixel(Point::new(1, 1)), Some(Rgb888::new(rgb[0], rgb[1], rgb[2])));
        assert_eq!(display.affected_area().size, Size::new(4, 2));
    });
}

#[test]
fn colours_are_the_nearest() {
    for value in 0..=255u8 {
        let found = Rgb565::from_pixel([value; 3]);
        let error = |channel: u8, max: u8| (f64::from(channel) / f64::from(max) - f64::from(value) / 255.0).abs();
        assert!(error(found.r(), 31) <= 0.5 / 31.0 + 1e-9 && error(found.g(), 63) <= 0.5 / 63.0 + 1e-9);
        assert_eq!(Gray8::from_pixel([value; 3]), Gray8::new(value));
    }
    assert_eq!(Gray8::from_pixel([255, 0, 0]).luma(), 77);
}
