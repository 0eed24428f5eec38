//! What each command prints and writes.

use std::path::Path;
use std::process::Command;

use crate::{failure, golden, json, root, text, waft};

#[test]
fn export_and_sample_from_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("d.waft");
    let report = json(&[
        "export-weights",
        &golden("heads"),
        "--precision",
        "i8",
        "--steps",
        "4",
        "--calib",
        "2",
        "--out",
        text(&file),
        "--json",
    ]);
    for key in ["flash_bytes", "arena_bytes", "arena_lower_bound_bytes", "macs_per_step", "params"] {
        assert!(report[key].as_u64().is_some_and(|n| n > 0), "{key}: {report}");
    }
    assert_eq!((report["precision"].as_str(), report["steps"].as_u64()), (Some("i8"), Some(4)));
    assert_eq!(report["flash_bytes"], std::fs::metadata(&file).expect("written").len());

    let draw = |extra: &[&str]| {
        json(&[&["sample", "--model", text(&file), "--seed", "3", "--count", "5", "--json"], extra].concat())
    };
    let plain = draw(&[]);
    assert_eq!(plain["digest"].as_str().map(str::len), Some(64));
    assert_eq!(plain["digest"], draw(&["--steps", "4"])["digest"]);
    let (png, gif, samples) =
        (folder.path().join("a.png"), folder.path().join("a.gif"), folder.path().join("a.safetensors"));
    for path in [&png, &gif, &samples] {
        assert_eq!(plain["digest"], draw(&["--out", text(path)])["digest"]);
    }
    assert!(std::fs::read(&png).expect("written").starts_with(b"\x89PNG"));
    assert!(std::fs::read(&gif).expect("written").starts_with(b"GIF89a"));
    let found = waft_host::tensors::read(&samples).expect("safetensors").f32("sample").expect("sample");
    assert_eq!(found.0, [5, 1, 8, 12]);
    assert!(found.1.iter().all(|v| (-1.0..=1.0).contains(v)));
    draw(&["--out", text(&png), "--trajectory"]);

    // The same export gives the same file, bit for bit.
    let again = folder.path().join("again.waft");
    json(&[
        "export-weights",
        &golden("heads"),
        "--precision",
        "i8",
        "--steps",
        "4",
        "--calib",
        "2",
        "--out",
        text(&again),
        "--json",
    ]);
    assert!(std::fs::read(&file).expect("written") == std::fs::read(&again).expect("written"));
    let shown = json(&["inspect", text(&file), "--svg", text(&folder.path().join("map.svg")), "--json"]);
    assert_eq!(shown["arena_bytes"], report["arena_bytes"]);
    assert!(std::fs::read_to_string(folder.path().join("map.svg")).expect("written").starts_with("<svg"));
}

#[test]
fn latents_replace_the_seed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let latents = folder.path().join("latents.safetensors");
    let values: Vec<f32> = (0..2 * 64).map(|i| ((i * 37) as f32 * 0.11).sin()).collect();
    waft_host::tensors::write(&latents, "latents", &[2, 1, 8, 8], &values).expect("writes");
    let sample = ["sample", "--model", "digits", "--class", "4", "--latents", text(&latents), "--json"];
    assert_eq!(json(&sample)["count"], 2);
    assert_eq!(json(&sample), json(&sample));
    let refused = failure(&[&sample[..], &["--seed", "1"]].concat());
    assert!(refused.contains("--seed has no effect"), "{refused}");

    waft_host::tensors::write(&latents, "latents", &[2, 8, 8, 1], &values).expect("writes");
    let error = failure(&["sample", "--model", "digits", "--latents", text(&latents)]);
    assert!(error.contains("(N, 1, 8, 8)"), "{error}");
}

#[test]
fn predict_agrees_with_diffusers_and_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let input = golden("velocity_predict.safetensors");
    assert!(waft(&["predict", &golden("velocity"), "--input", &input, "--out", text(&out)]).status.success());
    let found = waft_host::tensors::read(&out).expect("safetensors").f32("out").expect("out");
    let expected = waft_host::tensors::read(Path::new(&input)).expect("safetensors").f32("out").expect("out");
    assert_eq!(found.0, expected.0);
    let worst = found.1.iter().zip(&expected.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-4, "{worst}");

    let absent = folder.path().join("absent.safetensors");
    let error = failure(&["predict", &golden("heads"), "--input", &input, "--out", text(&absent)]);
    assert!(error.contains("shape") && !absent.exists(), "{error}");
}

#[test]
fn mistakes_are_named_and_leave_no_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("x.waft");
    let heads = golden("heads");
    let export = |extra: &[&str]| failure(&[&["export-weights", &heads, "--out", text(&out)], extra].concat());
    assert!(export(&["--steps", "0"]).contains("1 to 1000"));
    assert!(export(&["--steps", "61"]).contains("take 6"), "a trailing list that diffusers gets wrong");
    assert!(export(&["--eta", "2"]).contains("between 0 and 1"));
    assert!(export(&["--guidance", "3"]).contains("unconditional_class"));
    assert!(export(&["--precision", "f64"]).contains("f32"));
    let scales = ["--step-scales", "true", "--steps", "10,20", "--calib", "1"];
    assert!(export(&scales).contains("at least 2"), "a list without a picture has no scales");
    assert!(failure(&["export-weights", "/nowhere", "--out", text(&out)]).contains("no such file"));
    assert!(
        !out.exists() && std::fs::read_dir(folder.path()).expect("exists").next().is_none(),
        "nothing is left over"
    );

    assert!(failure(&["sample", "--model", "nobody"]).contains("digits"), "the known models are listed");
    assert!(failure(&["sample", "--model", "digits", "--class", "11"]).contains("has 11"));
    assert!(failure(&["sample", "--model", "digits", "--count", "0"]).contains("--count"));
    assert!(failure(&["sample", "--model", "digits", "--out", "x.bmp"]).contains(".png"));
    let no_model = folder.path().join("not.waft");
    std::fs::write(&no_model, [0u8; 200]).expect("writes");
    assert!(failure(&["sample", "--model", text(&no_model)]).contains("WAFT"));
    assert!(failure(&["inspect", text(&no_model)]).contains("WAFT"));
}

/// The shipped file is what the exporter makes of the shipped checkpoint today.
#[test]
fn the_shipped_digits_file_is_reproducible() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("d.waft");
    let checkpoint = root().join("models").join("digits").join("checkpoint");
    for precision in ["i8", "f16"] {
        json(&["export-weights", text(&checkpoint), "--precision", precision, "--out", text(&out), "--json"]);
        let shipped = root().join("models").join("digits").join(format!("digits-{precision}.waft"));
        let same = std::fs::read(&out).expect("written") == std::fs::read(&shipped).expect("shipped");
        assert!(same, "export models/digits/checkpoint with --precision {precision} again, or find what changed");
    }
}

#[test]
fn streamed_weights_go_into_a_file_beside_the_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let export = |name: &str, more: &[&str]| {
        let file = folder.path().join(name);
        let arguments = ["export-weights", &golden("heads"), "--steps", "4", "--calib", "2", "--json", "--out"];
        (json(&[&arguments[..], &[text(&file)], more].concat()), file)
    };
    let (resident, resident_file) = export("resident.waft", &[]);
    let (streamed, streamed_file) = export("streamed.waft", &["--stream", "4096"]);
    assert_eq!(resident["weights_bytes"], 0);
    let weights = streamed_file.with_extension("weights");
    assert_eq!(streamed["weights_bytes"], std::fs::metadata(&weights).expect("written").len());
    assert!(streamed["flash_bytes"].as_u64() < resident["flash_bytes"].as_u64());
    let digest = |file: &Path| json(&["sample", "--model", text(file), "--seed", "3", "--json"])["digest"].clone();
    assert_eq!(digest(&streamed_file), digest(&resident_file));

    std::fs::write(&weights, b"short").expect("writes");
    let refused = failure(&["sample", "--model", text(&streamed_file), "--seed", "3"]);
    assert!(refused.contains("streamed.weights has 5 bytes"), "{refused}");
}

#[test]
fn signed_models_are_accepted_with_their_key_only() {
    use waft::signature::SignedModelError;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, key, out) =
        (folder.path().join("m.waft"), folder.path().join("waft.key"), folder.path().join("m.signed"));
    json(&["export-weights", &golden("heads"), "--steps", "2", "--precision", "f32", "--out", text(&model), "--json"]);
    let sign = ["sign", text(&model), "--key", text(&key), "--out", text(&out), "--json"];
    assert!(failure(&sign).contains("--new-key"), "a missing key is explained");
    assert!(!out.exists());
    let report = json(&[&sign[..], &["--new-key"]].concat());
    assert_eq!(json(&sign), report, "Ed25519 is deterministic");
    assert!(failure(&[&sign[..], &["--new-key"]].concat()).contains("cannot create the key"), "a key was overwritten");

    let public = report["public_key"].as_str().expect("text").to_string();
    let public: [u8; 32] = hex::decode(public).expect("hex").try_into().expect("32 bytes");
    let mut signed = std::fs::read(&out).expect("written");
    assert!(waft::Model::from_signed_bytes(&signed, &public).is_ok());
    // Any bit, of the model or of the signature; the model's own checks come after the signature's.
    for at in [0, 4, 12, 100, signed.len() / 2, signed.len() - 65, signed.len() - 64, signed.len() - 1] {
        signed[at] ^= 1;
        let refused = waft::Model::from_signed_bytes(&signed, &public).err();
        assert_eq!(refused, Some(SignedModelError::Signature), "bit 0 of byte {at}");
        signed[at] ^= 1;
    }
    let again = failure(&["sign", text(&out), "--key", text(&key), "--out", text(&folder.path().join("twice"))]);
    assert!(again.contains("signed already") && again.contains("sign the file that was exported"), "{again}");
    let mut other = public;
    other[0] ^= 1;
    assert!(waft::Model::from_signed_bytes(&signed, &other).is_err());
    // The neutral element, under which anything verifies without strictness.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(waft::Model::from_signed_bytes(&signed, &weak).err(), Some(SignedModelError::Key));
    assert_eq!(waft::Model::from_signed_bytes(&signed[..63], &public).err(), Some(SignedModelError::Signature));
}

#[test]
fn shards_make_the_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let quality = ["quality", "--model", "digits", "--backend", "cpu", "--count", "50", "--guidance", "2"];
    let whole = json(&[&quality[..], &["--json"]].concat());
    let draw = |shard: &str, seed: &str, out: &str| {
        let output = waft(&[&quality[..], &["--shard", shard, "--seed", seed, "--out", out]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for shard in 0..3 {
        draw(&format!("{shard}/3"), "20000", &path(&format!("{shard}.safetensors")));
    }
    let [first, second, third] = [0, 1, 2].map(|shard| path(&format!("{shard}.safetensors")));
    assert_eq!(json(&["merge", &third, &first, &second, "--json"]), whole);
    assert!(failure(&["merge", &first, &third]).contains("missing"));
    assert!(failure(&["merge", &first, &second]).contains("missing"));
    assert!(failure(&["merge", &first, &second, &second, &third]).contains("twice"));
    let other = path("other.safetensors");
    draw("1/3", "1", &other);
    assert!(failure(&["merge", &first, &other, &third]).contains("another evaluation"));
    let cut = path("cut.safetensors");
    std::fs::write(&cut, &std::fs::read(&first).expect("drawn")[..1000]).expect("writes");
    assert!(failure(&["merge", &cut]).contains("cut.safetensors"));
    assert!(failure(&[&quality[..], &["--shard", "3/3", "--out", &other]].concat()).contains("0 to n - 1"));
}

#[test]
fn parity_prints_its_contract() {
    let report = json(&["parity", "--model", "digits", "--precision", "i8", "--images", "8", "--json"]);
    assert_eq!((&report["backend"], &report["identical"]), (&"cpu".into(), &true.into()));
    assert_eq!(report["images"], 8);
    let ops = report["ops"].as_array().expect("a list");
    assert!(ops.len() > 50 && ops.iter().all(|op| op["mismatches"] == 0 && op["max_abs_err"] == 0.0));
}

/// The line of a picture in the README, from a folder without the repository, and from a copy of the program that finds no
/// sources.
#[test]
fn shipped_models_are_inside_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request =
        ["sample", "--model", "digits", "--class", "7", "--seed", "1", "--count", "16", "--steps", "10", "--json"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_waft")).args(request).current_dir(folder.path()).output().expect("runs");
    // `xtask/tests/cli.rs` expects the same line of the repository's spelling.
    let line = r#"{"channels":1,"count":16,"digest":"7e8f7135e827196ee92d406255a68de9049668e94db95259a9832819d255d125","height":8,"precision":"i8","width":8}"#;
    assert_eq!(String::from_utf8(output.stdout).expect("text"), format!("{line}\n"));
    assert!(json(&["inspect", "emoji", "--json"])["params"].as_u64().is_some_and(|n| n > 1_000_000));
}
