//! `package`: archives of the C library for every core, ready to be linked without Rust.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::boards::{self, BOARDS, Board};
use crate::c;
use crate::repository::root;

/// Makes archives of libwaft.a for every core: header, pkg-config and CMake files, licences.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple, or `all`.
    #[arg(long, default_value = "all")]
    target: String,
    /// Folder that the archives are written to.
    #[arg(long, default_value = "target/libwaft")]
    out: PathBuf,
}

/// What the libraries are built with: all of the precision that every core has, and streamed weights.
const FEATURES: [&str; 9] =
    ["i8", "i4", "step-scales", "attention", "conditioning", "history", "original", "guidance-rescale", "stream"];

/// The file that `pkg-config` reads; it stands two folders below the package's own.
const PKG_CONFIG: &str = "prefix=${pcfiledir}/../..

Name: waft
Description: Diffusion models on microcontrollers
URL: @URL@
Version: @VERSION@
Cflags: -I${prefix}/include
Libs: -L${prefix}/lib -lwaft
";

/// What `find_package(waft CONFIG)` reads; it stands three folders below the package's own.
const CMAKE: &str = "get_filename_component(waft_prefix \"${CMAKE_CURRENT_LIST_DIR}/../../..\" ABSOLUTE)
if(NOT TARGET waft::waft)
  add_library(waft::waft STATIC IMPORTED)
  set_target_properties(waft::waft PROPERTIES
    IMPORTED_LOCATION ${waft_prefix}/lib/libwaft.a
    INTERFACE_INCLUDE_DIRECTORIES ${waft_prefix}/include)
endif()
";

/// Before 1.0 a version is compatible with those of its minor number.
const CMAKE_VERSION: &str = "set(PACKAGE_VERSION @VERSION@)
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION OR NOT PACKAGE_FIND_VERSION_MAJOR EQUAL @MAJOR@
   OR (PACKAGE_FIND_VERSION_COUNT GREATER 1 AND NOT PACKAGE_FIND_VERSION_MINOR EQUAL @MINOR@))
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()
";

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let boards = boards::find(&args.target)?;
    for board in boards.into_iter().filter(|board| is_packaged(board)) {
        let folder = unpacked(board, &args.out)?;
        let archive = archive(&folder)?;
        println!("{} ({} bytes)", archive.display(), fs::metadata(&archive)?.len());
    }
    Ok(())
}

/// Whether it is the first board of its triple, and a C compiler links for it.
fn is_packaged(board: &Board) -> bool {
    let first = BOARDS.iter().find(|other| other.triple == board.triple);
    !board.triple.starts_with("wasm") && first.is_some_and(|first| first.name == board.name)
}

/// Builds the package of a board's triple as a folder in `out` and returns it.
pub(crate) fn unpacked(board: &Board, out: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("packing libwaft.a for {}", board.triple);
    let library = c::library(board, &FEATURES, &root().join("target").join("c"), c::Profile::Release)?;
    let version = env!("CARGO_PKG_VERSION");
    let folder = out.join(format!("waft-{version}-{}", board.triple));
    let (include, lib) = (folder.join("include"), folder.join("lib"));
    let (pkg_config, cmake) = (lib.join("pkgconfig"), lib.join("cmake").join("waft"));
    for folder in [&include, &pkg_config, &cmake] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let fill = |text: &str| {
        text.replace("@VERSION@", version)
            .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
            .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
            .replace("@URL@", env!("CARGO_PKG_REPOSITORY"))
    };
    fs::copy(&library, lib.join("libwaft.a"))?;
    fs::copy(root().join("runtime").join("c").join("waft.h"), include.join("waft.h"))?;
    fs::copy(root().join("runtime").join("c").join("README.md"), folder.join("README.md"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root().join(licence), folder.join(licence))?;
    }
    fs::write(pkg_config.join("waft.pc"), fill(PKG_CONFIG))?;
    fs::write(cmake.join("waft-config.cmake"), CMAKE)?;
    fs::write(cmake.join("waft-config-version.cmake"), fill(CMAKE_VERSION))?;
    Ok(folder)
}

/// The folder as a `.tar.gz` beside it: the same bytes for the same contents.
fn archive(folder: &Path) -> anyhow::Result<PathBuf> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("a folder with a name")?;
    let path = folder.with_file_name(format!("{name}.tar.gz"));
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&path)?, Compression::best()));
    tar.mode(tar::HeaderMode::Deterministic);
    let mut files = vec![];
    list(folder, &mut files)?;
    files.sort();
    ensure!(!files.is_empty(), "{}: nothing to pack", folder.display());
    for file in files {
        tar.append_path_with_name(&file, Path::new(name).join(file.strip_prefix(folder)?))?;
    }
    tar.into_inner()?.finish()?;
    Ok(path)
}

/// The files in a folder and its folders.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { list(&entry.path(), files)? } else { files.push(entry.path()) }
    }
    Ok(())
}
