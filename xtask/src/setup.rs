//! What the firmware tests need beyond cargo: a compiler for bare metal and an emulator. Each is looked for, then
//! installed the ordinary way, then by the roundabout way that Debian images without either need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::boards::Tool;
use crate::repository::root;

/// Oldest compiler that builds the workspace: the `rust-version` of its manifest.
pub(crate) const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A cargo that builds for a target.
pub(crate) struct Toolchain {
    cargo: PathBuf,
    version: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Toolchain {
    /// What its compiler says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// `cargo build --release` for the target, in a folder.
    pub(crate) fn build(&self, folder: &Path, target: &str) -> Command {
        self.build_as(folder, target, "release")
    }

    /// `cargo build` for the target in a profile, in a folder.
    pub(crate) fn build_as(&self, folder: &Path, target: &str, profile: &str) -> Command {
        let mut command = self.cargo(folder, "build", target);
        command.args(["--profile", profile]);
        command
    }

    /// A command of cargo that compiles for the target, in a folder.
    pub(crate) fn cargo(&self, folder: &Path, name: &str, target: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        // What `cargo xtask` set for its own toolchain does not hold for another.
        for name in ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTDOC", "CARGO", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        command.current_dir(folder).args([name, "--locked", "--target", target]);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command
    }
}

/// Whether set-up may install packages: not if `WAFT_NO_INSTALL` is set.
fn may_install() -> bool {
    std::env::var_os("WAFT_NO_INSTALL").is_none()
}

/// Installs what is not found, if that is allowed, and says what; whether it is there then. One process at a time: package
/// managers refuse or disturb a second one, which may also have brought what this one looks for.
fn found_or_installed(what: &str, found: impl Fn() -> bool, install: impl FnOnce() -> bool) -> bool {
    if found() {
        return true;
    }
    if !may_install() {
        return false;
    }
    let lock = fs::File::create(std::env::temp_dir().join("waft-set-up.lock"));
    // A machine without such locks installs one thing at a time anyway, or says why not.
    let _held = lock.and_then(|file| file.lock().map(|()| file));
    if found() {
        return true;
    }
    eprintln!("set-up: {what}");
    install() && found()
}

/// The same through rustup.
fn found_or_by_rustup(arguments: &[&str], found: impl Fn() -> bool) -> bool {
    let install = || installs(Command::new("rustup").args(arguments));
    found_or_installed(&format!("rustup {}", arguments.join(" ")), found, install)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Whether an installation succeeds; what it printed is shown if not.
fn installs(command: &mut Command) -> bool {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let (status, printed) = (output.status, String::from_utf8_lossy(&output.stderr));
            eprintln!("set-up: {} ended with {status}:\n{printed}", command.get_program().display());
            false
        }
        Err(error) => {
            eprintln!("set-up: {}: {error}", command.get_program().display());
            false
        }
    }
}

fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Runs apt-get, with sudo if need be; says what it does.
fn apt(arguments: &[&str]) -> bool {
    let root = output("id", &["-u"]).is_some_and(|id| id == "0");
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if !root {
        command.args(["-n", "apt-get"]);
    }
    eprintln!("set-up: apt-get {}", arguments.join(" "));
    // A mirror that does not answer once is asked again.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Acquire::Retries=5"]).args(arguments);
    installs(&mut command)
}

fn has_apt() -> bool {
    succeeds(Command::new("apt-get").arg("--version"))
}

/// The oldest compiler that builds the workspace, if rustup has it or could install it.
pub(crate) fn oldest_compiler() -> Option<PathBuf> {
    let sysroot = || output("rustc", &[&format!("+{OLDEST}"), "--print", "sysroot"]);
    found_or_by_rustup(&["toolchain", "install", OLDEST, "--profile", "minimal"], || sysroot().is_some());
    sysroot().map(|root| Path::new(&root).join("bin").join("rustc"))
}

/// Whether rustup's nightly has Miri, `cargo +nightly miri`, with the library's sources, or could install them.
pub(crate) fn has_miri() -> bool {
    let found = || nightly().is_some() && output("cargo", &["+nightly", "miri", "--version"]).is_some();
    found_or_by_rustup(
        &["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"],
        found,
    )
}

/// A toolchain for a bare-metal target.
pub(crate) fn toolchain(target: &str) -> anyhow::Result<Toolchain> {
    let native = || {
        let folder = output("rustc", &["--print", "target-libdir", "--target", target])?;
        let has_core =
            fs::read_dir(folder).ok()?.flatten().any(|f| f.file_name().to_string_lossy().contains("libcore"));
        let version = output("rustc", &["--version"])?;
        has_core.then(|| Toolchain { cargo: "cargo".into(), version, environment: vec![], arguments: vec![] })
    };
    if found_or_by_rustup(&["target", "add", target], || native().is_some())
        && let Some(found) = native()
    {
        return Ok(found);
    }
    if found_or_installed("a compiler", || from_source(target).is_some(), install_compiler)
        && let Some(found) = from_source(target)
    {
        return Ok(found);
    }
    bail!("no compiler for {target}: run `rustup target add {target}`, or install a rustc with rust-src and lld")
}

/// A toolchain with the standard library for a target that has one.
pub(crate) fn toolchain_with_std(target: &str) -> anyhow::Result<Toolchain> {
    let mut found = toolchain(target)?;
    for argument in &mut found.arguments {
        if argument == "build-std=core" {
            *argument = "build-std=std,panic_abort".into();
        }
    }
    Ok(found)
}

/// The program that is a browser here.
pub(crate) fn browser() -> anyhow::Result<&'static str> {
    const OTHERS: [&str; 3] = ["chromium-browser", "google-chrome", "google-chrome-stable"];
    let runs = |program: &&str| succeeds(Command::new(program).arg("--version"));
    if let Some(found) = OTHERS.into_iter().find(runs) {
        return Ok(found);
    }
    tool(Tool { program: "chromium", packages: &["chromium"] })?;
    Ok("chromium")
}

/// Installs a recent compiler with its library's sources, as some Debian releases carry it beside the old one.
fn install_compiler() -> bool {
    const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
    has_apt() && apt(&["update"]) && apt(&[&["install", "-y"][..], &PACKAGES].concat())
}

/// The distribution's compiler with the core library built from source.
fn from_source(target: &str) -> Option<Toolchain> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    let version = output(&rustc, &["--version"])?;
    let minor = |version: &str| version.split('.').nth(1)?.parse::<u32>().ok();
    let is_old = minor(version.split_whitespace().nth(1)?)? < minor(OLDEST)?;
    let sysroot = output(&rustc, &["--print", "sysroot"])?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if is_old || !sources.is_file() || !cargo.is_file() {
        return None;
    }
    let rustup_lld = output("rustc", &["--print", "sysroot"])
        .map(|root| format!("{root}/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld"))
        .filter(|path| Path::new(path).is_file());
    let linkers = if target.starts_with("wasm") { ["wasm-ld-19", "wasm-ld"] } else { ["ld.lld-19", "ld.lld"] };
    let linker = linkers
        .into_iter()
        .find(|name| succeeds(Command::new(name).arg("--version")))
        .map(ToString::to_string)
        .or(rustup_lld)?;
    let name = target.to_uppercase().replace(['-', '.'], "_");
    Some(Toolchain {
        cargo,
        version,
        environment: vec![
            ("RUSTC".into(), rustc.display().to_string()),
            ("RUSTC_BOOTSTRAP".into(), "1".into()),
            (format!("CARGO_TARGET_{name}_LINKER"), linker),
        ],
        arguments: vec!["-Z".into(), "build-std=core".into()],
    })
}

/// A compiler for `nvptx64-nvidia-cuda`. Its link is never used, so any name will do for the linker.
pub(crate) fn ptx_toolchain() -> anyhow::Result<Toolchain> {
    const TARGET: &str = "nvptx64-nvidia-cuda";
    let found = || from_source(TARGET).or_else(nightly);
    let has = || found().is_some();
    let installed = found_or_installed("a compiler", has, install_compiler)
        || found_or_by_rustup(&["toolchain", "install", "nightly", "--component", "rust-src"], has);
    if installed && let Some(found) = found() {
        return Ok(found);
    }
    bail!("no compiler for {TARGET}: run `rustup toolchain install nightly --component rust-src`")
}

/// rustup's nightly with the core library built from source.
fn nightly() -> Option<Toolchain> {
    let version = output("rustc", &["+nightly", "--version"])?;
    let sysroot = output("rustc", &["+nightly", "--print", "sysroot"])?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    sources.is_file().then(|| Toolchain {
        cargo: "cargo".into(),
        version,
        environment: vec![("RUSTUP_TOOLCHAIN".into(), "nightly".into())],
        arguments: vec!["-Z".into(), "build-std=core".into()],
    })
}

/// NVIDIA's assembler.
pub(crate) fn ptxas() -> anyhow::Result<PathBuf> {
    const PACKAGE: &str = "nvidia-cuda-nvcc==13.*";
    if succeeds(Command::new("ptxas").arg("--version")) {
        return Ok("ptxas".into());
    }
    let folder = root().join(".setup").join("cuda");
    let program = folder.join("nvidia").join("cu13").join("bin").join("ptxas");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]).arg(&folder).arg(PACKAGE);
    if found_or_installed(&format!("pip install {PACKAGE}"), || program.is_file(), || succeeds(&mut pip)) {
        return Ok(program);
    }
    bail!("ptxas does not run: install the CUDA toolkit, or {PACKAGE} with pip for python3")
}

/// Makes sure that a tool runs.
pub(crate) fn tool(Tool { program, packages }: Tool) -> anyhow::Result<()> {
    let runs = || succeeds(Command::new(program).arg("--version"));
    let ordinary = [&["install", "-y", "--no-install-recommends", "--no-remove"][..], packages].concat();
    let install = || {
        if !has_apt() {
            return false;
        }
        if apt(&["update"]) && apt(&ordinary) && runs() {
            return true;
        }
        // Where other packages of the same source come from backports, these must as well.
        add_backports().is_ok_and(|suite| apt(&["update"]) && apt(&[&ordinary[..], &["-t", &suite]].concat()))
    };
    if found_or_installed(program, runs, install) {
        return Ok(());
    }
    bail!("{program} does not run: install it (Debian's packages: {})", packages.join(", "))
}

/// Adds the release's backports from the mirror that apt already uses; the suite's name.
fn add_backports() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("no codename")?;
    let suite = format!("{codename}-backports");
    let targets = output("apt-get", &["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"])
        .context("apt-get indextargets failed")?;
    if targets.lines().any(|line| line.ends_with(&format!(" {suite}"))) {
        return Ok(suite);
    }
    let mirror = targets
        .lines()
        .find_map(|line| line.strip_suffix(&format!(" {codename}")))
        .context("no mirror of the release itself")?;
    eprintln!("set-up: adding {suite}");
    fs::write("/etc/apt/sources.list.d/waft-backports.list", format!("deb {mirror} {suite} main\n"))?;
    Ok(suite)
}
