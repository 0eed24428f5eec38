//! What waft's cross-crate tests share.

pub mod classifier;
pub mod oracle;

use std::path::{Path, PathBuf};

use waft::Model;
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{Export, ExportOptions, export};
use waft_host::sample::AlignedBytes;

/// The repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// A file or folder written by `tests/goldens/make.py`.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests").join("goldens").join(name)
}

/// The shipped digits checkpoint.
pub fn digits() -> PathBuf {
    root().join("models").join("digits").join("checkpoint")
}

/// Exports a checkpoint.
///
/// # Panics
/// If it is refused.
pub fn exported(checkpoint: &Path, options: &ExportOptions) -> Export {
    let checkpoint = Checkpoint::open(checkpoint).expect("a checkpoint");
    export(&checkpoint, options, &indicatif::ProgressBar::hidden()).expect("exports")
}

/// The model of exported bytes.
///
/// # Panics
/// If they are none.
pub fn model(bytes: &AlignedBytes) -> Model<'_> {
    Model::from_bytes(bytes.as_slice()).expect("a model")
}

/// Largest difference over largest reference: the error measure of the float lanes.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    worst / expected.iter().map(|b| f64::from(b.abs())).fold(1e-30, f64::max)
}

/// Peak signal-to-noise ratio in decibels of values in [−1, 1], peak 2.
pub fn psnr(found: &[f32], expected: &[f32]) -> f64 {
    let squares: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (4.0 / (squares / expected.len() as f64).max(1e-12)).log10()
}
