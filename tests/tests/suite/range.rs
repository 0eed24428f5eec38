//! Numbers that leave their range are found when a model is exported, not on the device.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use waft::format::Precision;
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportError, ExportOptions, export};
use waft_tests::golden;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// The golden `velocity` with the weights of its first convolution changed.
fn with_first_weights(folder: &Path, change: impl Fn(f32) -> f32) -> Checkpoint {
    for file in ["config.json", "scheduler_config.json", WEIGHTS] {
        fs::copy(golden("velocity").join(file), folder.join(file)).expect("copies");
    }
    let mut bytes = fs::read(folder.join(WEIGHTS)).expect("reads");
    let place = {
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = tensors.tensor("conv_in.weight").expect("exists").data();
        data.as_ptr() as usize - bytes.as_ptr() as usize..data.as_ptr() as usize - bytes.as_ptr() as usize + data.len()
    };
    for weight in bytes[place].as_chunks_mut().0 {
        *weight = change(f32::from_le_bytes(*weight)).to_le_bytes();
    }
    fs::write(folder.join(WEIGHTS), bytes).expect("writes");
    Checkpoint::open(folder).expect("opens")
}

fn options(precision: Precision) -> ExportOptions {
    ExportOptions { precision, steps: vec![2], calibration_images: 1, ..Default::default() }
}

#[test]
fn what_half_precision_cannot_hold_is_refused_where_it_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = with_first_weights(folder.path(), |weight| weight * 1e6);
    let refused = export(&checkpoint, &options(Precision::F16), &()).expect_err("infinite in half precision");
    let ExportError::NotFinite { precision: "f16", step: 1, operation, largest } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(operation, "conv_in");
    assert!(*largest > 65_504.0 && largest.is_finite(), "what f32 has is told: {largest}");
    assert!(refused.to_string().contains("export in another precision"), "{refused}");
    export(&checkpoint, &options(Precision::F32), &()).expect("single precision holds it");
}

#[test]
fn what_single_precision_cannot_hold_is_refused_in_every_precision() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = with_first_weights(folder.path(), |weight| weight.signum() * 3e38);
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        let refused = export(&checkpoint, &options(precision), &()).expect_err("infinite in single precision");
        assert!(matches!(&refused, ExportError::NotFinite { precision: "f32", .. }), "{refused}");
        assert!(refused.to_string().contains("checkpoint is damaged"), "{refused}");
    }
}

/// Sixteen bits with twelve fractional ones hold what time and class become in two layers below 8.
#[test]
fn large_vectors_of_time_and_class_are_refused_in_integers() {
    let bytes = fs::read(golden("edm_classes/network-snapshot-000001.pkl")).expect("golden");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("network-snapshot-000001.pkl");
    let second = {
        fs::write(&path, &bytes).expect("writes");
        let [outputs, inputs] = *Checkpoint::open(&path).expect("opens").shape("map_layer1.weight").expect("there")
        else {
            panic!("a matrix");
        };
        Checkpoint::open(&path).expect("opens").tensor("map_layer1.weight", &[outputs, inputs]).expect("reads")
    };
    let raw = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let at = bytes.windows(4 * second.len()).position(|window| window == raw(&second)).expect("as they are");
    let with = |factor: f32| {
        let mut bytes = bytes.clone();
        let values: Vec<f32> = second.iter().map(|value| factor * value).collect();
        bytes[at..at + 4 * values.len()].copy_from_slice(&raw(&values));
        fs::write(&path, bytes).expect("writes");
        Checkpoint::open(&path).expect("opens")
    };
    export(&with(1.0), &options(Precision::I8), &()).expect("small enough");
    let refused = export(&with(40.0), &options(Precision::I8), &()).expect_err("too large").to_string();
    assert!(refused.starts_with("the vector that time and class become has elements of"), "{refused}");
    export(&with(40.0), &options(Precision::F32), &()).expect("single precision holds it");
}
