//! Writes the seeds of the fuzz target `model`: small models with every operation, in each precision, resident and streamed, and
//! near the bounds of validation: one pixel, where a bias has the shape of a map; results in place; samplers that look back.
//!
//! `cargo run --release -p waft-tests --example fuzz_seeds -- FOLDER`

use std::path::{Path, PathBuf};

use waft::Precision;
use waft_host::export::{ExportOptions, Recipe, ResidualWidth, WeightWidth};
use waft_host::schedule::Solver;
use waft_tests::small::checkpoint_of_size;
use waft_tests::{exported, random_checkpoint};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or_else(|| std::io::Error::other("name a folder"))?);
    std::fs::create_dir_all(&folder)?;
    let checkpoints = tempfile::tempdir()?;
    // Two levels, so that maps are halved, doubled and joined.
    let levels = checkpoints.path().join("levels");
    std::fs::create_dir(&levels)?;
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 1, "out_channels": 1,
        "block_out_channels": [4, 4], "layers_per_block": 1, "norm_num_groups": 2, "num_class_embeds": 3,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
    });
    random_checkpoint(&levels, &config);
    std::fs::write(levels.join("waft.json"), r#"{"unconditional_class": 2}"#)?;
    let pixel = checkpoints.path().join("pixel");
    std::fs::create_dir(&pixel)?;
    checkpoint_of_size(&pixel, 1);

    let options = |precision| ExportOptions { precision, calibration_images: 1, ..Default::default() };
    let noisy = |precision| ExportOptions { eta: 0.5, steps: vec![2], ..options(precision) };
    let write = |name: &str, checkpoint: &Path, options: &ExportOptions| {
        let export = exported(checkpoint, options);
        let weights = export.weights.as_deref().unwrap_or(&[]);
        std::fs::write(folder.join(name), [export.bytes.as_slice(), weights].concat())
    };
    for (precision, window) in [(Precision::I8, 2000), (Precision::F16, 4000), (Precision::F32, 8000)] {
        let name = precision.name();
        write(name, &levels, &noisy(precision))?;
        write(&format!("{name}-pixel"), &pixel, &noisy(precision))?;
        write(&format!("{name}-streamed"), &levels, &ExportOptions { stream: Some(window), ..noisy(precision) })?;
        let history = ExportOptions {
            solver: Some(Solver::DpmSolver),
            timesteps: vec![vec![700, 400, 100]],
            ..options(precision)
        };
        write(&format!("{name}-history"), &pixel, &history)?;
    }
    let narrow = ExportOptions { residual: ResidualWidth::Narrow, ..noisy(Precision::I8) };
    write("i4", &levels, &ExportOptions { weights: WeightWidth::Four, ..noisy(Precision::I8) })?;
    let recipe = Recipe { step_scales: true, ..Recipe::default() };
    write("i8-step-scales", &levels, &ExportOptions { recipe, ..narrow.clone() })?;
    write("i8-narrow", &levels, &narrow)?;
    let thresholds = r#"{"_class_name": "DDIMScheduler", "thresholding": true, "sample_max_value": 2.0}"#;
    std::fs::write(levels.join("scheduler_config.json"), thresholds)?;
    write("i8-thresholds", &levels, &noisy(Precision::I8))?;
    write("f32-thresholds", &levels, &noisy(Precision::F32))
}
