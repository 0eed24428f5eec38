//! Pictures for people: PNG grids and strips, GIF films. Pixels are scaled up by whole factors with nearest
//! neighbour, so that 8×8 can be looked at.

use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Write};
use std::path::Path;

use thiserror::Error;

use crate::pointer::is_pointer;

/// Why an image was not written.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The PNG encoder refuses.
    #[error(transparent)]
    Png(#[from] png::EncodingError),
    /// Not a PNG file, or a damaged one.
    #[error(transparent)]
    Decode(#[from] png::DecodingError),
    /// Git LFS left a pointer in its place.
    #[error("a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file")]
    LargeFilePointer,
    /// A picture of another shape.
    #[error("{found:?} rows, columns and channels, expected {expected:?}")]
    Shape {
        /// What it has.
        found: [usize; 3],
        /// What it should have.
        expected: [usize; 3],
    },
    /// The GIF encoder refuses.
    #[error(transparent)]
    Gif(#[from] gif::EncodingError),
    /// Too large for the format.
    #[error("{width}×{height} pixels are too many; draw fewer pictures")]
    Size {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
}

/// An RGB canvas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Smallest side of a cell, in pixels.
const CELL: usize = 64;
/// Pixels between cells.
const GAP: usize = 4;
/// Colour between cells.
const PAPER: u8 = 0x60;

impl Canvas {
    /// Lays pictures of the given (rows, columns, channels) out in a grid of `columns` cells, row by row. One channel
    /// is grey, three or more show the first three as red, green and blue, two show red and green.
    pub fn grid<'p>(pictures: impl IntoIterator<Item = &'p [u8]>, shape: [usize; 3], columns: usize) -> Self {
        let [rows, cols, channels] = shape;
        let pictures: Vec<&[u8]> = pictures.into_iter().collect();
        let columns = columns.clamp(1, pictures.len().max(1));
        let factor = CELL.div_ceil(rows.max(cols).max(1)).max(1);
        let (cell_w, cell_h) = (cols * factor + GAP, rows * factor + GAP);
        let width = columns * cell_w + GAP;
        let height = pictures.len().div_ceil(columns) * cell_h + GAP;
        let mut canvas = Self { width, height, rgb: vec![PAPER; width * height * 3] };
        for (index, picture) in pictures.iter().enumerate() {
            let (left, top) = (index % columns * cell_w + GAP, index / columns * cell_h + GAP);
            for y in 0..rows * factor {
                for x in 0..cols * factor {
                    let from = ((y / factor) * cols + x / factor) * channels;
                    let pixel = &picture[from..from + channels];
                    let rgb = match *pixel {
                        [grey] => [grey; 3],
                        [red, green] => [red, green, 0],
                        [red, green, blue, ..] => [red, green, blue],
                        [] => [0; 3],
                    };
                    let to = ((top + y) * width + left + x) * 3;
                    canvas.rgb[to..to + 3].copy_from_slice(&rgb);
                }
            }
        }
        canvas
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// If the file cannot be written or the picture is too large.
    pub fn write_png(&self, path: &Path) -> Result<(), ImageError> {
        self.encode_png(BufWriter::new(File::create(path)?))
    }

    /// Writes a PNG.
    ///
    /// # Errors
    /// If it cannot be written or the picture is too large.
    pub fn encode_png(&self, to: impl Write) -> Result<(), ImageError> {
        let size = ImageError::Size { width: self.width, height: self.height };
        let (Ok(width), Ok(height)) = (u32::try_from(self.width), u32::try_from(self.height)) else {
            return Err(size);
        };
        let mut encoder = png::Encoder::new(to, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        Ok(writer.finish()?)
    }
}

/// Writes canvases of the same size as a GIF that repeats; the last one stays for a second.
///
/// # Errors
/// If it cannot be written or the picture is too large.
pub fn encode_gif(to: impl Write, frames: &[Canvas]) -> Result<(), ImageError> {
    let Some(first) = frames.first() else { return Ok(()) };
    let (Ok(width), Ok(height)) = (u16::try_from(first.width), u16::try_from(first.height)) else {
        return Err(ImageError::Size { width: first.width, height: first.height });
    };
    let mut encoder = gif::Encoder::new(to, width, height, &[])?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    for (index, canvas) in frames.iter().enumerate() {
        let mut frame = gif::Frame::from_rgb_speed(width, height, &canvas.rgb, 10);
        frame.delay = if index + 1 == frames.len() { 100 } else { 12 };
        encoder.write_frame(&frame)?;
    }
    Ok(())
}

/// Reads a PNG of the given (rows, columns, channels) as bytes in that order.
///
/// # Errors
/// If the file cannot be read or is a picture of another shape.
pub fn read_png(path: &Path, [rows, columns, channels]: [usize; 3]) -> Result<Vec<u8>, ImageError> {
    let bytes = fs::read(path)?;
    if is_pointer(&bytes) {
        return Err(ImageError::LargeFilePointer);
    }
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (found, info) = (reader.output_color_type().0.samples(), reader.info());
    if [info.height as usize, info.width as usize, found] != [rows, columns, channels] {
        return Err(ImageError::Shape {
            found: [info.height as usize, info.width as usize, found],
            expected: [rows, columns, channels],
        });
    }
    let mut bytes = vec![0; rows * columns * channels];
    reader.next_frame(&mut bytes)?;
    Ok(bytes)
}

/// Samples in about −1 to 1 as bytes, clamped.
pub fn to_bytes(sample: &[f32]) -> Vec<u8> {
    sample.iter().map(|v| ((v + 1.0) * 127.5 + 0.5) as u8).collect()
}
