//! OpenAI's layout: what its tensors say, and what is asked for by name. That it computes what it should is in `diffusers.rs`.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use waft::format::Precision;
use waft_host::checkpoint::Checkpoint;
use waft_host::export::ExportOptions;
use waft_host::graph::Op;
use waft_host::import::{import, import_for_sampling};
use waft_tests::{exported, golden};

/// A copy with fields of `config.json` replaced; null takes one out.
fn with(checkpoint: &str, fields: &Value) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let from = golden(checkpoint);
    std::fs::copy(from.join("model.pt"), folder.path().join("model.pt")).expect("copies");
    let text = std::fs::read_to_string(from.join("config.json")).expect("there");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (field, value) in fields.as_object().expect("an object") {
        match value {
            Value::Null => config.as_object_mut().expect("an object").remove(field),
            value => config.as_object_mut().expect("an object").insert(field.clone(), value.clone()),
        };
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("writes");
    folder
}

fn refusal(checkpoint: &str, fields: &Value) -> String {
    let folder = with(checkpoint, fields);
    import(&Checkpoint::open(folder.path()).expect("opens")).expect_err("refused").to_string()
}

#[test]
fn what_the_tensors_do_not_say_is_asked_for() {
    for (fields, expected) in [
        (json!({ "num_head_channels": null }), "give num_heads or num_head_channels"),
        (json!({ "use_new_attention_order": null }), "use_new_attention_order = null"),
        (json!({ "use_new_attention_order": "yes" }), "true or false"),
        (json!({ "image_size": null }), "sample_size = null"),
        (json!({ "num_head_channels": 7 }), "heads of equal width of the 32 channels"),
        (json!({ "num_head_channels": -1, "num_heads": 5 }), "heads of equal width"),
        (json!({ "num_heads_upsample": 2 }), "num_heads_upsample"),
        (json!({ "conv_kernel": 5 }), "conv_kernel = 5"),
    ] {
        let found = refusal("guided_diffusion", &fields);
        assert!(found.contains(expected), "{fields}: {found}");
    }
    // With one head both orders are the same.
    let folder = with("improved_diffusion", &json!({ "num_heads": 1, "use_new_attention_order": null }));
    assert!(import(&Checkpoint::open(folder.path()).expect("opens")).is_ok());
}

#[test]
fn options_that_the_tensors_say_are_not_asked_for() {
    let stated = json!({ "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1", "class_cond": true,
        "resblock_updown": true, "use_scale_shift_norm": true, "dropout": 0.1, "use_fp16": true });
    let folder = with("guided_diffusion", &stated);
    let graph = import(&Checkpoint::open(folder.path()).expect("opens")).expect("imports");
    assert_eq!(graph.classes.as_ref().map(|classes| classes.classes), Some(3));
    assert!(graph.nodes.iter().any(|node| matches!(node.op, Op::ScaleShift(_))));
    let heads: Vec<usize> = graph
        .nodes
        .iter()
        .filter_map(|node| match node.op {
            Op::Attention { heads, .. } => Some(heads),
            _ => None,
        })
        .collect();
    assert_eq!(heads, [4; 4], "one on the way down, one in the middle, two on the way up");
}

#[test]
fn other_layouts_are_refused_where_they_differ() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = |from: &Path, to: &str| std::fs::copy(from, folder.path().join(to)).expect("copies");
    copy(&golden("velocity").join("diffusion_pytorch_model.safetensors"), "model.safetensors");
    copy(&golden("improved_diffusion").join("config.json"), "config.json");
    let error = import(&Checkpoint::open(folder.path()).expect("opens")).expect_err("refused").to_string();
    assert!(error.contains("not laid out as in guided-diffusion's UNetModel: 0 output_blocks"), "{error}");
}

#[test]
fn it_is_exported_without_its_variances() {
    let graph = import_for_sampling(&Checkpoint::open(golden("guided_diffusion")).expect("opens")).expect("imports");
    assert_eq!(graph.shape(graph.output).c, 1);
    assert_eq!(graph.variance.map(|id| graph.shape(id)), Some(graph.shape(graph.output)));
    let options =
        ExportOptions { precision: Precision::I8, steps: vec![2], calibration_images: 3, ..Default::default() };
    let report = exported(&golden("guided_diffusion"), &options).report;
    let worst = report.tensors.iter().map(|tensor| tensor.sqnr_db).fold(f64::INFINITY, f64::min);
    println!("{worst:.1} dB");
    assert!(worst >= 20.0, "{worst:.1} dB in an activation");
    assert!(report.notes.iter().any(|note| note.contains("variances are dropped")), "{:?}", report.notes);
}
