//! The comparison as a page: figures, pictures side by side, the worst first.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::metrics::{Estimate, psnr};
use super::{Figures, Quality};
use crate::image::{Canvas, ImageError};
use crate::sample::Picture;

/// Pictures in a row.
const COLUMNS: usize = 16;

/// One HTML page that needs nothing else.
///
/// # Errors
/// If a picture cannot be encoded.
pub fn html(quality: &Quality, title: &str) -> Result<String, ImageError> {
    let mut page = String::from(HEAD);
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(
        page,
        "<title>{title}</title><h1>{title}</h1><p>{} pictures, {} steps; compared by {}.",
        quality.count, quality.steps, quality.features
    );
    let _ = write!(
        page,
        " Intervals hold 95 % of resamples.</p><table><tr><th>model<th>flash<th>arena<th>FID<th>above f32<th>precision<th>recall<th>Inception Score<th>class accuracy<th>median PSNR<th>SSIM"
    );
    for figures in std::iter::once(&quality.reference).chain(quality.files.iter().map(|(figures, _)| figures)) {
        row(&mut page, figures);
    }
    page.push_str("</table>");
    let count = COLUMNS.min(quality.count);
    let mut rows: Vec<&Picture> = quality.reference_pictures.iter().take(count).collect();
    let mut names = String::from("f32");
    for (figures, pictures) in &quality.files {
        rows.extend(pictures.iter().take(count));
        let _ = write!(names, ", {}", figures.name);
    }
    let _ = write!(page, "<h2>The first pictures</h2><p>Rows: {names}.</p>");
    image(&mut page, &rows, quality.shape, count)?;
    for (figures, pictures) in &quality.files {
        let _ = write!(page, "<h2>Farthest from f32: {}</h2><p>Above f32, below {}.</p>", figures.name, figures.name);
        let mut ranked: Vec<(f64, usize)> = pictures
            .iter()
            .zip(&quality.reference_pictures)
            .enumerate()
            .map(|(index, (a, b))| (psnr(&a.sample, &b.sample), index))
            .collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = || ranked.iter().take(count).map(|&(_, index)| index);
        let pairs: Vec<&Picture> = worst()
            .map(|index| &quality.reference_pictures[index])
            .chain(worst().map(|index| &pictures[index]))
            .collect();
        image(&mut page, &pairs, quality.shape, count)?;
        let ratios: Vec<String> = ranked.iter().take(count).map(|(ratio, _)| format!("{ratio:.1}")).collect();
        let _ = write!(page, "<p>PSNR in dB: {}.</p>", ratios.join(", "));
    }
    Ok(page)
}

const HEAD: &str = "<!doctype html><meta charset=utf-8><style>body{font:15px system-ui;margin:2em;max-width:80em}\
    td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}img{image-rendering:pixelated;max-width:100%}\
    small{color:#777}</style>";

fn row(page: &mut String, figures: &Figures) {
    let cell = |estimate: Option<Estimate>, digits: usize| match estimate {
        Some(Estimate { value, interval: [low, high] }) => {
            format!("{value:.digits$} <small>{low:.digits$} to {high:.digits$}</small>")
        }
        None => String::new(),
    };
    let _ = write!(page, "<tr><td>{}<td>{}<td>{}", figures.name, figures.flash_bytes, figures.arena_bytes);
    for (estimate, digits) in [
        (Some(figures.fid), 3),
        (Some(figures.fid_above_f32), 3),
        (Some(figures.precision), 3),
        (Some(figures.recall), 3),
        (figures.inception_score, 2),
        (figures.class_accuracy, 4),
        (figures.psnr_median_db, 2),
        (figures.ssim_mean, 4),
    ] {
        let _ = write!(page, "<td>{}", cell(estimate, digits));
    }
}

fn image(page: &mut String, pictures: &[&Picture], shape: [usize; 3], columns: usize) -> Result<(), ImageError> {
    let canvas = Canvas::grid(pictures.iter().map(|picture| picture.bytes.as_slice()), shape, columns);
    let mut png = vec![];
    canvas.encode_png(&mut png)?;
    let _ = write!(page, "<img alt=\"pictures\" src=\"data:image/png;base64,{}\">", STANDARD.encode(png));
    Ok(())
}
