//! Writes the smallest checkpoint that uses every operation, with random weights: seeds for fuzzing.
//!
//! `cargo run --release -p waft-tests --example tiny_checkpoint -- FOLDER`

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or_else(|| std::io::Error::other("name a folder"))?);
    std::fs::create_dir_all(&folder)?;
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 1, "out_channels": 1,
        "block_out_channels": [4, 4], "layers_per_block": 1, "norm_num_groups": 2, "num_class_embeds": 3,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
    });
    waft_tests::random_checkpoint(&folder, &config);
    std::fs::write(folder.join("waft.json"), r#"{"unconditional_class": 2}"#)
}
