//! The C interface, built and run: `libwaft.a` for a target, linked into tests/c by a C compiler or by CMake.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use waft::Model;
use waft_host::export::precision_name;

use crate::boards::{self, Board, Tool};
use crate::build::{self, Contents};
use crate::emulate::{Printed, Request};
use crate::repository::root;
use crate::setup;

/// How C is compiled for a board.
struct Compiler {
    board: &'static str,
    tool: Tool,
    flags: &'static [&'static str],
    code_start: &'static str,
    data_start: &'static str,
}

const fn arm(board: &'static str, flags: &'static [&'static str]) -> Compiler {
    Compiler {
        board,
        tool: Tool { program: "arm-none-eabi-gcc", packages: &["gcc-arm-none-eabi"] },
        flags,
        code_start: "0x00000000",
        data_start: "0x20000000",
    }
}

const COMPILERS: [Compiler; 3] = [
    arm("thumbv6m-none-eabi", &["-mcpu=cortex-m0plus", "-mthumb"]),
    arm("thumbv7em-none-eabihf", &["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]),
    Compiler {
        board: "riscv32imac-unknown-none-elf",
        tool: Tool { program: "riscv64-unknown-elf-gcc", packages: &["gcc-riscv64-unknown-elf"] },
        flags: &["-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany"],
        code_start: "0x80000000",
        data_start: "0x80400000",
    },
];

/// The targets with a C firmware.
pub(crate) fn targets() -> impl Iterator<Item = &'static str> {
    COMPILERS.iter().map(|compiler| compiler.board)
}

/// How the library is optimized and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

/// Builds the library for a target and returns its path.
pub(crate) fn library(board: &Board, features: &[&str], folder: &Path, profile: Profile) -> anyhow::Result<PathBuf> {
    let name = if profile == Profile::Release { "release" } else { "dev" };
    let output = setup::toolchain(board.triple)?
        .build_as(&root().join("runtime").join("c"), board.triple, name)
        .args(["--no-default-features", "--features", &features.join(",")])
        .env("CARGO_TARGET_DIR", folder)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("libwaft.a does not build for {}:\n{}", board.triple, String::from_utf8_lossy(&output.stderr));
    }
    let name = if profile == Profile::Release { "release" } else { "debug" };
    Ok(folder.join(board.triple).join(name).join("libwaft.a"))
}

/// What a C firmware is linked from.
pub(crate) struct Parts {
    compiler: &'static Compiler,
    pub(crate) board: &'static Board,
    link_script: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Parts {
    pub(crate) fn new(target: &str) -> anyhow::Result<Self> {
        let compiler = COMPILERS.iter().find(|compiler| compiler.board == target).with_context(|| {
            format!("--target {target}: C firmware exists for {}", targets().collect::<Vec<_>>().join(", "))
        })?;
        let board = boards::find(target)?[0];
        board.emulator().into_iter().chain([compiler.tool]).try_for_each(setup::tool)?;
        let folder = root().join("target").join("c");
        std::fs::create_dir_all(&folder)?;
        let script = std::fs::read_to_string(sources().join("link.ld"))?
            .replace("CODE_START", compiler.code_start)
            .replace("DATA_START", compiler.data_start);
        let link_script = folder.join(format!("{target}.ld"));
        std::fs::write(&link_script, script)?;
        Ok(Self { compiler, board, link_script, folder })
    }

    /// A program of the compiler's, `gcc` or `g++`, with the options of the core.
    pub(crate) fn compiler(&self, program: &str) -> Command {
        let mut command = Command::new(self.compiler.tool.program.replace("gcc", program));
        command.args(self.compiler.flags);
        command.args(["-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-ffunction-sections"]);
        command
    }

    /// What links a program that has no operating system.
    pub(crate) fn linked(&self, command: &mut Command) {
        command.args(["-nostdlib", "-nostartfiles", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"]);
        command.arg("-T").arg(&self.link_script);
    }

    /// What the preprocessor is told of a model and a picture to start from, whose files are written: paths, then numbers.
    pub(crate) fn definitions(
        &self,
        Contents { model, original, .. }: Contents<'_>,
    ) -> anyhow::Result<[[String; 2]; 3]> {
        let [model_file, original_file] = ["model.waft", "original"].map(|name| self.folder.join(name));
        std::fs::write(&model_file, model)?;
        std::fs::write(&original_file, original)?;
        let quoted = |path: PathBuf| format!("\"{}\"", path.display());
        Ok([
            ["MODEL_FILE".into(), quoted(model_file)],
            ["ORIGINAL_FILE".into(), quoted(original_file)],
            ["ARENA_BYTES".into(), Model::from_bytes(model)?.arena_bytes().to_string()],
        ])
    }

    /// Builds the project of a folder with CMake; its program. Configures anew: a second time would hide what the first got
    /// wrong.
    pub(crate) fn build(
        &self,
        name: &str,
        source: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<PathBuf> {
        for tool in [Tool { program: "cmake", packages: &["cmake"] }, Tool { program: "make", packages: &["make"] }] {
            setup::tool(tool)?;
        }
        let build = self.folder.join(format!("cmake-{}-{name}", self.board.triple));
        if build.exists() {
            std::fs::remove_dir_all(&build)?;
        }
        eprintln!("building a C firmware for {} with CMake: {name}", self.board.triple);
        let mut command = Command::new("cmake");
        command.arg("-S").arg(source).arg("-B").arg(&build).args(["-G", "Unix Makefiles"]);
        command.args(["-DCMAKE_SYSTEM_NAME=Generic", "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"]);
        command.arg(format!("-DCMAKE_C_COMPILER={}", self.compiler.tool.program));
        command.arg(format!("-DCMAKE_C_FLAGS={}", self.compiler.flags.join(" ")));
        command.arg(format!("-DCMAKE_ASM_FLAGS={}", self.compiler.flags.join(" ")));
        command.arg(format!("-DLINK_SCRIPT={}", self.link_script.display()));
        configure(&mut command);
        succeed("CMake cannot configure", &mut command)?;
        succeed("CMake cannot build", Command::new("cmake").arg("--build").arg(&build))?;
        Ok(build.join("firmware"))
    }
}

/// The C firmware's sources.
pub(crate) fn sources() -> PathBuf {
    root().join("tests").join("c")
}

/// Runs a program of the C toolchain; an error with what it printed if it fails.
pub(crate) fn succeed(what: &str, command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy);
    if !output.status.success() {
        bail!("{what}:\n{}{}", text[0], text[1]);
    }
    Ok(text[0].to_string())
}

/// Draws an image with the C firmware of a target as CMake builds it, from the sources, or from an unpacked package.
pub(crate) fn draw_by_cmake(
    target: &str,
    model: &[u8],
    package: Option<&Path>,
    request: &Request,
) -> anyhow::Result<String> {
    let parts = Parts::new(target)?;
    let definitions = parts.definitions(Contents::of(model))?;
    let name = if package.is_some() { "package" } else { "sources" };
    let program = parts.build(name, &sources(), |command| {
        command.arg(format!("-DTARGET={}", parts.board.triple));
        command.args(definitions.map(|[name, value]| format!("-D{name}={}", value.trim_matches('"'))));
        command.args(package.map(|folder| format!("-DPACKAGE={}", folder.display())));
    })?;
    Printed::by(parts.board, &program, request)?.digest()
}

/// Draws an image with the C firmware of a target, from noise or from the contents' picture, and returns its digest. That it links
/// is the proof that no panic path survives.
pub(crate) fn draw(
    target: &str,
    contents: Contents<'_>,
    profile: Profile,
    request: &Request,
) -> anyhow::Result<String> {
    let Contents { model, original, .. } = contents;
    let parts = Parts::new(target)?;
    let definitions = parts.definitions(contents)?.map(|[name, value]| format!("-D{name}={value}"));
    let parsed = Model::from_bytes(model)?;
    let mut features = build::features(&parsed);
    if !original.is_empty() {
        features.push("original");
    }
    let library = library(parts.board, &features, &parts.folder, profile)?;
    let image = parts.folder.join(format!("{target}-{}.elf", precision_name(parsed.precision())));
    eprintln!("compiling the C firmware for {target}");
    let mut command = parts.compiler("gcc");
    command.arg("-std=c11").args(definitions);
    parts.linked(&mut command);
    command.arg("-I").arg(root().join("runtime").join("c"));
    command.args([sources().join("start.c"), sources().join("main.c"), library]).arg("-o").arg(&image);
    succeed(&format!("the C firmware does not build for {target}"), &mut command)?;
    Printed::by(parts.board, &image, request)?.digest()
}

/// The program of tests/c/host.c on this computer, linked by gcc with what `pkg-config` says of an unpacked package, or with
/// a library; checked by the sanitizers. Returns the digest of the image that it draws.
pub(crate) fn host(library: &Library<'_>, files: &[&Path]) -> anyhow::Result<String> {
    setup::tool(Tool { program: "gcc", packages: &["gcc", "libc6-dev"] })?;
    let mut flags: Vec<std::ffi::OsString> = vec![];
    match library {
        Library::Package(folder) => {
            setup::tool(Tool { program: "pkg-config", packages: &["pkg-config"] })?;
            let mut query = Command::new("pkg-config");
            query.args(["--cflags", "--libs", "waft"]).env("PKG_CONFIG_PATH", folder.join("lib").join("pkgconfig"));
            flags.extend(succeed("pkg-config", &mut query)?.split_whitespace().map(Into::into));
        }
        Library::File(path) => {
            flags.extend(["-I".into(), root().join("runtime").join("c").into(), path.as_os_str().into()]);
        }
    }
    let program = root().join("target").join("c").join("host");
    let mut compile = sanitized();
    compile.arg(sources().join("host.c")).args(flags).arg("-o").arg(&program);
    succeed("tests/c/host.c does not compile", &mut compile)?;
    run_sanitized("tests/c/host.c", &program, files)
}

/// The compiler of this computer, whose programs the sanitizers check.
pub(crate) fn sanitized() -> Command {
    let mut command = Command::new("gcc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g"]);
    command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover"]);
    command
}

/// Runs such a program on files; the digest that it prints. The sanitizers refuse to come behind a library that the environment
/// loads first.
pub(crate) fn run_sanitized(what: &str, program: &Path, files: &[&Path]) -> anyhow::Result<String> {
    Printed::text(succeed(what, Command::new(program).args(files).env_remove("LD_PRELOAD"))?).digest()
}

/// What the program of this computer is linked with.
pub(crate) enum Library<'a> {
    Package(&'a Path),
    File(&'a Path),
}
