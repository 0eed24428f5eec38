//! The C interface: its firmware draws the host's images however it is linked, and misuse is refused.

use anyhow::ensure;
use waft::Model;
use waft_host::export::ExportOptions;
use waft_host::sample::{Batch, draw};
use waft_host::schedule::Solver;
use waft_host::shipped;

use super::c_readme;
use super::firmware::{FromPicture, GUIDED, exported, from_pictures, on_host};
use crate::boards;
use crate::build::Contents;
use crate::c::{self, Library, Profile};
use crate::emulate::{PLAIN, Request};
use crate::package::{self, EXAMPLE_MODEL, Kit};
use crate::repository::root;

/// What tests/c/host.c draws.
const HOST: Request = Request { class: Some(5), seed: 5, steps: Some(10), ..PLAIN };
const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs all of it.
pub(super) fn interface() -> anyhow::Result<()> {
    let bytes = shipped::find("digits", None, None, &())?;
    let digits = bytes.as_slice();
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        on_this_computer(digits)?;
    }
    let expected = on_host(digits, &GUIDED)?;
    for target in c::targets() {
        let found = c::draw(target, Contents::of(digits), Profile::Release, &GUIDED)?;
        ensure!(found == expected, "C on {target}: digest {found} but the host's is {expected}");
        eprintln!("{target}: the C firmware draws the host's image");
    }
    let solver = Some(Solver::DpmSolver);
    let export = exported("digits", &ExportOptions { solver, calibration_images: 4, ..ExportOptions::default() })?;
    let looking_back = export.bytes.as_slice();
    let expected_back = on_host(looking_back, &GUIDED)?;
    for target in c::targets() {
        let found = c::draw(target, Contents::of(looking_back), Profile::Release, &GUIDED)?;
        ensure!(found == expected_back, "DPM-Solver++ in C on {target}: digest {found}, the host's is {expected_back}");
        for (sampler, model) in [("DDIM", digits), ("DPM-Solver++", looking_back)] {
            for FromPicture { what, request, original, expected } in from_pictures(model)? {
                let contents = Contents { original: &original, ..Contents::of(model) };
                let found = c::draw(target, contents, Profile::Release, &request)?;
                ensure!(found == expected, "{what} by {sampler} in C on {target}: digest {found}, not {expected}");
            }
        }
    }
    eprintln!("DPM-Solver++, image-to-image, inpainting: the C firmware draws the host's image on every target");
    let target = "thumbv7em-none-eabihf";
    let found = c::draw(target, Contents::of(digits), Profile::Debug, &GUIDED)?;
    ensure!(found == expected, "the debug profile on {target}: digest {found} but the host's is {expected}");
    let package = package::unpacked(boards::find(target)?[0], &root().join("target").join("libwaft"))?;
    for package in [None, Some(package.as_path())] {
        let found = c::draw_by_cmake(target, digits, package, &GUIDED)?;
        ensure!(found == expected, "by CMake on {target}: digest {found} but the host's is {expected}");
    }
    [
        (Kit::EspIdf, "riscv32imac-unknown-none-elf"),
        (Kit::Zephyr, "thumbv7em-none-eabihf"),
        (Kit::Arduino, "thumbv6m-none-eabi"),
    ]
    .into_iter()
    .try_for_each(|(kit, target)| example(kit, target))
}

/// The example of a build system's package builds, with what stands for the build system, and prints the host's picture.
fn example(kit: Kit, target: &str) -> anyhow::Result<()> {
    const SHADES: &[u8; 10] = b" .:-=+*#%@";
    let model = shipped::read(&shipped::models_folder().join(EXAMPLE_MODEL))?;
    let folder = kit.unpacked(&[target], &root().join("target").join("libwaft"))?;
    let found = package::example(kit, target, &folder)?;
    let request = Request { class: Some(7), seed: 1, ..PLAIN };
    let batch = Batch { request: request.on_host(), seed: request.seed, count: 1, ..Batch::default() };
    let images = draw(&Model::from_bytes(model.as_slice())?, &batch, &())?;
    let pixels = images.iter().flat_map(|image| image.bytes.chunks(8)).map(|row| {
        row.iter().map(|&pixel| char::from(SHADES[usize::from(pixel) * 9 / 255])).chain(['\n']).collect::<String>()
    });
    let expected: String = pixels.collect();
    ensure!(found == expected, "{kit:?} on {target} prints\n{found}but the host's picture is\n{expected}");
    eprintln!("{kit:?}: its example prints the host's picture on {target}");
    Ok(())
}

/// Misuse is refused, and resident and streamed weights give the host's image, in both profiles and from a package.
fn on_this_computer(digits: &[u8]) -> anyhow::Result<()> {
    let folder = root().join("target").join("c");
    std::fs::create_dir_all(&folder)?;
    let resident = folder.join("resident.waft");
    std::fs::write(&resident, digits)?;
    let export = exported("digits", &ExportOptions { stream: Some(16 * 1024), ..ExportOptions::default() })?;
    let [streamed, weights] = ["streamed.waft", "streamed.weights"].map(|name| folder.join(name));
    std::fs::write(&streamed, export.bytes.as_slice())?;
    std::fs::write(&weights, export.weights.unwrap_or_default())?;

    let board = boards::find(HOST_TARGET)?[0];
    let features = ["i8", "attention", "conditioning", "original", "guidance-rescale", "thresholding", "stream"];
    let libraries = [Profile::Release, Profile::Debug].map(|profile| c::library(board, &features, &folder, profile));
    let [release, debug] = libraries;
    let (release, debug) = (release?, debug?);
    c_readme::readme(&release, &resident, [&streamed, &weights])?;
    let package = package::unpacked(board, &root().join("target").join("libwaft"))?;
    let expected = on_host(digits, &HOST)?;
    for library in [Library::File(&release), Library::File(&debug), Library::Package(&package)] {
        for files in [&[resident.as_path()][..], &[&streamed, &weights]] {
            let found = c::host(&library, files)?;
            ensure!(found == expected, "tests/c/host.c: digest {found} but the core's is {expected}");
        }
    }
    // Operations that digits do not have: what is packaged leaves none out.
    let options =
        ExportOptions { budget_flash: Some(2_000_000_000), calibration_images: 4, ..ExportOptions::default() };
    let export = exported("digits", &options)?;
    let stored = folder.join("stored.waft");
    std::fs::write(&stored, export.bytes.as_slice())?;
    let expected = on_host(export.bytes.as_slice(), &HOST)?;
    let found = c::host(&Library::Package(&package), &[&stored])?;
    ensure!(found == expected, "the package with stored tiles: digest {found} but the core's is {expected}");
    eprintln!("on this computer: misuse is refused, resident and streamed weights draw the core's image");
    Ok(())
}
