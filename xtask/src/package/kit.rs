//! The library as the build systems of others take it: a component of ESP-IDF, a module of Zephyr, a library of Arduino.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use waft::Model;
use waft_host::shipped;

use super::{HEADER, copy, fill, folder_name, library, list, with_licences};
use crate::boards;
use crate::repository::root;

/// A build system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kit {
    /// A component of ESP-IDF, for Espressif's RISC-V chips.
    EspIdf,
    /// A module of Zephyr.
    Zephyr,
    /// A precompiled library of Arduino.
    Arduino,
}

/// The model of the examples: small enough for most boards.
pub(crate) const EXAMPLE_MODEL: &str = "digits/digits-1step-i4.waft";

/// Where a library lies that was built for a triple: Zephyr's module and ESP-IDF's component choose by the triple, Arduino by
/// `build.mcu` and its floating-point options.
const ESP_IDF: [[&str; 2]; 2] = [
    ["riscv32imc-unknown-none-elf", "lib/riscv32imc-unknown-none-elf"],
    ["riscv32imac-unknown-none-elf", "lib/riscv32imac-unknown-none-elf"],
];
const ZEPHYR: [[&str; 2]; 7] = [
    ["thumbv6m-none-eabi", "lib/thumbv6m-none-eabi"],
    ["thumbv7m-none-eabi", "lib/thumbv7m-none-eabi"],
    ["thumbv7em-none-eabi", "lib/thumbv7em-none-eabi"],
    ["thumbv7em-none-eabihf", "lib/thumbv7em-none-eabihf"],
    ["thumbv8m.main-none-eabihf", "lib/thumbv8m.main-none-eabihf"],
    ["riscv32imc-unknown-none-elf", "lib/riscv32imc-unknown-none-elf"],
    ["riscv32imac-unknown-none-elf", "lib/riscv32imac-unknown-none-elf"],
];
const ARDUINO: [[&str; 2]; 10] = [
    ["thumbv6m-none-eabi", "src/cortex-m0plus"],
    ["thumbv7m-none-eabi", "src/cortex-m3"],
    ["thumbv7em-none-eabi", "src/cortex-m4/fpv4-sp-d16-softfp"],
    ["thumbv7em-none-eabihf", "src/cortex-m4/fpv4-sp-d16-hard"],
    ["thumbv7em-none-eabi", "src/cortex-m7/fpv5-d16-softfp"],
    ["thumbv7em-none-eabihf", "src/cortex-m7/fpv5-d16-hard"],
    ["thumbv8m.main-none-eabihf", "src/cortex-m33/fpv5-sp-d16-hard"],
    ["riscv32imc-unknown-none-elf", "src/esp32c3"],
    ["riscv32imac-unknown-none-elf", "src/esp32c6"],
    ["riscv32imac-unknown-none-elf", "src/esp32h2"],
];

impl Kit {
    /// Its folder in runtime/c/packages.
    const fn name(self) -> &'static str {
        match self {
            Self::EspIdf => "esp-idf",
            Self::Zephyr => "zephyr",
            Self::Arduino => "arduino",
        }
    }

    /// Triples, and the folders of their libraries.
    pub(crate) const fn libraries(self) -> &'static [[&'static str; 2]] {
        match self {
            Self::EspIdf => &ESP_IDF,
            Self::Zephyr => &ZEPHYR,
            Self::Arduino => &ARDUINO,
        }
    }

    /// Builds it as a folder in `out`, with the libraries of these triples, and returns the folder.
    pub(crate) fn unpacked(self, triples: &[&str], out: &Path) -> anyhow::Result<PathBuf> {
        let sources = root().join("runtime").join("c").join("packages").join(self.name());
        let folder = out.join(folder_name(self.name()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let bytes = shipped::read(&shipped::models_folder().join(EXAMPLE_MODEL))?;
        let arena = Model::from_bytes(bytes.as_slice())?.arena_bytes().to_string();
        let mut files = vec![];
        list(&sources, &mut files)?;
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let to = folder.join(file.strip_prefix(&sources)?);
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::write(to, fill(&text).replace("@ARENA@", &arena))?;
        }
        for [triple, place] in self.libraries().iter().filter(|[triple, _]| triples.contains(triple)) {
            copy(&library(boards::find(triple)?[0])?, &folder.join(place).join("libwaft.a"))?;
        }
        let header = if self == Self::Arduino { "src" } else { "include" };
        copy(&root().join("runtime").join("c").join(HEADER), &folder.join(header).join(HEADER))?;
        with_licences(&folder)?;
        match self {
            Self::EspIdf => fs::write(folder.join("examples/digits/main/model.waft"), bytes.as_slice())?,
            Self::Zephyr => fs::write(folder.join("samples/digits/src/model.waft"), bytes.as_slice())?,
            Self::Arduino => fs::write(folder.join("examples/Digits/model.h"), array(bytes.as_slice()))?,
        }
        Ok(folder)
    }
}

/// Bytes as an array in C++.
fn array(bytes: &[u8]) -> String {
    let mut text = "alignas(16) const unsigned char model[] = {".to_string();
    for (index, byte) in bytes.iter().enumerate() {
        let separator = if index % 24 == 0 { "\n  " } else { "" };
        // A string takes whatever is written to it.
        let _infallible = write!(text, "{separator}{byte},");
    }
    text + "\n};\n"
}
