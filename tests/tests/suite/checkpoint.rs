//! Checkpoints in the forms in which people have them: where their files lie, what kind they are, and what is said.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use waft::format::Precision;
use waft_host::checkpoint::{Checkpoint, CheckpointError, Note, Options};
use waft_host::export::{ExportOptions, export, predictor};
use waft_host::import::{ImportError, import, import_for_sampling};
use waft_tests::{golden, random_checkpoint};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const SCHEDULER: &str = "scheduler_config.json";

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes a file and the folders that it lies in.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("creates");
    fs::write(path, bytes).expect("writes");
}

fn scheduler(steps: usize) -> String {
    json!({ "_class_name": "DDPMScheduler", "num_train_timesteps": steps }).to_string()
}

/// Puts the golden `velocity` into a folder, without its scheduler.
fn model(folder: &Path) {
    for file in ["config.json", WEIGHTS] {
        write(&folder.join(file), fs::read(golden("velocity").join(file)).expect("golden"));
    }
}

fn refusal(path: &Path) -> String {
    Checkpoint::open(path).expect_err("refused").to_string()
}

fn train_steps(path: &Path) -> usize {
    let opened = Checkpoint::open(path).expect("opens");
    opened.scheduler().expect("found").num_train_timesteps()
}

fn says(checkpoint: &Checkpoint, note: &Note) -> bool {
    checkpoint.notes().contains(note)
}

#[test]
fn a_scheduler_is_found_wherever_diffusers_puts_it() {
    for (steps, place) in [(11, "scheduler/scheduler_config.json"), (12, SCHEDULER), (13, "unet/scheduler_config.json")]
    {
        let folder = temporary();
        model(&folder.path().join("unet"));
        write(&folder.path().join(place), scheduler(steps));
        assert_eq!(train_steps(folder.path()), steps, "{place}, from the pipeline");
        assert_eq!(train_steps(&folder.path().join("unet")), steps, "{place}, from the U-Net");
    }
    // A model that is no part of a pipeline: what its parent holds may belong to anything.
    let folder = temporary();
    model(&folder.path().join("mine"));
    write(&folder.path().join(SCHEDULER), scheduler(9));
    let error = Checkpoint::open(folder.path().join("mine")).expect("opens").scheduler().expect_err("none").to_string();
    assert!(error.contains("give the scheduler") && error.contains(SCHEDULER), "{error}");
}

#[test]
fn two_schedulers_that_differ_are_told() {
    let folder = temporary();
    model(&folder.path().join("unet"));
    let (inner, outer) = (folder.path().join("scheduler").join(SCHEDULER), folder.path().join(SCHEDULER));
    write(&inner, scheduler(50));
    write(&outer, scheduler(50));
    assert_eq!(Checkpoint::open(folder.path()).expect("opens").notes(), []);
    write(&outer, scheduler(60));
    let opened = Checkpoint::open(folder.path()).expect("opens");
    assert_eq!(opened.scheduler_path(), Some(inner.as_path()));
    assert!(says(&opened, &Note::OtherScheduler { taken: inner, other: outer }));
}

#[test]
fn a_missing_scheduler_is_told_and_one_that_is_given_is_taken() {
    let folder = temporary();
    let unet = folder.path().join("checkpoint-500/unet");
    model(&unet);
    for path in [&unet, &folder.path().join("checkpoint-500")] {
        let opened = Checkpoint::open(path).expect("opens");
        let options = ExportOptions { precision: Precision::F32, steps: vec![2], ..ExportOptions::default() };
        let notes = export(&opened, &options, &()).expect("exports").report.notes.join("\n");
        assert!(notes.contains("took the defaults") && notes.contains("give the scheduler"), "{notes}");
        predictor(&opened, &[3]).expect("a single call needs no scheduler");
    }
    let given = folder.path().join("elsewhere").join("my.json");
    write(&given, scheduler(70));
    let options = Options { scheduler_config: Some(given), ..Options::default() };
    let opened = Checkpoint::open_with(&unet, &options).expect("opens");
    assert_eq!(opened.scheduler().expect("given").num_train_timesteps(), 70);
    // The end of a training run leaves one above its checkpoints: it is named, not taken.
    write(&folder.path().join("scheduler").join(SCHEDULER), scheduler(80));
    let error = Checkpoint::open(folder.path().join("checkpoint-500")).expect("opens").scheduler().expect_err("none");
    assert!(error.to_string().contains("may be it"), "{error}");
}

#[test]
fn averaged_weights_are_read_and_told() {
    let folder = temporary();
    model(&folder.path().join("unet"));
    let averaged = folder.path().join("unet_ema");
    model(&averaged);
    let mut config: serde_json::Map<_, _> =
        serde_json::from_slice(&fs::read(averaged.join("config.json")).expect("written")).expect("JSON");
    let fields = json!({
        "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 0, "power": 0.6667,
        "update_after_step": 0, "use_ema_warmup": false,
    });
    config.extend(fields.as_object().expect("an object").clone());
    write(&averaged.join("config.json"), serde_json::Value::from(config).to_string());
    let opened = Checkpoint::open(&averaged).expect("opens");
    import(&opened).expect("imports");
    assert!(says(&opened, &Note::Averaged));
    let opened = Checkpoint::open(folder.path()).expect("opens");
    assert!(says(&opened, &Note::AveragedBeside { folder: averaged }));
}

#[test]
fn the_only_variant_is_taken_and_of_several_one_is_asked_for() {
    let folder = temporary();
    model(folder.path());
    let variant = |name: &str| folder.path().join(format!("diffusion_pytorch_model.{name}.safetensors"));
    fs::rename(folder.path().join(WEIGHTS), variant("fp16")).expect("renames");
    let opened = Checkpoint::open(folder.path()).expect("opens");
    import(&opened).expect("imports");
    assert!(says(&opened, &Note::Variant { variant: "fp16".into() }));

    fs::copy(variant("fp16"), variant("non_ema")).expect("copies");
    let error = refusal(folder.path());
    assert!(error.contains("fp16, non_ema") && error.contains("choose"), "{error}");
    let ask = |variant: &str| {
        let options = Options { variant: Some(variant.into()), ..Options::default() };
        Checkpoint::open_with(folder.path(), &options)
    };
    import(&ask("non_ema").expect("opens")).expect("imports");
    assert!(ask("bf16").expect_err("refused").to_string().contains("fp16, non_ema"));

    fs::copy(variant("fp16"), folder.path().join(WEIGHTS)).expect("copies");
    assert_eq!(Checkpoint::open(folder.path()).expect("opens").notes(), [], "the plain one needs no word");

    // In shards: diffusers puts the variant into the names of the index and of the shards.
    fs::remove_file(folder.path().join(WEIGHTS)).expect("removes");
    fs::remove_file(variant("non_ema")).expect("removes");
    fs::rename(variant("fp16"), variant("fp16-00001-of-00001")).expect("renames");
    let map = json!({ "weight_map": { "conv_in.weight": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors" } });
    write(&folder.path().join("diffusion_pytorch_model.safetensors.index.fp16.json"), map.to_string());
    let opened = Checkpoint::open(folder.path()).expect("opens");
    import(&opened).expect("imports");
    assert!(says(&opened, &Note::Variant { variant: "fp16".into() }));
}

#[test]
fn weights_of_another_name_are_taken_if_there_is_one() {
    let folder = temporary();
    model(folder.path());
    let (weights, other) = (folder.path().join(WEIGHTS), folder.path().join("model.safetensors"));
    fs::rename(&weights, &other).expect("renames");
    write(&folder.path().join("optimizer.bin"), "not weights");
    write(&folder.path().join("pytorch_lora_weights.safetensors"), "an adapter");
    let opened = Checkpoint::open(folder.path()).expect("opens");
    import(&opened).expect("imports");
    assert!(says(&opened, &Note::File { path: other.clone() }));
    assert!(opened.notes().iter().any(|note| matches!(note, Note::Adapter { .. })));
    write(&folder.path().join("second.safetensors"), "");
    let error = refusal(folder.path());
    assert!(error.contains("model.safetensors, second.safetensors"), "{error}");
    import(&Checkpoint::open(&other).expect("the file itself")).expect("imports");
}

#[test]
fn what_is_no_checkpoint_is_named_for_what_it_is() {
    let folder = temporary();
    let path = folder.path();
    assert!(refusal(path).contains("empty"));
    assert!(refusal(&path.join("missing")).contains("no such file or folder"));
    let hub = refusal(Path::new("google/ddpm-cifar10-32"));
    assert!(hub.contains("hf download google/ddpm-cifar10-32"), "{hub}");

    model(&path.join("run/checkpoint-7/unet"));
    let near = refusal(&path.join("run"));
    assert!(near.contains("checkpoint-7"), "{near}");
    write(&path.join("alone").join(WEIGHTS), "");
    assert!(refusal(&path.join("alone")).contains("configuration beside"));

    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    for (bytes, expected) in [
        (pointer.as_bytes(), "git lfs pull"),
        (b"", "empty file"),
        (b"\x80\x02}.", "before 1.6"),
        (b"PK\x03\x04", "not a zip archive"),
        (b"<!DOCTYPE html>", "neither safetensors"),
    ] {
        model(&path.join("damaged"));
        write(&path.join("damaged").join(WEIGHTS), bytes);
        let error = refusal(&path.join("damaged"));
        assert!(error.contains(expected) && error.contains(WEIGHTS), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_there_and_is_no_file_is_not_taken_for_absent() {
    use std::os::unix::fs::symlink;
    let folder = temporary();
    let pipeline = folder.path();
    let reset = || {
        fs::remove_dir_all(pipeline).expect("removes");
        model(&pipeline.join("unet"));
        write(&pipeline.join("scheduler").join(SCHEDULER), scheduler(9));
        write(&pipeline.join("model_index.json"), "{}");
        write(&pipeline.join("waft.json"), "{}");
    };
    for name in ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "waft.json", "unet/w"] {
        let name = name.replace("unet/w", &format!("unet/{WEIGHTS}"));
        let path = pipeline.join(&name);
        reset();
        fs::remove_file(&path).expect("removes");
        fs::create_dir(&path).expect("creates");
        assert!(refusal(pipeline).contains(&format!("{name}: a folder, where a file is expected")), "{name}");
        reset();
        fs::remove_file(&path).expect("removes");
        // As a download leaves it whose files were moved away.
        symlink("../../blobs/gone", &path).expect("links");
        let error = refusal(pipeline);
        assert!(error.contains(&format!("{name}: a link that leads nowhere")), "{name}: {error}");
    }
    reset();
    let [real, link] = ["real.json", "scheduler/scheduler_config.json"].map(|name| pipeline.join(name));
    fs::rename(&link, &real).expect("moves");
    symlink(&real, &link).expect("links");
    assert_eq!(train_steps(pipeline), 9);
    assert!(refusal(Path::new("/dev/null")).contains("a device"));
}

#[test]
fn prefixes_of_all_keys_are_taken_off_and_others_are_told() {
    let plain = fs::read(golden("velocity").join(WEIGHTS)).expect("golden");
    let tensors = safetensors::SafeTensors::deserialize(&plain).expect("safetensors");
    let folder = temporary();
    let with = |prefix: &dyn Fn(usize) -> String| {
        model(folder.path());
        let named = tensors.iter().enumerate().map(|(at, (key, view))| (prefix(at) + key, view));
        write(&folder.path().join(WEIGHTS), safetensors::serialize(named, None).expect("serializes"));
        Checkpoint::open(folder.path()).expect("opens")
    };
    let expected = import(&with(&|_| String::new())).expect("imports");
    for prefix in ["module.", "_orig_mod.", "module._orig_mod.", "_forward_module.", "net.", "ema.", "model.unet."] {
        let opened = with(&|_| prefix.into());
        assert_eq!(opened.notes()[0], Note::Wrapper { prefix: prefix.into() });
        assert_eq!(format!("{:?}", import(&opened).expect("imports")), format!("{expected:?}"), "{prefix}");
    }
    // Not a wrapper's name; not all keys.
    let refusal = import(&with(&|_| "student.".into())).expect_err("refused").to_string();
    assert!(refusal.contains("there is \"student."), "{refusal}");
    let refusal = import(&with(&|at| ["module.", ""][at % 2].into())).expect_err("refused").to_string();
    assert!(refusal.contains("there is \"module."), "{refusal}");
}

#[test]
fn a_size_can_be_given() {
    let folder = temporary();
    model(folder.path());
    let config = fs::read_to_string(folder.path().join("config.json")).expect("written");
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&config).expect("JSON");
    let trained = config.insert("sample_size".into(), serde_json::Value::Null).expect("present");
    write(&folder.path().join("config.json"), json!(config).to_string());
    let error = import(&Checkpoint::open(folder.path()).expect("opens")).expect_err("refused").to_string();
    assert!(error.contains("sample_size = null") && error.contains("give the height and width"), "{error}");
    let options = Options { size: Some([5, 9]), ..Options::default() };
    let opened = Checkpoint::open_with(folder.path(), &options).expect("opens");
    let graph = import(&opened).expect("imports");
    assert_eq!((graph.shape(graph.output).h, graph.shape(graph.output).w), (5, 9));
    assert_eq!(opened.notes(), []);
    config.insert("sample_size".into(), trained);
    write(&folder.path().join("config.json"), json!(config).to_string());
    let opened = Checkpoint::open_with(folder.path(), &options).expect("opens");
    assert!(says(&opened, &Note::Size { size: [5, 9], configured: "6".into() }));
}

#[test]
fn latents_are_not_drawn_as_pictures() {
    for (part, named) in [("vqvae", true), ("vae", true), ("vae", false)] {
        let folder = temporary();
        let path = folder.path();
        model(&path.join("unet"));
        write(&path.join("scheduler").join(SCHEDULER), scheduler(100));
        write(&path.join(part).join("config.json"), "{}");
        let mut index = json!({ "_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"] });
        if named {
            index[part] = json!(["diffusers", "Decoder"]);
            index["text_encoder"] = json!(["transformers", "CLIPTextModel"]);
            index["safety_checker"] = json!([null, null]);
        }
        write(&path.join("model_index.json"), index.to_string());
        for path in [path.to_path_buf(), path.join("unet")] {
            let opened = Checkpoint::open(&path).expect("opens");
            let error = export(&opened, &ExportOptions::default(), &()).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains("latents"), "{error}");
            predictor(&opened, &[3]).expect("a single call of the network");
            let text = Note::Part { name: "text_encoder".into(), class: "CLIPTextModel".into() };
            assert_eq!(says(&opened, &text), named);
        }
    }
}

#[test]
fn channels_that_differ_are_refused_where_they_are_drawn_and_not_where_they_are_called() {
    let folder = temporary();
    for (inputs, outputs) in [(1, 3), (3, 5)] {
        let config = json!({
            "_class_name": "UNet2DModel", "sample_size": 4, "in_channels": inputs, "out_channels": outputs,
            "block_out_channels": [4], "layers_per_block": 1, "norm_num_groups": 2,
            "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "attention_head_dim": 4,
        });
        random_checkpoint(folder.path(), &config);
        let opened = Checkpoint::open(folder.path()).expect("opens");
        let error = import_for_sampling(&opened).expect_err("refused");
        assert!(matches!(error, ImportError::Channels { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
        predictor(&opened, &[3]).expect("a single call of the network");
    }
}

/// A pickle that PyTorch wrote, without a configuration.
fn pickled(name: &str) -> Result<Checkpoint, CheckpointError> {
    let bytes = fs::read(golden("pickles").join(name)).expect("golden");
    Checkpoint::from_bytes("{}", None, bytes)
}

/// Holds a pickle's tensors against the same values as safetensors.
fn check_tensors(checkpoint: &Checkpoint) {
    let expected = waft_host::tensors::read(&golden("pickles/expected.safetensors")).expect("golden");
    for key in ["plain", "half", "brain", "transposed", "offset", "scalar", "shared", "parameter"] {
        let (shape, values) = expected.f32(key).expect("golden");
        assert_eq!(checkpoint.tensor(key, &shape).expect("read"), values, "{key}");
    }
    for (key, dtype) in [("counter", "I64"), ("double", "F64"), ("flag", "BOOL")] {
        let error = checkpoint.tensor(key, &[]).expect_err("no weight").to_string();
        assert!(error.contains(dtype), "{error}");
    }
}

#[test]
fn state_dictionaries_of_torch_save_are_read() {
    for name in ["state_dict.bin", "protocol4.bin"] {
        let checkpoint = pickled(name).expect("opens");
        check_tensors(&checkpoint);
        assert_eq!(checkpoint.notes(), []);
    }
}

#[test]
fn a_state_dictionary_inside_of_a_training_state_is_found_and_told() {
    let checkpoint = pickled("training.ckpt").expect("opens");
    check_tensors(&checkpoint);
    let nested = Note::Nested { key: "ema".into(), others: vec!["model".into()] };
    assert_eq!(checkpoint.notes(), [nested, Note::Wrapper { prefix: "module._orig_mod.".into() }]);
}

#[test]
fn whatever_else_a_pickle_does_is_refused_by_name() {
    for (name, expected) in [
        ("module.bin", "collections.defaultdict"),
        ("code.bin", "posix.system"),
        ("legacy.bin", "before 1.6"),
        ("list.bin", "dictionary of tensors"),
        ("unnamed.bin", "its keys are [\"weights\"]"),
    ] {
        let error = pickled(name).expect_err("refused").to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// The bytes of the golden snapshot with some of them replaced by as many, wherever they are.
fn snapshot(from: &str, to: &str) -> Vec<u8> {
    replaced(&fs::read(golden("edm/network-snapshot-000001.pkl")).expect("golden"), from, to)
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from}");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    bytes
}

#[test]
fn a_snapshot_is_a_network_with_its_noise() {
    let folder = temporary();
    let path = folder.path().join("network-snapshot-000001.pkl");
    write(&path, snapshot("SongUNet", "SongUNet"));
    let opened = Checkpoint::open(&path).expect("opens");
    assert_eq!(opened.scheduler().expect("its own").class_name(), "EDMEulerScheduler");
    import_for_sampling(&opened).expect("imports");
    // A scheduler that lies beside it is taken.
    write(&folder.path().join(SCHEDULER), json!({ "_class_name": "EDMEulerScheduler", "sigma_data": 0.7 }).to_string());
    let opened = Checkpoint::open(&path).expect("opens");
    assert_eq!(opened.scheduler_path(), Some(folder.path().join(SCHEDULER).as_path()));
    let refusal = refusal(folder.path());
    assert!(refusal.contains("give the path of the file"), "{refusal}");
}

/// A network that was trained with a tenth of its labels left out knows "no class", behind its three.
#[test]
fn a_snapshot_says_whether_it_knows_no_class() {
    let classes = |label_dropout: &str| {
        let folder = temporary();
        let path = folder.path().join("network-snapshot-000001.pkl");
        let bytes = fs::read(golden("edm_classes/network-snapshot-000001.pkl")).expect("golden");
        write(&path, replaced(&bytes, "label_dropout", label_dropout));
        let opened = Checkpoint::open(&path).expect("opens");
        let graph = import(&opened).expect("imports");
        (graph.classes.expect("classes").classes, opened.defaults().unconditional_class)
    };
    assert_eq!(classes("label_dropout"), (4, Some(3)));
    assert_eq!(classes("label_drapout"), (3, None));
}

#[test]
fn snapshots_of_other_networks_are_refused_by_name() {
    let cases = [
        ("SongUNet", "ANY_UNet", "its network is a \"ANY_UNet\""),
        ("EDMPrecond", "VP_Precond", "its preconditioning is \"VP_Precond\""),
        ("ModuleDict", "ModuleDoct", "torch.nn.modules.container.ModuleDoct is not imported"),
        ("_reconstruct_persistent_obj", "_reconstruct_persistent_abc", "_reconstruct_persistent_abc is not imported"),
        ("map_layer1", "map_lager1", "there is no map_layer0 or map_layer1"),
        ("aux_residual", "aux_resudial", "aux_resudial"),
        ("map_augment", "map_label__", "map_label__"),
        ("4x4_down", "7x4_down", "enc.4x4_down"),
    ];
    for (from, to, expected) in cases {
        let opened = Checkpoint::from_bytes("{}", None, snapshot(from, to));
        let refusal = match opened {
            Ok(opened) => import(&opened).map(|_| String::new()).unwrap_or_else(|error| error.to_string()),
            Err(error) => error.to_string(),
        };
        assert!(refusal.contains(expected), "{from} → {to}: {refusal}");
    }
}

#[test]
fn damaged_snapshots_are_refused() {
    let whole = snapshot("SongUNet", "SongUNet");
    for len in (0..whole.len()).step_by(997) {
        assert!(Checkpoint::from_bytes("{}", None, whole[..len].to_vec()).is_err(), "{len}");
    }
    // Whatever a flipped bit makes of it, it is refused or a network.
    for at in (0..whole.len()).step_by(613) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        if let Ok(opened) = Checkpoint::from_bytes("{}", None, bytes) {
            let _ = import_for_sampling(&opened);
        }
    }
}

#[test]
fn damaged_pickles_are_refused() {
    let whole = fs::read(golden("pickles/state_dict.bin")).expect("golden");
    for len in (0..whole.len()).step_by(97) {
        assert!(Checkpoint::from_bytes("{}", None, whole[..len].to_vec()).is_err(), "{len} bytes");
    }
    // A flipped bit of a storage is seen by its checksum.
    let values = 1.25f32.to_le_bytes();
    let at = whole.windows(4).position(|bytes| bytes == values).expect("the first value of `plain`");
    let mut flipped = whole;
    flipped[at] ^= 1;
    assert!(Checkpoint::from_bytes("{}", None, flipped).expect_err("refused").to_string().contains("damaged"));
}
