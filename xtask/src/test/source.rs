//! Checks of the sources that run nothing: format, lints, features, documentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rayon::prelude::*;

use super::build::EXAMPLES;
use crate::repository::{cargo, root, run};
use crate::setup;

/// Folders that are workspaces of their own.
const OUTSIDE: [&str; 6] = ["kernels/ptx", "runtime/c", "runtime/web", "tests/driver", "tests/firmware", "tests/fuzz"];

/// Sets of precisions, with what belongs to one of them.
const PRECISIONS: [&str; 10] = [
    "i8",
    "i8,i4",
    "i8,step-scales",
    "i8,i4,step-scales",
    "f16",
    "f32",
    "f16,f32",
    "i8,f16",
    "i8,f32",
    "i8,i4,step-scales,f16,f32",
];

/// Features that add an interface or exchange a function.
const INTERFACES: [&str; 7] =
    ["micromath", "defmt", "rand_core", "embedded-graphics", "ed25519", "embedded-storage", "embedded-io"];

/// A target of each family of kernels that this machine is none of, and the features that have kernels.
const FAMILIES: [&str; 7] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "aarch64-unknown-none",
    "wasm32-unknown-unknown",
];
const KERNELS: [&str; 4] =
    ["i8,attention,tiles", "f16,attention", "f32,attention", "i8,i4,f16,f32,attention,conditioning,tiles"];

/// Most lines of a file that is written by hand, and how such files end.
const FILE_LINES: usize = 500;
const WRITTEN: [&str; 6] = ["rs", "py", "c", "h", "js", "sh"];

/// rustfmt has nothing to change, no file is too long, and no module is left out.
pub(super) fn format() -> anyhow::Result<()> {
    let files = written_files(&root())?;
    let (mut long, mut orphans) = (vec![], vec![]);
    for file in &files {
        let lines = fs::read(file)?.iter().filter(|&&byte| byte == b'\n').count();
        if lines > FILE_LINES {
            long.push(format!("{} ({lines})", file.display()));
        }
        if is_orphan(file) {
            orphans.push(file.display().to_string());
        }
    }
    ensure!(long.is_empty(), "more than {FILE_LINES} lines; split by subject: {}", long.join(", "));
    ensure!(orphans.is_empty(), "no module of its crate, so never compiled: {}", orphans.join(", "));
    cargo(&["fmt", "--all", "--check"])?;
    let examples = EXAMPLES.iter().map(|(board, _)| format!("runtime/boards/{board}"));
    let mut folders = OUTSIDE.iter().map(|folder| folder.to_string()).chain(examples);
    folders.try_for_each(|folder| cargo(&["fmt", "--check", "--manifest-path", &format!("{folder}/Cargo.toml")]))
}

/// The files written by hand in a folder and its folders, but for hidden ones and what a build made.
fn written_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(written_files(&path)?);
        } else if path.extension().is_some_and(|extension| WRITTEN.iter().any(|written| extension == *written)) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether a file under a `src`, or beside a program's `main.rs`, is Rust that the module above it does not name: the compiler
/// passes over such a file.
fn is_orphan(file: &Path) -> bool {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(mut folder) = file.parent() else { return false };
    let mut module = stem(file);
    // Cargo finds programs by their folder.
    let is_root = module == "lib" || module == "main" || folder.ends_with("src/bin");
    let is_of_crate = file.iter().any(|part| part == "src") || folder.join("main.rs").exists();
    if is_root || file.extension().is_none_or(|end| end != "rs") || !is_of_crate {
        return false;
    }
    if module == "mod" {
        module = stem(folder);
        folder = folder.parent().unwrap_or(folder);
    }
    let above = ["mod.rs", "lib.rs", "main.rs"].map(|name| folder.join(name)).into_iter();
    let texts = above.chain([folder.with_extension("rs")]).filter_map(|path| fs::read_to_string(path).ok());
    let declaration = format!("mod {module};");
    !texts.into_iter().any(|text| text.contains(&declaration))
}

/// clippy has no complaints, in the workspace and in what is none of its members but compiles for this machine.
pub(super) fn clippy() -> anyhow::Result<()> {
    // The tests' profile: macros and build scripts are built once.
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    for part in [["waft", "--all-features"], ["xtask", "--no-default-features"]] {
        cargo(&[&["clippy", "--release", "-q", "-p"], &part[..], &["--", "-D", "warnings"]].concat())?;
    }
    for features in ["i8", "f16", "f32", "i8,i4,step-scales,f16,f32,attention,conditioning,activations,scale-shift"] {
        outside("runtime/c", &["--no-default-features", "--features", features])?;
    }
    outside("runtime/web", &[])?;
    outside("tests/driver", &[])?;
    outside("tests/fuzz", &[])?;
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        outside("tests/firmware", &["--features", "i8,i4,step-scales,attention,conditioning,activations,scale-shift"])?;
        outside("tests/firmware", &["--features", "i8,attention,conditioning,stream"])?;
    }
    Ok(())
}

/// clippy of a workspace of its own, in the repository's build folder: what both depend on is checked once.
fn outside(folder: &str, options: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    // Only the release profile aborts on a panic, which a program without the standard library must.
    command
        .args(["clippy", "--release", "-q", "--manifest-path"])
        .arg(Path::new(folder).join("Cargo.toml"))
        .args(options);
    command.args(["--", "-D", "warnings"]).env("CARGO_TARGET_DIR", root().join("target"));
    // What the firmware is built around.
    let model = root().join("models").join("digits").join("digits-i8.waft");
    run(command.env("WAFT_BOARD", "linux").env("WAFT_MODEL_FILE", &model).env("WAFT_WEIGHTS_FILE", &model))
}

/// Every set of features that a firmware may choose compiles without a warning, and so do the kernels of every target.
pub(super) fn features() -> anyhow::Result<()> {
    let operations = operations()?;
    let mut sets: Vec<String> = ["std", "std,i4,conditioning,micromath"].map(Into::into).into();
    for precisions in PRECISIONS {
        sets.extend([precisions.to_string(), format!("{precisions},{}", operations.join(","))]);
    }
    for precision in ["i8", "f16", "f32"] {
        sets.extend(operations.iter().map(|operation| format!("{precision},{operation}")));
        sets.push(format!("{precision},{}", INTERFACES.join(",")));
    }
    // What they add knows nothing of precisions.
    sets.extend(INTERFACES.map(|interface| format!("i8,{interface}")));
    let compiles = |mut check: Command, features: &str, worker: usize| {
        check.args(["-p", "waft", "--quiet", "--no-default-features", "--features", features]);
        check.env("RUSTFLAGS", "-D warnings").env("CARGO_INCREMENTAL", "0");
        check.env("CARGO_TARGET_DIR", root().join("target").join("features").join(worker.to_string()));
        run(&mut check).with_context(|| format!("the core with {features}"))
    };
    // Each takes one core, and waits for every other in its folder.
    let workers = rayon::current_num_threads();
    sets.par_chunks(sets.len().div_ceil(workers)).enumerate().try_for_each(|(worker, sets)| {
        sets.iter().try_for_each(|features| {
            let mut check = Command::new("cargo");
            check.arg("check");
            compiles(check, features, worker)
        })
    })?;
    FAMILIES.iter().try_for_each(|target| {
        let toolchain = setup::toolchain(target)?;
        let each = |features| compiles(toolchain.cargo(&root(), "check", target), features, 0);
        KERNELS.into_iter().try_for_each(each).with_context(|| format!("for {target}"))
    })
}

/// The core's features that leave out what not every model needs: those that it has by default, but for precisions.
fn operations() -> anyhow::Result<Vec<String>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(root())
        .output()
        .context("cannot run cargo")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let core = packages.iter().find(|package| package["name"] == "waft").context("cargo metadata names no waft")?;
    let default = core["features"]["default"].as_array().context("the core has no default features")?;
    let named = default.iter().filter_map(|name| name.as_str());
    let is_precision = |name: &str| PRECISIONS.iter().any(|set| set.split(',').any(|one| one == name));
    Ok(named.filter(|name| !is_precision(name)).map(Into::into).collect())
}

/// The documentation builds without a warning, that of the core with every feature as well.
pub(super) fn docs() -> anyhow::Result<()> {
    for packages in [&["--workspace"][..], &["-p", "waft", "--all-features"]] {
        let mut command = Command::new("cargo");
        run(command.args(["doc", "--release", "--no-deps"]).args(packages).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_orphan, written_files};

    #[test]
    fn files_that_no_module_names_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["src/inner", "target", "tests/suite", ".hidden"] {
            std::fs::create_dir_all(at(name)).expect("a folder");
        }
        let files = [
            ("src/lib.rs", "mod named;\npub(crate) mod inner;\n"),
            ("src/named.rs", ""),
            ("src/left_out.rs", ""),
            ("src/inner/mod.rs", "mod below;\n"),
            ("src/inner/below.rs", ""),
            ("src/inner/below_left_out.rs", ""),
            ("tests/suite/main.rs", "mod named;\n"),
            ("tests/suite/named.rs", ""),
            ("tests/suite/left_out.rs", ""),
            ("build.rs", ""),
            ("script.py", ""),
            ("notes.txt", ""),
            ("target/made.rs", ""),
            (".hidden/kept.rs", ""),
        ];
        files.iter().for_each(|(name, text)| std::fs::write(at(name), text).expect("a file"));
        let found = written_files(folder.path()).expect("readable");
        assert_eq!(found.len(), 11);
        let mut orphans: Vec<_> = found.into_iter().filter(|file| is_orphan(file)).collect();
        orphans.sort();
        let left_out = ["src/inner/below_left_out.rs", "src/left_out.rs", "tests/suite/left_out.rs"];
        assert_eq!(orphans, left_out.map(at));
    }
}
