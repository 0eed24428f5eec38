//! The examples of the packages for build systems, built with what stands for these in tests/c/kits, and run.

use std::path::{Path, PathBuf};

use super::Kit;
use crate::c::{Parts, sources, succeed};
use crate::emulate::{PLAIN, Printed};

/// What the example of a build system's package prints on a target, when what stands for the build system has built it.
pub(crate) fn example(kit: Kit, target: &str, folder: &Path) -> anyhow::Result<String> {
    let parts = Parts::new(target)?;
    let stand_in = sources().join("kits");
    let program = match kit {
        Kit::EspIdf => parts.build("esp-idf", &folder.join("examples").join("digits"), |command| {
            command.env("IDF_PATH", stand_in.join("esp-idf")).arg("-DIDF_TARGET=esp32c6");
        })?,
        Kit::Zephyr => parts.build("zephyr", &folder.join("samples").join("digits"), |command| {
            command.arg(format!("-DZephyr_DIR={}", stand_in.join("zephyr").display()));
            command.arg(format!("-DZEPHYR_EXTRA_MODULES={}", folder.display()));
            command.args(["-DCONFIG_WAFT=y", "-DCONFIG_CPU_CORTEX_M4=y", "-DCONFIG_FP_HARDABI=y"]);
        })?,
        Kit::Arduino => sketch(&parts, &stand_in.join("arduino"), folder)?,
    };
    Ok(Printed::by(parts.board, &program, &PLAIN)?.whole().to_string())
}

/// Builds Arduino's example as its build does: the sketch is C++, and what calls it belongs to the board's core.
fn sketch(parts: &Parts, core: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let image = parts.folder.join("arduino.elf");
    let start = parts.folder.join("arduino-start.o");
    let mut command = parts.compiler("gcc");
    command.arg("-c").arg(sources().join("start.c")).arg("-o").arg(&start);
    succeed("the reset code does not compile", &mut command)?;
    let mut command = parts.compiler("g++");
    command.args(["-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]);
    parts.linked(&mut command);
    command.arg("-I").arg(core).arg("-I").arg(folder.join("src")).arg("-I").arg(folder.join("examples").join("Digits"));
    command.arg(core.join("main.cpp")).arg(&start);
    command.arg("-L").arg(folder.join("src").join("cortex-m0plus")).arg("-lwaft").arg("-o").arg(&image);
    succeed("Arduino's example does not build", &mut command)?;
    Ok(image)
}
