//! `package`: archives of the C library for every core, ready to be linked without Rust, and for the build systems of others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::boards::{self, BOARDS, Board};
use crate::c;
use crate::repository::root;

mod example;
mod kit;

pub(crate) use example::example;
pub(crate) use kit::{EXAMPLE_MODEL, Kit};

/// Makes archives of libwaft.a for every core (header, pkg-config and CMake files, licences), and for build systems.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple, or `all`: only these archives.
    #[arg(long)]
    target: Option<String>,
    /// Build system: only the archives for these, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "target")]
    kit: Vec<Kit>,
    /// Folder that the archives are written to.
    #[arg(long, default_value = "target/libwaft")]
    out: PathBuf,
}

/// What the libraries are built with: what the C library has by default, which is all of the precision that every core has, and
/// streamed weights.
const FEATURES: [&str; 2] = ["default", "stream"];

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
    let boards = match (&args.target, args.kit.as_slice()) {
        (Some(target), _) => boards::find(target)?,
        (None, []) => boards::find("all")?,
        (None, _) => vec![],
    };
    let kits = match (&args.target, args.kit.as_slice()) {
        (Some(_), _) => &[],
        (None, []) => Kit::value_variants(),
        (None, kits) => kits,
    };
    let cores = boards.into_iter().filter(|board| is_packaged(board)).map(|board| (unpacked(board, &args.out), false));
    let kits = kits.iter().map(|kit| {
        let triples: Vec<&str> = kit.libraries().iter().map(|[triple, _]| *triple).collect();
        // Arduino's programs take a ZIP file.
        (kit.unpacked(&triples, &args.out), *kit == Kit::Arduino)
    });
    for (folder, is_zip) in cores.chain(kits) {
        let folder = folder?;
        let archive = if is_zip { zip(&folder)? } else { tar(&folder)? };
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
    let folder = out.join(folder_name(board.triple));
    let lib = folder.join("lib");
    copy(&library(board)?, &lib.join("libwaft.a"))?;
    let sources = root().join("runtime").join("c");
    copy(&sources.join(HEADER), &folder.join("include").join(HEADER))?;
    let text = fs::read_to_string(sources.join("README.md"))?;
    fs::write(folder.join("README.md"), moved(&text))?;
    with_licences(&folder)?;
    let (pkg_config, cmake) = (lib.join("pkgconfig"), lib.join("cmake").join("waft"));
    for folder in [&pkg_config, &cmake] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(pkg_config.join("waft.pc"), fill(PKG_CONFIG))?;
    fs::write(cmake.join("waft-config.cmake"), CMAKE)?;
    fs::write(cmake.join("waft-config-version.cmake"), fill(CMAKE_VERSION))?;
    Ok(folder)
}

/// The C library's README where the package has it: the header lies in a folder of its own, the packages for build systems do not.
fn moved(text: &str) -> String {
    let packages = concat!("](", env!("CARGO_PKG_REPOSITORY"), "/blob/main/runtime/c/packages/");
    text.replace("](waft.h)", "](include/waft.h)").replace("](packages/", packages)
}

/// The C header.
const HEADER: &str = "waft.h";

/// What a package's folder is called.
fn folder_name(what: &str) -> String {
    format!("waft-{}-{what}", env!("CARGO_PKG_VERSION"))
}

/// The library of a board's triple.
fn library(board: &Board) -> anyhow::Result<PathBuf> {
    eprintln!("building libwaft.a for {}", board.triple);
    c::library(board, &FEATURES, &root().join("target").join("c"), c::Profile::Release)
}

/// A text with the version and the address of this repository.
fn fill(text: &str) -> String {
    text.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@URL@", env!("CARGO_PKG_REPOSITORY"))
}

/// Copies a file to where its folders may not exist yet.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Puts the licences into a folder.
fn with_licences(folder: &Path) -> anyhow::Result<()> {
    ["LICENSE-APACHE", "LICENSE-MIT"].iter().try_for_each(|name| copy(&root().join(name), &folder.join(name)))
}

/// The files in a folder, and their names in its archive, in order.
fn contents(folder: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let name = folder.file_name().context("a folder with a name")?;
    let mut files = vec![];
    list(folder, &mut files)?;
    files.sort();
    ensure!(!files.is_empty(), "{}: nothing to pack", folder.display());
    files
        .into_iter()
        .map(|file| {
            let inside = Path::new(name).join(file.strip_prefix(folder)?);
            Ok((file, inside))
        })
        .collect()
}

/// Beside a folder, a file of its name with an ending.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{name}{ending}"))
}

/// The folder as a `.tar.gz` beside it: the same bytes for the same contents.
fn tar(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = beside(folder, ".tar.gz");
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&path)?, Compression::best()));
    tar.mode(tar::HeaderMode::Deterministic);
    for (file, inside) in contents(folder)? {
        tar.append_path_with_name(&file, inside)?;
    }
    tar.into_inner()?.finish()?;
    Ok(path)
}

/// The folder as a `.zip` beside it: the same bytes for the same contents.
fn zip(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = beside(folder, ".zip");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path)?);
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    for (file, inside) in contents(folder)? {
        let name = inside.to_str().context("names are ASCII")?.replace(std::path::MAIN_SEPARATOR, "/");
        zip.start_file(name, options)?;
        std::io::copy(&mut fs::File::open(&file)?, &mut zip)?;
    }
    zip.finish()?;
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

#[cfg(test)]
mod tests {
    use super::moved;

    #[test]
    fn links_of_the_packaged_readme_lead_to_what_is_packaged() {
        let text = moved(include_str!("../../../runtime/c/README.md"));
        let targets: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(targets.contains(&"include/waft.h"), "{targets:?}");
        assert!(
            targets.iter().all(|target| *target == "include/waft.h" || target.starts_with("https://")),
            "{targets:?}"
        );
    }
}
