//! Checkpoints as they come: old keys, other float types, shards, pipeline folders; and as they should not.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Map, Value, json};
use waft_host::checkpoint::{Checkpoint, CheckpointError};
use waft_host::export::predictor;
use waft_host::graph::Graph;
use waft_host::import::{ImportError, import};
use waft_tests::golden;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A checkpoint that a test changes before it is opened.
struct Draft {
    folder: tempfile::TempDir,
    config: Map<String, Value>,
    tensors: Tensors,
}

impl Draft {
    fn of(name: &str) -> Self {
        let text = std::fs::read_to_string(golden(name).join("config.json")).expect("golden");
        let bytes = std::fs::read(golden(name).join(WEIGHTS)).expect("golden");
        let parsed = SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensors = parsed.iter().map(|(k, t)| (k.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())));
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, config: serde_json::from_str(&text).expect("JSON"), tensors: tensors.collect() }
    }

    fn with(mut self, fields: &Value) -> Self {
        self.config.extend(fields.as_object().expect("an object").clone());
        self
    }

    /// Every tensor through a conversion of its values.
    fn converted(mut self, dtype: Dtype, convert: impl Fn(f32) -> Vec<u8>) -> Self {
        for (found, _, data) in self.tensors.values_mut() {
            *data = data.as_chunks().0.iter().flat_map(|&b| convert(f32::from_le_bytes(b))).collect();
            *found = dtype;
        }
        self
    }

    fn write_to(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("creates");
        std::fs::write(folder.join("config.json"), Value::Object(self.config.clone()).to_string()).expect("writes");
        write_tensors(&folder.join(WEIGHTS), &self.tensors, |_| true);
    }

    fn import(&self) -> Result<Graph, ImportError> {
        self.write_to(self.folder.path());
        self.import_again()
    }

    /// Without writing it again.
    fn import_again(&self) -> Result<Graph, ImportError> {
        import(&Checkpoint::open(self.folder.path())?)
    }

    fn refusal(&self) -> String {
        self.import().expect_err("refused").to_string()
    }
}

fn write_tensors(path: &Path, tensors: &Tensors, keep: impl Fn(&str) -> bool) {
    let views = tensors
        .iter()
        .filter(|(key, _)| keep(key))
        .map(|(key, (dtype, shape, data))| (key.clone(), TensorView::new(*dtype, shape.clone(), data).expect("sized")));
    std::fs::write(path, serialize(views, None).expect("serializes")).expect("writes");
}

/// All weights of a graph, for comparison.
fn weights(graph: &Graph) -> Vec<f32> {
    use waft_host::graph::Op;
    let of = |op: &Op| match op {
        Op::Conv2d(conv) => [&conv.weight[..], &conv.bias].concat(),
        Op::GroupNorm(norm) => [&norm.gamma[..], &norm.beta].concat(),
        Op::AddEmbedding(linear) => [&linear.weight[..], &linear.bias].concat(),
        _ => vec![],
    };
    graph.nodes.iter().flat_map(|node| of(&node.op)).collect()
}

#[test]
fn old_attention_keys_mean_the_same() {
    let expected = weights(&Draft::of("cifar_small").import().expect("imports"));
    let mut draft = Draft::of("cifar_small");
    let renamed = draft.tensors.drain().map(|(key, tensor)| {
        let pairs = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
        (pairs.iter().fold(key, |key, (new, old)| key.replace(new, old)), tensor)
    });
    draft.tensors = renamed.collect();
    assert!(draft.tensors.keys().any(|key| key.contains("proj_attn")));
    assert_eq!(weights(&draft.import().expect("imports")), expected);
}

#[test]
fn half_and_brain_floats_are_read() {
    let expected = weights(&Draft::of("velocity").import().expect("imports"));
    let half = Draft::of("velocity").converted(Dtype::F16, |v| f16::from_f32(v).to_le_bytes().to_vec());
    let brain = Draft::of("velocity").converted(Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec());
    for (draft, unit) in [(half, 1e-3), (brain, 1e-2)] {
        for (found, expected) in weights(&draft.import().expect("imports")).iter().zip(&expected) {
            assert!((found - expected).abs() <= unit * expected.abs().max(1e-2), "{found} but {expected}");
        }
    }
    let wide = Draft::of("velocity").converted(Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec());
    assert!(wide.refusal().contains("F64"));
}

#[test]
fn shards_and_pipeline_folders_are_found() {
    let draft = Draft::of("velocity");
    let expected = weights(&draft.import().expect("imports"));
    let pipeline = tempfile::tempdir().expect("a temporary folder");
    draft.write_to(&pipeline.path().join("unet"));
    std::fs::create_dir(pipeline.path().join("scheduler")).expect("creates");
    let scheduler = r#"{"_class_name":"DDPMScheduler","num_train_timesteps":77}"#;
    std::fs::write(pipeline.path().join("scheduler/scheduler_config.json"), scheduler).expect("writes");
    let opened = Checkpoint::open(pipeline.path()).expect("opens");
    assert_eq!(opened.scheduler().expect("found").num_train_timesteps(), 77);
    assert_eq!(weights(&import(&opened).expect("imports")), expected);

    let folder = pipeline.path().join("unet");
    std::fs::remove_file(folder.join(WEIGHTS)).expect("removes");
    let first = |key: &str| key.starts_with("up_blocks");
    write_tensors(&folder.join("a.safetensors"), &draft.tensors, first);
    write_tensors(&folder.join("b.safetensors"), &draft.tensors, |key| !first(key));
    let place = |key: &String| if first(key) { "a.safetensors" } else { "b.safetensors" };
    let map: Map<String, Value> = draft.tensors.keys().map(|key| (key.clone(), place(key).into())).collect();
    let index = folder.join(format!("{WEIGHTS}.index.json"));
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).expect("writes");
    assert_eq!(weights(&import(&Checkpoint::open(&folder).expect("opens")).expect("imports")), expected);

    std::fs::write(&index, json!({ "weight_map": { "x": "../escape.safetensors" } }).to_string()).expect("writes");
    assert!(Checkpoint::open(&folder).expect_err("refused").to_string().contains("outside"));
}

#[test]
fn fields_that_are_not_supported_are_named_with_their_value() {
    let cases = [
        (json!({ "_class_name": "UNet2DConditionModel" }), "UNet2DConditionModel"),
        (json!({ "sample_size": null }), "sample_size = null"),
        (json!({ "sample_size": 5000 }), "sample_size = 5000"),
        (json!({ "sample_size": [8, 12, 3] }), "sample_size"),
        (json!({ "sample_size": 7 }), "sample_size"),
        (json!({ "sample_size": -8 }), "sample_size"),
        (json!({ "time_embedding_type": "rotary" }), "supported: positional, fourier, learned"),
        (json!({ "time_embedding_type": "learned" }), "num_train_timesteps = null"),
        // A path of pictures has three channels, whatever the network's.
        (json!({ "down_block_types": ["SkipDownBlock2D", "DownBlock2D"] }), "in_channels = 1 is not supported; 3"),
        (json!({ "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"] }), "out_channels = 1 is not supported; 3"),
        (
            json!({ "up_block_types": ["SkipUpBlock2D", "UpBlock2D"], "out_channels": 3 }),
            "up_block_types = other blocks",
        ),
        (
            json!({ "down_block_types": ["SkipDownBlock2D", "DownBlock2D"], "norm_num_groups": null }),
            "norm_num_groups = null",
        ),
        (json!({ "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"] }), "it attends to a text"),
        (json!({ "up_block_types": ["UpBlock2D"] }), "up_block_types = 1 blocks"),
        (json!({ "down_block_types": "DownBlock2D" }), "down_block_types"),
        (json!({ "mid_block_type": "UNetMidBlock2DCrossAttn" }), "mid_block_type"),
        (json!({ "resnet_time_scale_shift": "spatial" }), "supported: default, scale_shift"),
        (json!({ "class_embed_type": "projection" }), "supported: null, timestep, identity"),
        (
            json!({ "class_embed_type": "timestep", "num_class_embeds": 3, "time_embedding_type": "learned",
                    "num_train_timesteps": 2 }),
            "time_proj.weight",
        ),
        (json!({ "class_embed_type": "identity" }), "as class_embeddings in waft.json"),
        (json!({ "act_fn": "elu" }), "supported: silu, swish, mish, gelu, relu"),
        (json!({ "attn_norm_num_groups": 3 }), "attn_norm_num_groups = 3"),
        (json!({ "downsample_type": "pool" }), "supported: conv, resnet"),
        (json!({ "upsample_type": "pool" }), "upsample_type"),
        (json!({ "downsample_padding": 2 }), "downsample_padding = 2"),
        (json!({ "norm_num_groups": 3 }), "norm_num_groups = 3"),
        (json!({ "norm_num_groups": 0 }), "norm_num_groups = 0"),
        (json!({ "norm_eps": 0.0 }), "norm_eps"),
        (json!({ "norm_eps": "small" }), "norm_eps"),
        (json!({ "attention_head_dim": 17 }), "attention_head_dim = 17 is not supported; at most the 8 channels"),
        (json!({ "layers_per_block": 0 }), "layers_per_block"),
        (json!({ "layers_per_block": 1e9 }), "layers_per_block"),
        (json!({ "block_out_channels": [8, 1_000_000] }), "block_out_channels"),
        (json!({ "block_out_channels": [] }), "block_out_channels"),
        (json!({ "center_input_sample": 1 }), "center_input_sample = 1"),
        (json!({ "mid_block_scale_factor": 0 }), "mid_block_scale_factor"),
        (json!({ "freq_shift": 4 }), "freq_shift"),
        (json!({ "encoder_hid_dim": 4 }), "encoder_hid_dim = 4"),
    ];
    for (fields, expected) in cases {
        let refusal = Draft::of("heads").with(&fields).refusal();
        assert!(refusal.contains(expected), "{fields}: {refusal}");
    }
}

/// As `bool(None)` in diffusers' conditions; with null for a number, a list or a name it does not run, but for two names whose
/// absence it tests.
#[test]
fn nulls_mean_what_diffusers_makes_of_them() {
    let of = |fields: Value| format!("{:?}", Draft::of("heads").with(&fields).import().expect("imports"));
    for (field, default) in [("flip_sin_to_cos", true), ("center_input_sample", false)] {
        let [null, no, yes] = [Value::Null, false.into(), true.into()].map(|value| of(json!({ field: value })));
        assert!(null == no && no != yes, "{field}");
        let mut draft = Draft::of("heads");
        draft.config.remove(field);
        assert_eq!(format!("{:?}", draft.import().expect("imports")), if default { yes } else { no }, "{field}");
    }
    // `heads` was made without attention in its middle.
    assert_eq!(of(json!({ "add_attention": null })), of(json!({ "add_attention": false })));
    assert!(
        Draft::of("cifar_small").with(&json!({ "add_attention": null })).refusal().contains("mid_block.attentions")
    );
    for field in ["downsample_type", "upsample_type"] {
        assert_eq!(of(json!({ field: null })), of(json!({ field: "conv" })));
    }
    for field in [
        "act_fn",
        "block_out_channels",
        "down_block_types",
        "downsample_padding",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_scale_factor",
        "norm_eps",
        "out_channels",
        "resnet_time_scale_shift",
        "time_embedding_type",
        "up_block_types",
    ] {
        let refusal = Draft::of("heads").with(&json!({ field: null })).refusal();
        assert!(refusal.contains(&format!("{field} = null")), "{refusal}");
    }
}

#[test]
fn every_block_is_in_a_checkpoint_of_diffusers() {
    let folders = std::fs::read_dir(golden("")).expect("goldens").map(|entry| entry.expect("readable").path());
    let configs: String = folders.filter_map(|path| std::fs::read_to_string(path.join("config.json")).ok()).collect();
    for field in ["down_block_types", "up_block_types"] {
        let refusal = Draft::of("heads").with(&json!({ field: ["Block", "Block"] })).refusal();
        let (_, supported) = refusal.split_once("supported: ").expect(&refusal);
        let names: Vec<&str> = supported.split(", ").map(str::trim).collect();
        assert!(names.len() >= 5, "{refusal}");
        for name in names {
            assert!(configs.contains(&format!("\"{name}\"")), "tests/goldens/make.py makes no checkpoint with {name}");
        }
    }
}

/// What a configuration says and tensors do not.
const UNTOLD: [&str; 11] = [
    "sample_size",
    "norm_num_groups",
    "norm_eps",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "attention_head_dim",
    "attn_norm_num_groups",
    "center_input_sample",
    "mid_block_scale_factor",
    "act_fn",
];

#[test]
fn a_state_dictionary_tells_what_its_tensors_tell() {
    for name in ["cifar_small", "heads", "velocity", "resampling", "scale_shift", "class_timestep", "conditioned"] {
        let mut draft = Draft::of(name);
        let whole = draft.import().expect("imports");
        draft.config.retain(|field, _| UNTOLD.contains(&field.as_str()));
        let found = draft.import().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(weights(&found), weights(&whole), "{name}");
        let shapes = |graph: &Graph| graph.tensors.iter().map(|tensor| tensor.shape).collect::<Vec<_>>();
        assert_eq!(shapes(&found), shapes(&whole), "{name}");
        assert_eq!(found.classes.is_some(), whole.classes.is_some(), "{name}");
        let notes = |draft: &Draft| Checkpoint::open(draft.folder.path()).expect("opens").notes().to_vec();
        let told: String = notes(&draft).iter().map(ToString::to_string).collect();
        assert!(told.contains("down_block_types = [") && !told.contains("act_fn"), "{name}: {told}");
        draft.config.remove("act_fn");
        draft.write_to(draft.folder.path());
        let told: String = notes(&draft).iter().map(ToString::to_string).collect();
        assert!(told.contains("a UNet2DModel's") && told.contains("act_fn"), "{name}: {told}");
    }
}

#[test]
fn what_a_state_dictionary_does_not_tell_is_asked_for() {
    let state = |name: &str| {
        let mut draft = Draft::of(name);
        draft.config.retain(|field, _| UNTOLD.contains(&field.as_str()));
        draft
    };
    let cases = [
        (state("heads").with(&json!({ "sample_size": null })), "sample_size = null"),
        (state("heads").with(&json!({ "layers_per_block": 2 })), "layers_per_block = 2, and the tensors say 1"),
        (state("heads").with(&json!({ "add_attention": true })), "add_attention = true, and the tensors say false"),
        (state("filtered"), "down_block_types is not stated"),
        (
            state("filtered").with(&json!({ "down_block_types": ["AttnSkipDownBlock2D", "SkipDownBlock2D"] })),
            "up_block_types is not stated",
        ),
    ];
    for (draft, expected) in cases {
        let refusal = draft.refusal();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let draft = state("filtered").with(&json!({
        "down_block_types": ["AttnSkipDownBlock2D", "SkipDownBlock2D"],
        "up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D"],
    }));
    assert_eq!(weights(&draft.import().expect("imports")), weights(&Draft::of("filtered").import().expect("imports")));
    // Without any configuration.
    let draft = state("heads");
    draft.write_to(draft.folder.path());
    std::fs::remove_file(draft.folder.path().join("config.json")).expect("removes");
    let refusal = draft.import_again().expect_err("refused").to_string();
    assert!(refusal.contains("what its call stated and tensors do not tell"), "{refusal}");
}

#[test]
fn tensors_that_do_not_fit_are_named_with_both_shapes() {
    let key = "mid_block.resnets.0.conv1.weight".to_string();
    let mut draft = Draft::of("heads");
    let tensor = draft.tensors.remove(&key).expect("present");
    let refusal = draft.refusal();
    assert!(refusal.contains(&key) && refusal.contains("mid_block.resnets.0"), "{refusal}");

    draft.tensors.insert(key.clone(), (Dtype::F32, vec![16, 16, 9], tensor.2.clone()));
    let refusal = draft.refusal();
    assert!(refusal.contains("[16, 16, 9]") && refusal.contains("[16, 16, 3, 3]"), "{refusal}");

    let mut data = tensor.2.clone();
    data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    draft.tensors.insert(key.clone(), (Dtype::F32, tensor.1.clone(), data));
    assert!(matches!(draft.import(), Err(ImportError::Checkpoint(CheckpointError::NotFinite { .. }))));

    draft.tensors.insert(key, tensor.clone());
    draft.tensors.insert("mystery.weight".into(), tensor);
    assert!(draft.refusal().contains("mystery.weight"), "a tensor that nothing reads means a misunderstood network");
}

/// Timesteps that the network has no embedding of.
#[test]
fn timesteps_without_an_embedding_are_named() {
    for (name, timestep, reason) in [("fourier", 0, "must be above 0"), ("scale_shift", 1000, "0 to 999 only")] {
        let error =
            predictor(&Checkpoint::open(golden(name)).expect("opens"), &[timestep]).expect_err("refused").to_string();
        assert!(error.contains(&format!("timestep {timestep}: ")) && error.contains(reason), "{error}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let draft = Draft::of("velocity");
    let folder = draft.folder.path();
    draft.write_to(folder);
    let whole = std::fs::read(folder.join(WEIGHTS)).expect("written");
    for len in [0, 7, 8, 100, whole.len() - 1] {
        std::fs::write(folder.join(WEIGHTS), &whole[..len]).expect("writes");
        assert!(Checkpoint::open(folder).is_err(), "{len} bytes");
    }
    std::fs::write(folder.join(WEIGHTS), &whole).expect("writes");
    std::fs::write(folder.join("config.json"), "{").expect("writes");
    assert!(Checkpoint::open(folder).expect_err("refused").to_string().contains("config.json"));
    draft.write_to(folder);
    for (file, text) in [
        ("waft.json", r#"{"naem": "x"}"#),
        ("scheduler_config.json", r#"{"beta_schedule": "sigmoid"}"#),
        ("scheduler_config.json", r#"{"prediction_type": "flow"}"#),
        ("scheduler_config.json", r#"{"num_train_timesteps": 1000000000}"#),
        ("scheduler_config.json", r#"{"trained_betas": [2.0], "num_train_timesteps": 1}"#),
    ] {
        std::fs::write(folder.join(file), text).expect("writes");
        let error = Checkpoint::open(folder).err().unwrap_or_else(|| panic!("{text} must be refused"));
        assert!(error.to_string().contains(file), "{text}: {error}");
        std::fs::remove_file(folder.join(file)).expect("removes");
    }
}
