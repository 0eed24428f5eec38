//! What waft's cross-crate tests share.

pub mod classifier;
pub mod forge;
pub mod many;
pub mod oracle;
pub mod ptx;
pub mod reach;
pub mod small;

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
    export(&checkpoint, options, &()).expect("exports")
}

/// The model of exported bytes.
///
/// # Panics
/// If they are none.
pub fn model(bytes: &AlignedBytes) -> Model<'_> {
    Model::from_bytes(bytes.as_slice()).expect("a model")
}

/// Largest difference over largest reference: the error measure of the float precisions.
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

/// Writes a checkpoint with small pseudo-random weights for a configuration: it asks the importer which tensors are
/// missing, one after the other, as their names and shapes are in its errors. Its scheduler has diffusers' defaults.
///
/// # Panics
/// If the configuration itself is refused.
pub fn random_checkpoint(folder: &Path, config: &serde_json::Value) {
    use rand::{RngExt, SeedableRng};
    use safetensors::tensor::{Dtype, TensorView};
    use waft_host::checkpoint::CheckpointError;
    use waft_host::import::{ImportError, import};

    std::fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    std::fs::write(folder.join("scheduler_config.json"), r#"{"_class_name":"DDIMScheduler"}"#).expect("writes");
    let path = folder.join("diffusion_pytorch_model.safetensors");
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
    let mut random = rand_pcg::Pcg32::seed_from_u64(1);
    loop {
        let views = tensors.iter().map(|(key, shape, bytes)| {
            (key.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("sized below"))
        });
        std::fs::write(&path, safetensors::serialize(views, None).expect("serializes")).expect("writes");
        match import(&Checkpoint::open(folder).expect("opens")) {
            Ok(_) => return,
            Err(ImportError::Checkpoint(CheckpointError::NoTensor { key, .. })) => {
                // An empty tensor makes the importer name the shape that it wants.
                tensors.push((key, vec![0], vec![]));
            }
            Err(ImportError::Checkpoint(CheckpointError::Shape { key, expected, .. })) => {
                let len: usize = expected.iter().product();
                let fan_in = expected.iter().skip(1).product::<usize>().max(1) as f32;
                let is_norm = key.contains("norm") && key.ends_with("weight");
                let mut next = || {
                    let uniform: f32 = random.random_range(-1.0..=1.0);
                    if is_norm { 1.0 + 0.2 * uniform } else { uniform * 1.7 / fan_in.sqrt() }
                };
                let bytes = (0..len).flat_map(|_| next().to_le_bytes()).collect();
                let entry = tensors.iter_mut().find(|(name, ..)| *name == key).expect("added above");
                (entry.1, entry.2) = (expected, bytes);
            }
            Err(error) => panic!("{error}"),
        }
    }
}
