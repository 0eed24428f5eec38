//! The comparison as a page: figures, pictures side by side, the worst first.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, html};

use super::metrics::{Estimate, psnr};
use super::{Figures, Quality};
use crate::image::{Canvas, ImageError};
use crate::sample::Picture;
use crate::text::visible;

/// Pictures in a row.
const COLUMNS: usize = 16;

const STYLE: &str = "body{font:15px system-ui;margin:2em;max-width:80em}td,th{padding:.2em .7em;text-align:right}\
    td:first-child{text-align:left}img{image-rendering:pixelated;max-width:100%}small{color:#777}";

/// One HTML page that needs nothing else.
///
/// # Errors
/// If a picture cannot be encoded.
pub fn html(quality: &Quality, title: &str) -> Result<String, ImageError> {
    let count = COLUMNS.min(quality.count);
    let mut rows: Vec<&Picture> = quality.reference_pictures.iter().take(count).collect();
    let mut names = String::from("f32");
    let mut farthest = vec![];
    for (figures, pictures) in &quality.files {
        rows.extend(pictures.iter().take(count));
        names = format!("{names}, {}", figures.name);
        farthest.push(farthest_pictures(quality, figures, pictures, count)?);
    }
    let first = image(&rows, quality.shape, count)?;
    let title = visible(title);
    let page = html! {
        (DOCTYPE)
        html {
            head { meta charset="utf-8"; style { (STYLE) } title { (title) } }
            body {
                h1 { (title) }
                p {
                    (quality.count) " pictures, " (quality.steps) " steps; compared by " (visible(&quality.features)) "."
                    " Intervals hold 95 % of resamples."
                }
                table {
                    tr {
                        @for name in [
                            "model", "flash", "arena", "FID", "above f32", "precision", "recall", "Inception Score",
                            "class accuracy", "median PSNR", "SSIM",
                        ] { th { (name) } }
                    }
                    (row(&quality.reference))
                    @for (figures, _) in &quality.files { (row(figures)) }
                }
                h2 { "The first pictures" }
                p { "Rows: " (visible(&names)) "." }
                (first)
                @for part in &farthest { (part) }
            }
        }
    };
    Ok(page.into_string())
}

fn row(figures: &Figures) -> Markup {
    let estimates = [
        (Some(figures.fid), 3),
        (Some(figures.fid_above_f32), 3),
        (Some(figures.precision), 3),
        (Some(figures.recall), 3),
        (figures.inception_score, 2),
        (figures.class_accuracy, 4),
        (figures.psnr_median_db, 2),
        (figures.ssim_mean, 4),
    ];
    html! {
        tr {
            td { (visible(&figures.name)) }
            td { (figures.flash_bytes) }
            td { (figures.arena_bytes) }
            @for (estimate, digits) in estimates {
                td {
                    @if let Some(Estimate { value, interval: [low, high] }) = estimate {
                        (format!("{value:.digits$} "))
                        small { (format!("{low:.digits$} to {high:.digits$}")) }
                    }
                }
            }
        }
    }
}

/// The pictures of a file that differ most from those of `f32`, below them.
fn farthest_pictures(
    quality: &Quality,
    figures: &Figures,
    pictures: &[Picture],
    count: usize,
) -> Result<Markup, ImageError> {
    let mut ranked: Vec<(f64, usize)> = pictures
        .iter()
        .zip(&quality.reference_pictures)
        .enumerate()
        .map(|(index, (a, b))| (psnr(&a.sample, &b.sample), index))
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    ranked.truncate(count);
    let reference = ranked.iter().map(|&(_, index)| &quality.reference_pictures[index]);
    let pairs: Vec<&Picture> = reference.chain(ranked.iter().map(|&(_, index)| &pictures[index])).collect();
    let image = image(&pairs, quality.shape, count)?;
    let ratios: Vec<String> = ranked.iter().map(|(ratio, _)| format!("{ratio:.1}")).collect();
    let name = visible(&figures.name);
    Ok(html! {
        h2 { "Farthest from f32: " (name) }
        p { "Above f32, below " (name) "." }
        (image)
        p { "PSNR in dB: " (ratios.join(", ")) "." }
    })
}

fn image(pictures: &[&Picture], shape: [usize; 3], columns: usize) -> Result<Markup, ImageError> {
    let canvas = Canvas::grid(pictures.iter().map(|picture| picture.bytes.as_slice()), shape, columns);
    let mut png = vec![];
    canvas.encode_png(&mut png)?;
    Ok(html! { img alt="pictures" src=(format!("data:image/png;base64,{}", STANDARD.encode(png))); })
}
