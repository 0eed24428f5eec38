//! The steps of a picture as a GIF that repeats.

use gif::{Encoder, Frame, Repeat};

/// Hundredths of a second that a step is shown, and the last one.
const DELAY: [u16; 2] = [12, 100];

/// A GIF of frames of (row, column, channel) bytes; each pixel becomes a square of `scale` by `scale`.
pub(crate) fn encode(frames: &[Vec<u8>], shape: [usize; 3], scale: usize) -> Result<Vec<u8>, String> {
    let [rows, columns, channels] = shape;
    let side = |pixels: usize| {
        let scaled = pixels.checked_mul(scale).and_then(|side| u16::try_from(side).ok()).filter(|&side| side > 0);
        scaled.ok_or(format!("a GIF of {columns}x{rows} pixels, each {scale} wide: at least 1 and at most 65535 fit"))
    };
    let (width, height) = (side(columns)?, side(rows)?);
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, width, height, &[]).map_err(|error| error.to_string())?;
    encoder.set_repeat(Repeat::Infinite).map_err(|error| error.to_string())?;
    for (index, pixels) in frames.iter().enumerate() {
        let rgb: Vec<u8> = (0..rows * scale)
            .flat_map(|y| (0..columns * scale).map(move |x| (y / scale * columns + x / scale) * channels))
            // As the page shows them: the first channel stands for grey where there are no three.
            .flat_map(|at| [0, 1, 2].map(|channel| pixels[at + if channels >= 3 { channel } else { 0 }]))
            .collect();
        let mut frame = Frame::from_rgb_speed(width, height, &rgb, 10);
        frame.delay = DELAY[usize::from(index + 1 == frames.len())];
        encoder.write_frame(&frame).map_err(|error| error.to_string())?;
    }
    drop(encoder);
    Ok(bytes)
}
