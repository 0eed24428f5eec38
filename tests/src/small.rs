//! The smallest network that has every operation, with random weights.

use std::path::Path;

use waft_host::export::{ExportOptions, Recipe, ResidualWidth};
use waft_host::sample::AlignedBytes;

use crate::{exported, random_checkpoint};

/// It in the `i8` precision.
///
/// # Panics
/// If it cannot be exported.
pub fn small() -> AlignedBytes {
    small_with(&ExportOptions::default())
}

/// The same with scales of each step.
///
/// # Panics
/// If it cannot be exported.
pub fn small_stepwise() -> AlignedBytes {
    let recipe = Recipe { step_scales: true, ..Recipe::default() };
    small_with(&ExportOptions { recipe, residual: ResidualWidth::Narrow, ..Default::default() })
}

/// It as the options say.
///
/// # Panics
/// If it cannot be exported.
pub fn small_with(options: &ExportOptions) -> AlignedBytes {
    small_of_size(2, options)
}

/// It for square samples of that size.
///
/// # Panics
/// If it cannot be exported.
pub fn small_of_size(size: usize, options: &ExportOptions) -> AlignedBytes {
    let folder = tempfile::tempdir().expect("a temporary folder");
    checkpoint_of_size(folder.path(), size);
    exported(folder.path(), &ExportOptions { steps: vec![2], calibration_images: 2, ..options.clone() }).bytes
}

/// Its checkpoint.
///
/// # Panics
/// If it cannot be written.
pub fn checkpoint_of_size(folder: &Path, size: usize) {
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": size, "in_channels": 1, "out_channels": 1,
        "block_out_channels": [4], "layers_per_block": 1, "norm_num_groups": 2, "attention_head_dim": 2,
        "down_block_types": ["AttnDownBlock2D"], "up_block_types": ["UpBlock2D"], "mid_block_type": null,
        "num_class_embeds": 2, "time_embedding_dim": 8,
    });
    random_checkpoint(folder, &config);
    std::fs::write(folder.join("waft.json"), r#"{"unconditional_class": 1}"#).expect("writes");
}
