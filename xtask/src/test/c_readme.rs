//! The C and the CMake of runtime/c/README.md, as they stand there: compiled for this computer and for a core, and run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use waft_host::shipped;

use super::firmware::on_host;
use super::readme::blocks;
use crate::build::Contents;
use crate::c::{self, Parts, succeed};
use crate::emulate::{PLAIN, Printed, Request};
use crate::repository::{link, root};

/// What the README's code draws.
const REQUEST: Request = Request { class: Some(7), seed: 42, ..PLAIN };

/// The target that its CMake names.
const TARGET: &str = "thumbv7em-none-eabihf";

/// Runs all of it over a library for this computer: a resident model, and one with its weights' own file.
pub(super) fn readme(library: &Path, resident: &Path, [streamed, weights]: [&Path; 2]) -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join("runtime").join("c").join("README.md"))?;
    let folder = root().join("target").join("c").join("readme");
    fs::create_dir_all(&folder)?;
    let mut sources: Vec<PathBuf> = vec![];
    for (index, block) in blocks(&text, "c").into_iter().enumerate() {
        let source = folder.join(format!("block{index}.c"));
        fs::write(&source, block)?;
        sources.push(source);
    }
    ensure!(sources.len() == 2, "runtime/c/README.md has {} blocks of C", sources.len());
    for target in c::targets() {
        let parts = Parts::new(target)?;
        for source in &sources {
            let mut compile = parts.compiler("gcc");
            compile.args(["-std=c11", "-fsyntax-only", "-I"]).arg(root().join("runtime").join("c")).arg(source);
            succeed(&format!("C of the README for {target}"), &mut compile)?;
        }
    }
    let program = folder.join("readme");
    let mut compile = c::sanitized();
    compile.arg(format!("-DMODEL_FILE=\"{}\"", resident.display())).arg("-I").arg(root().join("runtime").join("c"));
    compile.arg(c::sources().join("readme.c")).args(&sources).arg(library).arg("-o").arg(&program);
    succeed("C of the README does not compile", &mut compile)?;
    let model = shipped::read(resident)?;
    let expected = on_host(model.as_slice(), &REQUEST)?;
    for files in [&[][..], &[streamed, weights]] {
        let found = c::run_sanitized("C of the README", &program, files)?;
        ensure!(found == expected, "C of the README: digest {found} but the core's is {expected}");
    }
    by_cmake(&text, &folder, model.as_slice())?;
    eprintln!("the C and the CMake of runtime/c/README.md draw the core's picture");
    Ok(())
}

/// The firmware's sources under the README's lines of CMake, behind what every project begins with.
fn by_cmake(text: &str, folder: &Path, model: &[u8]) -> anyhow::Result<()> {
    let [block] = blocks(text, "cmake").try_into().ok().context("one block of CMake")?;
    ensure!(block.contains(TARGET), "the block names another target: {block}");
    let project = folder.join("project");
    fs::create_dir_all(&project)?;
    let waft = project.join("waft");
    if !waft.exists() {
        link("", &waft)?;
    }
    let whole = fs::read_to_string(c::sources().join("CMakeLists.txt"))?;
    let (head, rest) = whole.split_once("if(PACKAGE)").context("tests/c/CMakeLists.txt begins with its library")?;
    let (_, rest) = rest.split_once("endif()").context("tests/c/CMakeLists.txt begins with its library")?;
    let linked = "target_link_libraries(firmware PRIVATE waft::waft)\n";
    ensure!(rest.contains(linked) && block.contains(linked), "both link the same library");
    let sources = c::sources();
    let rest =
        rest.replace(linked, &block).replace("start.c main.c", &format!("{0}/start.c {0}/main.c", sources.display()));
    fs::write(project.join("CMakeLists.txt"), format!("{head}{rest}"))?;
    let parts = Parts::new(TARGET)?;
    let definitions = parts.definitions(Contents::of(model))?;
    let program = parts.build("readme", &project, |command| {
        command.args(definitions.map(|[name, value]| format!("-D{name}={}", value.trim_matches('"'))));
    })?;
    let found = Printed::by(parts.board, &program, &REQUEST)?.digest()?;
    let expected = on_host(model, &REQUEST)?;
    ensure!(found == expected, "CMake of the README: digest {found} but the host's is {expected}");
    Ok(())
}
