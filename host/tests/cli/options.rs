//! Options that contradict each other, the precision or the model, and values out of range, are refused by name.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use crate::{export, failure, golden, json, root, text, waft};

fn refused(arguments: &[&str], names: &[&str]) {
    let message = failure(arguments);
    for name in names {
        assert!(message.contains(name), "{arguments:?} must name {name}: {message}");
    }
}

#[test]
fn options_of_integers_are_refused_in_float_precisions() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("x.waft");
    for (option, value) in [
        ("--weights", "i4"),
        ("--weights", "i8"),
        ("--calib", "4"),
        ("--residual", "i16"),
        ("--rounding", "nearest"),
        ("--ranges", "minmax"),
        ("--bias-correction", "false"),
        ("--step-scales", "true"),
        ("--shortcuts", "joint"),
        ("--output-correction", "true"),
        ("--budget-ram", "10000"),
        ("--budget-flash", "10000"),
        ("--core", "Cortex-M55"),
    ] {
        for precision in ["f16", "f32"] {
            let heads = golden("heads");
            let arguments = ["export-weights", &heads, "--out", text(&out), "--precision", precision, option, value];
            refused(&arguments, &[option, "i8"]);
        }
    }
    let heads = golden("heads");
    let export = ["export-weights", &heads, "--out", text(&out)];
    refused(&[&export[..], &["--calib", "0"]].concat(), &["--calib"]);
    refused(&[&export[..], &["--stream", "0"]].concat(), &["--stream"]);
    refused(&[&export[..], &["--budget-ram", "9", "--residual", "i8"]].concat(), &["--budget-ram", "--residual"]);
    refused(
        &[&export[..], &["--core", "Cortex-M9"]].concat(),
        &["--core", "Cortex-M9", "Cortex-M0+", "thumbv6m-none-eabi"],
    );
    refused(&[&export[..], &["--guidance", "nan"]].concat(), &["--guidance", "-1000 and 1000"]);
    assert!(!out.exists());
}

#[test]
fn contradictions_of_a_request_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let (latents, png) = (path("l.safetensors"), path("a.png"));
    waft_host::tensors::write(Path::new(&latents), "latents", &[1, 1, 8, 8], &[0.5; 64]).expect("writes");
    let digits = ["sample", "--model", "digits"];
    let sample = |extra: &[&str], names: &[&str]| refused(&[&digits[..], extra].concat(), names);
    sample(&["--latents", &latents, "--count", "2"], &["--latents", "--count"]);
    sample(&["--guidance", "2"], &["--class"]);
    sample(&["--trajectory"], &["--out"]);
    sample(&["--trajectory", "--out", &path("a.safetensors")], &["--trajectory", ".png"]);
    sample(&["--trajectory", "--out", &path("a.gif")], &["--trajectory", ".png"]);
    sample(&["--noise", &latents], &["--noise", "eta"]);
    sample(&["--seed", "-1"], &["--seed", "-1"]);
    sample(&["--class", "3", "--guidance", "1001"], &["--guidance", "-1000 and 1000"]);
    refused(&["parity", "--images", "0"], &["--images"]);
    refused(&["parity", "--batch", "0"], &["--batch"]);

    // A model without classes, and one with classes but none that means "no class".
    let (heads, velocity) = (path("h.waft"), path("v.waft"));
    export(Path::new(&heads), &[]);
    json(&["export-weights", &golden("velocity"), "--precision", "f32", "--steps", "2", "--out", &velocity, "--json"]);
    let guided = ["--class", "1", "--guidance", "2"];
    refused(&[&["sample", "--model", &heads], &guided[..]].concat(), &["--class", "no classes"]);
    refused(&[&["sample", "--model", &velocity], &guided[..]].concat(), &["guidance"]);
    assert!(!Path::new(&png).exists());
}

/// What was given and changes nothing, and what a file holds and nobody reads, is told.
#[test]
fn what_has_no_effect_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let told = |arguments: &[&str], what: &str| {
        let output = waft(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && message.contains(what), "{arguments:?} must tell {what}: {message}");
    };
    let digits = ["sample", "--model", "digits", "--class", "3"];
    let sample = |extra: &[&str], what: &str| told(&[&digits[..], extra].concat(), what);
    sample(&["--to-seed", "5"], "--to-seed has no effect on one picture");
    sample(&["--guidance", "1", "--guidance-rescale", "0.5"], "--guidance-rescale has no effect");
    sample(&["--guidance", "2", "--guidance-interval", "0.5,0.5"], "--guidance-interval has no effect");
    let tensors = path("t.safetensors");
    let write = |tensors: &[(&str, &[usize])]| {
        let tensors: Vec<(&str, Vec<u8>, &[usize])> =
            tensors.iter().map(|&(name, shape)| (name, vec![0; 4 * shape.iter().product::<usize>()], shape)).collect();
        let views = tensors.iter().map(|(name, bytes, shape)| {
            (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("fills its shape"))
        });
        std::fs::write(path("t.safetensors"), safetensors::serialize(views, None).expect("serializes"))
            .expect("writes");
    };
    write(&[("latents", &[1, 1, 8, 8]), ("latnets", &[2])]);
    sample(&["--latents", &tensors], "not read: latnets");
    let velocity = golden("velocity");
    let predict = ["predict", &velocity, "--input", &tensors, "--out", &path("o.safetensors")];
    let (sample, one) = (("sample", &[1, 2, 6, 6][..]), &[1][..]);
    write(&[sample, ("timestep", one), ("class_labels", one), ("mystery", one)]);
    told(&predict, "not read: mystery");
    write(&[sample, ("timestep", one), ("class_labels", one), ("encoder_hidden_states", &[1, 2, 3])]);
    refused(&predict, &["encoder_hidden_states"]);
    write(&[sample, ("timestep", &[1, 1]), ("class_labels", one)]);
    refused(&predict, &["timestep", "[1, 1]", "(N)"]);
}

/// Where Git LFS left pointers, whatever file is asked for.
/// Outside of the interval a classifier's gradient is not left out, as one might think.
#[test]
fn the_scale_outside_of_an_interval_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("m.waft");
    let digits = root().join("models/digits");
    let (checkpoint, guide) = (digits.join("checkpoint"), digits.join("guide"));
    let export =
        ["export-weights", text(&checkpoint), "--classifier", text(&guide), "--precision", "f32", "--steps", "4"];
    json(&[&export[..], &["--json", "--out", text(&model)]].concat());
    let sample = |options: &[&str]| {
        let output = waft(&[&["sample", "--model", text(&model), "--class", "3", "--json"], options].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
    };
    let (guided, notes) = sample(&["--guidance", "4", "--guidance-interval", "0.5,1"]);
    assert!(notes.contains("gradient has scale 1"), "{notes}");
    assert_eq!(guided, sample(&["--guidance", "1,1,4,4"]).0);
    assert_ne!(guided, sample(&["--guidance", "0,0,4,4"]).0);
    assert_eq!(sample(&["--guidance", "4", "--guidance-interval", "0,1"]).1, "");
}

#[test]
fn pointers_of_large_files_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pointer = |name: &str| {
        let path = folder.path().join(name);
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("UTF-8").to_string()
    };
    let sample = ["sample", "--model", "digits", "--class", "3"];
    for (arguments, option, name) in [
        (&["inspect"][..], None, "m.waft"),
        (&["sample"], Some("--model"), "m.waft"),
        (&sample, Some("--latents"), "l.safetensors"),
        (&sample, Some("--init"), "i.png"),
        (&["predict", &golden("heads"), "--out", "o.safetensors"], Some("--input"), "p.safetensors"),
    ] {
        let path = pointer(name);
        refused(&[arguments, option.as_slice(), &[path.as_str()]].concat(), &["Git LFS pointer"]);
    }
}

/// Texts that would be cut, and defaults that contradict each other.
#[test]
fn what_a_file_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(golden("heads")).expect("there").map(|entry| entry.expect("an entry")) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copies");
    }
    let (checkpoint, out) = (text(folder.path()), folder.path().join("x.waft"));
    let export = ["export-weights", checkpoint, "--precision", "f32", "--out", text(&out)];
    refused(&[&export[..], &["--name", &"a".repeat(65)]].concat(), &["name = 65 bytes", "64"]);
    let defaults = |text: &str| std::fs::write(folder.path().join("waft.json"), text).expect("writes");
    defaults(&format!(r#"{{"provenance": "{}"}}"#, "a".repeat(1000)));
    refused(&export, &["provenance = 1000 bytes", "960"]);
    defaults(r#"{"steps": [2], "timesteps": [[5, 1]]}"#);
    refused(&export, &["steps, timesteps", "name one of the two"]);
    // With a byte-order mark and the line ends of another system.
    defaults("\u{FEFF}{\r\n\"steps\": [2]\r\n}\r\n");
    assert_eq!(json(&[&export[..], &["--json"]].concat())["steps"], 2);
}

#[test]
fn seeds_do_not_begin_again() {
    let last = u64::MAX.to_string();
    for command in [&["sample", "--model", "digits"][..], &["compare", "digits"], &["quality", "--model", "digits"]] {
        refused(&[command, &["--count", "16", "--seed", &last]].concat(), &["--seed", "16 pictures", "2^64 - 1"]);
    }
    assert!(json(&["sample", "--model", "digits", "--seed", &last, "--json"])["digest"].is_string());
}

#[cfg(unix)]
#[test]
fn texts_without_end_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, heads, endless) = (folder.path().join("x.waft"), golden("heads"), "/dev/zero");
    let export = ["export-weights", &heads, "--out", text(&out), "--precision", "f32", "--steps", "1"];
    refused(&[&export[..], &["--scheduler-config", endless]].concat(), &[endless, "64 MiB"]);
    json(&[&export[..], &["--json"]].concat());
    let signed = folder.path().join("signed.waft");
    refused(&["sign", text(&out), "--key", endless, "--out", text(&signed)], &[endless, "64 hexadecimal digits"]);
    refused(
        &["sign", text(&out), "--key", text(folder.path()), "--out", text(&signed)],
        &["--key", text(folder.path()), "a folder"],
    );
}

#[test]
fn negative_numbers_are_values() {
    let draw = |guidance: &str| {
        json(&["sample", "--model", "digits", "--class", "3", "--guidance", guidance, "--json"])["digest"].clone()
    };
    assert_ne!(draw("-2"), draw("1"));
    assert_eq!(draw("-2"), draw("-2.0"));
}

#[test]
fn noise_of_the_steps_can_be_given() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let model = path("m.waft");
    export(Path::new(&model), &["--eta", "1"]);
    let write = |name: &str, tensor: &str, shape: &[usize], value: &dyn Fn(usize) -> f32| {
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        waft_host::tensors::write(Path::new(&path(name)), tensor, shape, &values).expect("writes");
        path(name)
    };
    let (rows, cols) = (8, 12);
    let wave = |i: usize| (i as f32 * 0.37).sin();
    let latents = write("l.safetensors", "latents", &[2, 1, rows, cols], &wave);
    let noise = write("n.safetensors", "noise", &[3, 2, 1, rows, cols], &wave);
    let sample = ["sample", "--model", &model, "--json"];
    let given = ["--latents", &latents, "--noise", &noise];
    let draw = |extra: &[&str]| json(&[&sample[..], extra].concat())["digest"].clone();
    let all = draw(&given);
    // Each part has its say, and the seed draws what is not given.
    assert_ne!(all, draw(&["--latents", &latents]));
    assert_ne!(all, draw(&["--noise", &noise]));
    assert_ne!(draw(&["--latents", &latents]), draw(&["--latents", &latents, "--seed", "1"]));
    assert_ne!(draw(&["--noise", &noise]), draw(&["--noise", &noise, "--seed", "1"]));
    let refusal = |extra: &[&str], names: &[&str]| refused(&[&sample[..], extra].concat(), names);
    refusal(&[&given[..], &["--seed", "1"]].concat(), &["--seed"]);

    // The same pictures in the other order give the same pictures: noise follows its picture.
    let area = rows * cols;
    let swap = |i: usize| wave(i / (2 * area) * (2 * area) + (i + area) % (2 * area));
    let (l, n) = (path("l2.safetensors"), path("n2.safetensors"));
    write("l2.safetensors", "latents", &[2, 1, rows, cols], &swap);
    write("n2.safetensors", "noise", &[3, 2, 1, rows, cols], &swap);
    let samples = |latents: &str, noise: &str, out: &str| {
        draw(&["--latents", latents, "--noise", noise, "--out", out]);
        waft_host::tensors::read(Path::new(out)).expect("reads").f32("sample").expect("sample").1
    };
    let (first, second) = (samples(&latents, &noise, &path("a.safetensors")), samples(&l, &n, &path("b.safetensors")));
    assert!(first[..area] == second[area..] && first[area..] == second[..area]);

    let short = write("s.safetensors", "noise", &[2, 2, 1, rows, cols], &wave);
    refusal(&["--noise", &short], &["[2, 2, 1, 8, 12]", "(3, N, 1, 8, 12)"]);
    let one = write("o.safetensors", "noise", &[3, 1, 1, rows, cols], &wave);
    refusal(&["--latents", &latents, "--noise", &one], &["--latents holds 2", "--noise 1"]);
    let infinite =
        write("i.safetensors", "noise", &[3, 2, 1, rows, cols], &|i| if i == 7 { f32::INFINITY } else { 0.0 });
    refusal(&["--noise", &infinite], &["noise", "inf", "finite"]);
    let nan = write("nan.safetensors", "latents", &[2, 1, rows, cols], &|i| if i == 7 { f32::NAN } else { 0.0 });
    refusal(&["--latents", &nan], &["latents", "NaN", "finite"]);
    let large = write("large.safetensors", "latents", &[2, 1, rows, cols], &|_| 1e6);
    refusal(&["--latents", &large], &["-2048 and 2048"]);
    let input = write("p.safetensors", "sample", &[1, 1, rows, cols], &|_| f32::NAN);
    refused(&["predict", &model, "--input", &input, "--out", &path("out.safetensors")], &["sample", "NaN"]);
}

#[test]
fn guidance_of_steps_is_checked() {
    let sample = |options: &[&str]| failure(&[&["sample", "--model", "digits", "--class", "3"], options].concat());
    assert!(sample(&["--guidance", "2,3"]).contains("2 values for 10 steps"));
    assert!(sample(&["--guidance", "2", "--guidance-interval", "0.8,0.2"]).contains("not above"));
    assert!(sample(&["--guidance", "2", "--guidance-interval", "0.5"]).contains("two fractions"));
    assert!(sample(&["--guidance", "2", "--guidance-interval", "0,1.5"]).contains("0 to 1"));
    assert!(sample(&["--guidance", "2", "--guidance-rescale", "-1"]).contains("0 to 1"));
    assert!(sample(&["--guidance-rescale", "0.5"]).contains("--guidance"));
    let digest = |options: &[&str]| {
        json(&[&["sample", "--model", "digits", "--class", "3", "--json"], options].concat())["digest"].clone()
    };
    let none = digest(&[]);
    assert_eq!(digest(&["--guidance", "3", "--guidance-interval", "0,0"]), none, "no step is guided");
    assert_eq!(digest(&["--guidance", "1,1,1,1,1,1,1,1,1,1"]), none);
    let three = digest(&["--guidance", "3"]);
    assert_eq!(digest(&["--guidance", "3,3,3,3,3,3,3,3,3,3", "--guidance-rescale", "0"]), three);
    assert_ne!(digest(&["--guidance", "3", "--guidance-rescale", "1"]), three);
    assert_eq!(
        digest(&["--guidance", "3,3,3,1,1,1,1,1,1,1"]),
        digest(&["--guidance", "3", "--guidance-interval", "0,0.3"])
    );
}

#[test]
fn samplers_are_compared() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grid = folder.path().join("grid.png");
    let arguments = ["compare", "digits", "--steps", "2,3", "--count", "16", "--precision", "f32", "--backend", "cpu"];
    let schedulers = ["--scheduler", "ddim,heun,edm-euler", "--chip", "rp2040", "--json", "--out", text(&grid)];
    let found = json(&[&arguments[..], &schedulers].concat());
    let rows = found["combinations"].as_array().expect("a list");
    let names: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| (row["scheduler"].as_str().expect("a name"), row["steps"].as_u64().expect("a count")))
        .collect();
    assert_eq!(names, [("ddim", 2), ("ddim", 3), ("heun", 2), ("heun", 3), ("edm-euler", 2), ("edm-euler", 3)]);
    let calls: Vec<Option<u64>> = rows.iter().map(|row| row["calls"].as_u64()).collect();
    assert_eq!(calls, [Some(2), Some(3), Some(3), Some(5), None, None], "Heun takes two calls a step");
    assert!(rows[0]["distance"]["value"].as_f64().expect("a distance") > 0.0);
    assert!(rows[5]["error"].as_str().expect("a reason").contains("noise levels"));
    assert!(found["cheapest"].as_u64().expect("one") < 4);
    assert!(grid.is_file());
    assert!(failure(&["compare", "digits", "--steps", "5,5"]).contains("twice"));
    assert!(failure(&["compare", "digits", "--chip", "Z80"]).contains("RP2040"));
    assert!(failure(&["compare", "nobody"]).contains("digits"));
}
