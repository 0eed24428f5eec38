//! Nothing is replaced by accident, nothing is half-written, nothing stays behind.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{export, failure, golden, json, root, text, waft};

/// The files of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A folder with a model `m.waft`.
fn folder_with_model() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("m.waft");
    export(&model, &[]);
    (folder, model)
}

#[test]
fn inputs_are_not_replaced_whatever_they_are_called() {
    let (folder, model) = folder_with_model();
    let before = fs::read(&model).expect("written");
    let path = |name: &str| folder.path().join(name);
    symlink("m.waft", path("link.svg")).expect("links");
    fs::hard_link(&model, path("hard.svg")).expect("links");
    fs::create_dir(path("sub")).expect("a folder");
    for name in ["link.svg", "hard.svg", "sub/../link.svg"] {
        let refused = failure(&["inspect", text(&model), "--svg", text(&path(name))]);
        assert!(refused.contains("--svg") && refused.contains("an input"), "{name}: {refused}");
    }
    let latents = path("l.safetensors");
    waft_host::tensors::write(&latents, "latents", &[1, 1, 8, 12], &[0.0; 96]).expect("writes");
    let sample = ["sample", "--model", text(&model), "--latents", text(&latents), "--out", text(&latents)];
    assert!(failure(&sample).contains("--latents, an input"));

    // A file of the checkpoint, but not a model that lies beside it.
    let checkpoint = path("checkpoint");
    fs::create_dir(&checkpoint).expect("a folder");
    for file in fs::read_dir(golden("heads")).expect("a folder") {
        let file = file.expect("an entry").path();
        fs::copy(&file, checkpoint.join(file.file_name().expect("a name"))).expect("copies");
    }
    let config = checkpoint.join("config.json");
    let export = |out: &Path| waft(&["export-weights", text(&checkpoint), "--precision", "f32", "--out", text(out)]);
    let refused = String::from_utf8(export(&config).stderr).expect("text");
    assert!(refused.contains("CHECKPOINT, an input"), "{refused}");
    let inside = checkpoint.join("m.waft");
    assert!(export(&inside).status.success() && export(&inside).status.success());
    assert_eq!(fs::read(&model).expect("still there"), before);
}

/// Every option that names a file to read.
#[test]
fn what_options_read_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (heads, other) = (golden("heads"), folder.path().join("other.png"));
    fs::write(&other, "{}").expect("writes");
    for option in ["--classifier", "--scheduler-config", "--class-embeddings", "--condition", "--observation"] {
        let refused = failure(&["export-weights", &heads, option, text(&other), "--out", text(&other)]);
        assert!(refused.contains(&format!("that is {option}, an input")), "{option}: {refused}");
    }
    for option in ["--scheduler-config", "--class-embeddings", "--judge", "--real"] {
        let refused = failure(&["compare", &heads, option, text(&other), "--out", text(&other)]);
        assert!(refused.contains(&format!("that is {option}, an input")), "{option}: {refused}");
    }
    // A file of a classifier's folder.
    let refused = failure(&["export-weights", &heads, "--classifier", text(folder.path()), "--out", text(&other)]);
    assert!(refused.contains("--classifier, an input"), "{refused}");
    assert_eq!(fs::read_to_string(&other).expect("still there"), "{}");
}

/// A path is any path of the system; only a shard, which holds it as text, wants text.
#[test]
fn paths_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let (folder, model) = folder_with_model();
    let strange = folder.path().join(OsStr::from_bytes(b"gr\xfcn \xff"));
    fs::create_dir(&strange).expect("a folder");
    let at = |name: &str| strange.join(name);
    fs::copy(&model, at("m.waft")).expect("copies");
    let run = |arguments: &[&OsStr]| Command::new(env!("CARGO_BIN_EXE_waft")).args(arguments).output().expect("runs");
    let path = |name: &str| at(name).into_os_string();
    let (file, svg, png, page) = (path("m.waft"), path("m.svg"), path("m.png"), path("m.html"));
    let option = OsStr::new;
    let commands: [&[&OsStr]; 3] = [
        &[option("inspect"), &file, option("--svg"), &svg],
        &[option("sample"), option("--model"), &file, option("--json"), option("--out"), &png],
        &[option("parity"), option("--model"), &file, option("--images"), option("4"), option("--report"), &page],
    ];
    for command in commands {
        let output = run(command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(["m.svg", "m.png", "m.html"].iter().all(|name| at(name).is_file()));
    fs::create_dir(at("checkpoint")).expect("a folder");
    for name in ["config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"] {
        let from = Path::new(&golden("heads")).join(name);
        if from.is_file() {
            fs::copy(from, at("checkpoint").join(name)).expect("copies");
        }
    }
    let (checkpoint, out) = (path("checkpoint"), path("out.waft"));
    let output =
        run(&[option("export-weights"), &checkpoint, option("--precision"), option("f32"), option("--out"), &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What is missing is named with its bytes.
    let missing = run(&[option("inspect"), &path("missing")]);
    let error = String::from_utf8(missing.stderr).expect("text");
    assert!(!missing.status.success() && error.contains(r"gr\xFCn \xFF/missing"), "{error}");
    let shard = path("s.safetensors");
    let quality = ["quality", "--shard", "0/2", "--model"].map(option);
    let output = run(&[&quality[..], &[&file, option("--out"), &shard]].concat());
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.contains("rename it"), "{error}");
}

/// What a shipped model is exported from and compared with is an input too, and so are the files that its name stands for.
#[test]
fn shipped_models_are_not_replaced() {
    let digits = root().join("models/digits");
    let links = tempfile::tempdir().expect("a temporary folder");
    let weights = "diffusion_pytorch_model.safetensors";
    let sample = &["sample", "--model", "digits", "--count", "1", "--precision", "f32"][..];
    let quality = &["quality", "--model", "digits", "--count", "16", "--backend", "cpu", "--shard", "0/1"][..];
    let parity = &["parity", "--images", "1"][..];
    for (arguments, option, input, steps) in [
        (sample, "--out", format!("checkpoint/{weights}"), None),
        (sample, "--out", format!("4step/{weights}"), Some("4")),
        (quality, "--out", format!("checkpoint/{weights}"), None),
        (quality, "--out", format!("4step/{weights}"), Some("4")),
        (quality, "--out", "judge.safetensors".into(), None),
        // An output of another extension, behind which the input lies.
        (sample, "--out", "digits-i8.waft".into(), None),
        (quality, "--out", "digits-4step-i8.waft".into(), Some("4")),
        (parity, "--report", "checkpoint/config.json".into(), None),
        (&["inspect", "digits"], "--svg", "digits-i8.waft".into(), None),
    ] {
        let input = digits.join(input);
        let before = fs::read(&input).expect("in the repository");
        let link = links.path().join(match option {
            "--svg" => "link.svg",
            "--report" => "link.html",
            _ => "link.safetensors",
        });
        symlink(&input, &link).expect("links");
        let steps: Vec<&str> = steps.into_iter().flat_map(|steps| ["--steps", steps]).collect();
        for out in [&link, &input] {
            // Where the extension alone refuses the file itself, the link is left.
            if out.extension() == link.extension() {
                let refused = failure(&[arguments, &steps, &[option, text(out)]].concat());
                assert!(refused.contains(option) && refused.contains("an input"), "{arguments:?}: {refused}");
            }
        }
        assert!(fs::read(&input).expect("still there") == before, "{} was replaced", input.display());
        fs::remove_file(&link).expect("removes");
    }
    let checkpoint = digits.join("checkpoint");
    let input = links.path().join("in.safetensors");
    fs::write(&input, "").expect("writes");
    let out = checkpoint.join(weights);
    let refused = failure(&["predict", text(&checkpoint), "--input", text(&input), "--out", text(&out)]);
    assert!(refused.contains("that is MODEL, an input"), "{refused}");
}

#[test]
fn two_outputs_have_two_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("a.weights");
    let refused = failure(&["export-weights", &golden("heads"), "--stream", "4096", "--out", text(&out)]);
    assert!(refused.contains("--out") && refused.contains("same file"), "{refused}");
    // The weights would go through a link onto the model.
    symlink("b.waft", folder.path().join("b.weights")).expect("links");
    let out = folder.path().join("b.waft");
    let refused = failure(&["export-weights", &golden("heads"), "--stream", "4096", "--out", text(&out)]);
    assert!(refused.contains("same file"), "{refused}");
    assert_eq!(names(folder.path()), ["b.weights"]);
}

#[test]
fn links_stay_and_permissions_stay() {
    let (folder, model) = folder_with_model();
    let path = |name: &str| folder.path().join(name);
    let draw = |out: &Path| json(&["inspect", text(&model), "--svg", text(out), "--json"]);
    fs::write(path("target.svg"), "old").expect("writes");
    fs::set_permissions(path("target.svg"), fs::Permissions::from_mode(0o640)).expect("changes");
    symlink("target.svg", path("link.svg")).expect("links");
    symlink("new.svg", path("dangling.svg")).expect("links");
    symlink("circle.svg", path("circle.svg")).expect("links");
    draw(&path("link.svg"));
    draw(&path("dangling.svg"));
    for (link, target) in [("link.svg", "target.svg"), ("dangling.svg", "new.svg")] {
        assert!(fs::symlink_metadata(path(link)).expect("exists").is_symlink(), "{link} is no link any more");
        assert!(fs::read_to_string(path(target)).expect("written").starts_with("<svg"));
    }
    let mode = |name: &str| fs::metadata(path(name)).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode("target.svg"), 0o640);
    // A new file has what a file made any other way has.
    fs::write(path("plain"), "").expect("writes");
    assert_eq!(mode("new.svg"), mode("plain"));
    failure(&["inspect", text(&model), "--svg", text(&path("circle.svg"))]);
    fs::set_permissions(path("target.svg"), fs::Permissions::from_mode(0o444)).expect("changes");
    assert!(failure(&["inspect", text(&model), "--svg", text(&path("link.svg"))]).contains("write-protected"));
}

#[test]
fn special_files_are_written_to_or_refused() {
    let (folder, model) = folder_with_model();
    let path = |name: &str| folder.path().join(name);
    let pipe = path("pipe.svg");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).expect("reads")
    });
    json(&["inspect", text(&model), "--svg", text(&pipe), "--json"]);
    assert!(reader.join().expect("ends").starts_with("<svg"));
    assert!(fs::metadata(&pipe).expect("exists").file_type().is_fifo());

    symlink("/dev/null", path("null.svg")).expect("links");
    json(&["inspect", text(&model), "--svg", text(&path("null.svg")), "--json"]);
    assert!(fs::metadata("/dev/null").expect("exists").file_type().is_char_device());

    fs::create_dir(path("folder.svg")).expect("a folder");
    assert!(failure(&["inspect", text(&model), "--svg", text(&path("folder.svg"))]).contains("that is a folder"));
    let refused = failure(&["export-weights", &golden("heads"), "--precision", "f32", "--out", "/dev/stdout"]);
    assert!(refused.contains("standard output"), "{refused}");
    let refused = failure(&["inspect", text(&model), "--svg", text(&path("nowhere/a.svg"))]);
    assert!(refused.contains("nowhere"), "{refused}");
}

#[test]
fn keys_are_secret_and_stay() {
    let (folder, model) = folder_with_model();
    let path = |name: &str| folder.path().join(name);
    let key = path("waft.key");
    let sign = |key: &Path, out: &Path, new: bool| {
        let arguments = ["sign", text(&model), "--key", text(key), "--out", text(out)];
        waft(&[&arguments[..], if new { &["--new-key"] } else { &[] }].concat())
    };
    for name in ["waft.key", "./waft.key", "sub/../waft.key"] {
        fs::create_dir_all(path("sub")).expect("a folder");
        assert!(!sign(&key, &path(name), true).status.success() && !key.exists(), "{name}");
    }
    assert!(sign(&key, &path("signed"), true).status.success());
    let secret = fs::read(&key).expect("written");
    assert_eq!(fs::metadata(&key).expect("exists").permissions().mode() & 0o777, 0o600);
    symlink("waft.key", path("link")).expect("links");
    fs::hard_link(&key, path("hard")).expect("links");
    for name in ["waft.key", "link", "hard"] {
        assert!(!sign(&key, &path(name), false).status.success(), "{name}");
    }
    // Another key as the output, a key of an existing name, and one through a link without a target.
    assert!(sign(&path("other.key"), &path("signed"), true).status.success());
    let refused = String::from_utf8(sign(&path("other.key"), &key, false).stderr).expect("text");
    assert!(refused.contains("a secret key"), "{refused}");
    assert!(!sign(&model, &path("signed2"), true).status.success());
    symlink("absent", path("dangling.key")).expect("links");
    assert!(!sign(&path("dangling.key"), &path("signed2"), true).status.success());
    assert_eq!(fs::read(&key).expect("still there"), secret);
    assert!(!path("absent").exists() && !path("signed2").exists());
    assert!(names(folder.path()).iter().all(|name| !name.ends_with(".part")));
}

/// A signal between the first temporary file and the last rename: a full pipe holds the second output up.
#[test]
fn nothing_stays_behind_after_a_signal() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("m.waft");
        assert!(Command::new("mkfifo").arg(&out).status().expect("mkfifo").success());
        let mut child = Command::new(env!("CARGO_BIN_EXE_waft"))
            .args(["export-weights", &golden("heads"), "--precision", "f32", "--stream", "65536", "--out", text(&out)])
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        // Nobody reads the pipe: the weights lie in their temporary file, and the program waits.
        while !names(folder.path()).iter().any(|name| name.ends_with(".part")) {
            assert!(child.try_wait().expect("a state").is_none(), "ended early");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().expect("kill").success());
        assert_eq!(child.wait().expect("ends").code(), Some(code));
        assert_eq!(names(folder.path()), ["m.waft"]);
    }
}

#[test]
fn closed_and_full_outputs_are_no_panic() {
    let run = |arguments: &[&str], stdout: Stdio| {
        let child =
            Command::new(env!("CARGO_BIN_EXE_waft")).args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn();
        child.expect("starts").wait_with_output().expect("ends")
    };
    for arguments in
        [&["inspect", "digits"][..], &["inspect", "digits", "--json"], &["sample", "--help"], &["--version"]]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let output = run(arguments, full.into());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.contains("standard output") && !message.contains("panicked"), "{message}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = run(arguments, writer.into());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]), "{arguments:?}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let full = folder.path().join("full.svg");
    symlink("/dev/full", &full).expect("links");
    assert!(failure(&["inspect", "digits", "--svg", text(&full)]).contains("cannot write"));
}

#[test]
fn names_cannot_steer_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("m.waft");
    let name = "a\u{1b}[2J\u{9b}31m\nforged </text><script>";
    export(&model, &["--name", name]);
    let svg = folder.path().join("\u{1b}]0;title\u{7}.svg");
    for arguments in [
        &["inspect", text(&model), "--svg", text(&svg)][..],
        &["inspect", text(&model), "--json"],
        &["inspect", "\u{1b}[31m"],
        &["inspect", "digits", "--\u{1b}[31m"],
    ] {
        let output = waft(arguments);
        for stream in [output.stdout, output.stderr] {
            let shown = String::from_utf8(stream).expect("text");
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{arguments:?}: {shown:?}");
            assert!(!shown.lines().any(|line| line.starts_with("forged")), "{shown}");
        }
    }
    assert_eq!(json(&["inspect", text(&model), "--json"])["name"], name, "JSON escapes, and loses nothing");
    let svg = fs::read_to_string(svg).expect("written");
    assert!(!svg.contains("<script") && !svg.contains('\u{1b}'), "{svg}");
}
