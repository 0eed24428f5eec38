//! The firmware draws the host's images on every target, within its limits, without a panic path or a float routine.

use anyhow::{Context, bail, ensure};
use rayon::prelude::*;
use waft::{Model, Precision};
use waft_host::checkpoint::{self, Checkpoint};
use waft_host::condition::Conditions;
use waft_host::cost;
use waft_host::export::{Export, ExportOptions, Recipe, export};
use waft_host::sample::{Batch, Source, digest, draw};
use waft_host::schedule::Solver;
use waft_host::shipped;

use super::cores;
use crate::boards;
use crate::build::{self, Contents};
use crate::counts;
use crate::emulate::{PLAIN, Request};
use crate::measure::{Firmware, Report};
use crate::repository::root;

/// What every target draws with `digits`; the costs of the first are recorded.
const REQUESTS: [Request; 4] = [
    counts::REQUEST,
    Request { class: Some(0), seed: 2, steps: Some(10), ..PLAIN },
    Request { class: Some(3), seed: u64::MAX, steps: Some(20), ..PLAIN },
    GUIDED,
];
pub(super) const GUIDED: Request = Request { class: Some(5), seed: 5, steps: Some(10), guidance: Some(2.5), ..PLAIN };

/// Limits of the digits firmware's code and constants, the harness included.
const TEXT_BYTES: [(&str, u64); 2] = [("thumbv6m-none-eabi", 34 * 1024), ("thumbv7em-none-eabihf", 40 * 1024)];
/// Limits of the digits firmware on every target.
const DATA_BSS_BYTES: u64 = 512;
const STACK_BYTES: u64 = 3072;
/// The same where addresses have 64 bits, which is no microcontroller.
const WIDE_STACK_BYTES: u64 = 4096;
const STEP_INSTRUCTIONS: u64 = 2_000_000;

/// Memory of the digits firmware whose weights pass through 16 KiB.
const STREAM_BYTES: u64 = 20 * 1024;

/// The target of what one target shows.
const CORTEX_M4F: &str = "thumbv7em-none-eabihf";

/// Runs all of it.
pub(super) fn firmware(missing: &mut Vec<String>) -> anyhow::Result<()> {
    let bytes = shipped::find("digits", None, None, &())?;
    let digits = bytes.as_slice();
    cores::kernels_on_cores()?;
    let reports = every_target(digits)?;
    estimates(digits, &counts::REQUEST, &reports)?;
    missing.extend(counts::compare(&reports)?);
    streamed()?;
    let four_bits = shipped::read(&shipped::models_folder().join("digits/digits-i4.waft"))?;
    let reports = same_image("four-bit weights", four_bits.as_slice())?;
    estimates(four_bits.as_slice(), &GUIDED, &reports)?;
    step_scales()?;
    looking_back()?;
    from_a_picture()?;
    thresholding()?;
    learned_variance()?;
    classifier_guidance()?;
    rows()?;
    policy()?;
    no_long_step()?;
    let half = shipped::find("digits", Some(Precision::F16), None, &())?;
    let board = boards::find(CORTEX_M4F)?[0];
    let (_, panic_free) = build::image(board, Contents::of(half.as_slice()))?;
    ensure!(panic_free, "a panic path survives in the f16 precision");
    let floats = build::float_routines(digits)?;
    if !floats.is_empty() {
        bail!("the i8 firmware contains float routines: {}", floats.join(", "));
    }
    eprintln!("no float routine in the soft-float image");
    Ok(())
}

/// The digest of the host's image.
pub(super) fn on_host(model: &[u8], request: &Request) -> anyhow::Result<String> {
    drawn(model, request, None)
}

/// The same from a picture.
fn drawn(model: &[u8], request: &Request, original: Option<Source>) -> anyhow::Result<String> {
    let batch = Batch { request: request.on_host(), seed: request.seed, count: 1, original, ..Batch::default() };
    let images = draw(&Model::from_bytes(model)?, &batch, &())?;
    Ok(digest(images.iter().map(|image| image.bytes.as_slice())))
}

/// A shipped checkpoint exported in another way.
pub(super) fn exported(name: &str, options: &ExportOptions) -> anyhow::Result<Export> {
    let checkpoint = Checkpoint::open(shipped::models_folder().join(name).join("checkpoint"))?;
    Ok(export(&checkpoint, options, &())?)
}

/// Digits on every target that this machine can run. Returns what the first request took on each.
fn every_target(model: &[u8]) -> anyhow::Result<Vec<Report>> {
    let expected: Vec<String> =
        REQUESTS.iter().map(|request| on_host(model, request)).collect::<anyhow::Result<_>>()?;
    let mut reports = vec![];
    for board in boards::find("all")? {
        let image = Firmware::build(board, Contents::of(model))?;
        // An emulator takes one core.
        let drawn: Vec<Report> =
            REQUESTS.par_iter().map(|request| image.draw(request)).collect::<anyhow::Result<_>>()?;
        for ((request, expected), report) in REQUESTS.iter().zip(&expected).zip(drawn) {
            let what = format!("{}: {request:?}", board.name);
            ensure!(&report.digest == expected, "{what}: digest {} but the host's is {expected}", report.digest);
            let is_wide = ["aarch64", "x86_64"].iter().any(|wide| report.target.starts_with(wide));
            let limit = if is_wide { WIDE_STACK_BYTES } else { STACK_BYTES };
            ensure!(report.stack_bytes <= limit, "{what}: stack of {} bytes", report.stack_bytes);
            let step = report.max_step_instructions.unwrap_or(0);
            ensure!(step <= STEP_INSTRUCTIONS, "{what}: a step of {step} instructions");
            ensure!(report.panic_free, "{what}: a panic path survives");
            let text = TEXT_BYTES.iter().find(|(target, _)| *target == board.name);
            ensure!(text.is_none_or(|(_, limit)| report.text_bytes <= *limit), "{what}: text {}", report.text_bytes);
            ensure!(report.data_bss_bytes <= DATA_BSS_BYTES, "{what}: data and bss of {} bytes", report.data_bss_bytes);
            if *request == counts::REQUEST {
                reports.push(report);
            }
        }
        eprintln!("{}: {} images as on the host", board.name, expected.len());
    }
    Ok(reports)
}

/// What `inspect` says that a picture takes is near what was counted. (The tests of waft-host hold the estimates of every shipped
/// model on every core against the counts that `cargo xtask cost` recorded; this tells whether the record is still true.)
fn estimates(model: &[u8], request: &Request, reports: &[Report]) -> anyhow::Result<()> {
    let parsed = Model::from_bytes(model)?;
    let list = request.on_host().schedule(&parsed)?;
    let guided = if request.guidance.is_some() { list.steps } else { 0 };
    for report in reports {
        let Some(counted) = report.instructions else { continue };
        let core = cost::cores().get(&report.target).with_context(|| format!("{}: {REFIT}", report.target))?;
        let estimate =
            cost::of_picture(core, &parsed, &list, guided).with_context(|| format!("{}: {REFIT}", report.target))?;
        let percent = 100.0 * (estimate / counted as f64 - 1.0);
        let target = &report.target;
        let name = parsed.name();
        ensure!(percent.abs() <= 10.0, "{target}, {name}: the estimate is {percent:+.1} % from the count: {REFIT}");
    }
    eprintln!("{}: estimates are within 10 % of what was counted", parsed.name());
    Ok(())
}

/// What to do about estimates that are wrong.
const REFIT: &str = "fit the costs to the kernels again with `cargo xtask cost`";

/// Digits with weights that pass through 16 KiB draw the resident model's image on a Cortex-M4F in 20 KiB of memory.
fn streamed() -> anyhow::Result<()> {
    let export = exported("digits", &ExportOptions { stream: Some(16 * 1024), ..ExportOptions::default() })?;
    let weights = export.weights.unwrap_or_default();
    let board = boards::find(CORTEX_M4F)?[0];
    let report = Firmware::build(board, Contents { weights: &weights, ..Contents::of(export.bytes.as_slice()) })?
        .draw(&counts::REQUEST)?;
    let expected = on_host(shipped::find("digits", None, None, &())?.as_slice(), &counts::REQUEST)?;
    ensure!(report.digest == expected, "streamed: digest {} but the host's is {expected}", report.digest);
    ensure!(report.panic_free, "a panic path survives in streaming");
    let memory = report.arena_bytes + report.data_bss_bytes + report.stack_bytes;
    ensure!(memory <= STREAM_BYTES, "streaming takes {memory} bytes of memory");
    eprintln!("streamed weights: the same image in {memory} bytes of memory");
    Ok(())
}

/// Digits with activation scales of each step are the host's.
fn step_scales() -> anyhow::Result<()> {
    let recipe = Recipe { step_scales: true, ..Recipe::default() };
    let export = exported("digits", &ExportOptions { recipe, calibration_images: 4, ..ExportOptions::default() })?;
    same_image("scales of each step", export.bytes.as_slice()).map(drop)
}

/// Digits of DPM-Solver++, which keeps clean samples, are the host's.
fn looking_back() -> anyhow::Result<()> {
    let solver = Some(Solver::DpmSolver);
    let export = exported("digits", &ExportOptions { solver, calibration_images: 4, ..ExportOptions::default() })?;
    same_image("DPM-Solver++", export.bytes.as_slice()).map(drop)
}

/// A picture that a firmware starts from.
pub(super) struct FromPicture {
    pub(super) what: &'static str,
    pub(super) request: Request,
    /// What the firmware links: the picture, then its mask if it has one.
    pub(super) original: Vec<u8>,
    /// The digest of what the host draws.
    pub(super) expected: String,
}

/// Image-to-image and inpainting with a model.
pub(super) fn from_pictures(model: &[u8]) -> anyhow::Result<Vec<FromPicture>> {
    let [rows, columns, channels] = Model::from_bytes(model)?.image_shape();
    let image: Vec<u8> = (0..rows * columns * channels).map(|index| (index * 37 % 256) as u8).collect();
    let mask: Vec<u8> = (0..rows * columns).map(|pixel| if pixel % columns < columns / 2 { 0 } else { 255 }).collect();
    let cases = [("image-to-image", 4, None), ("inpainting", 0, Some(mask))].into_iter();
    cases
        .map(|(what, start, mask)| {
            let request = Request { seed: 5, class: Some(3), start, ..PLAIN };
            let original = [image.as_slice(), mask.as_deref().unwrap_or_default()].concat();
            let source = Source { image: image.clone(), mask, ..Source::default() };
            Ok(FromPicture { what, request, original, expected: drawn(model, &request, Some(source))? })
        })
        .collect()
}

/// Image-to-image and inpainting are the host's, with DDIM and with DPM-Solver++, which looks back.
fn from_a_picture() -> anyhow::Result<()> {
    for solver in [None, Some(Solver::DpmSolver)] {
        let export = exported("digits", &ExportOptions { solver, calibration_images: 4, ..ExportOptions::default() })?;
        let model = export.bytes.as_slice();
        for FromPicture { what, request, original, expected } in from_pictures(model)? {
            for target in ["thumbv6m-none-eabi", CORTEX_M4F, "riscv32imac-unknown-none-elf"] {
                let contents = Contents { original: &original, ..Contents::of(model) };
                let report = Firmware::build(boards::find(target)?[0], contents)?.draw(&request)?;
                let found = &report.digest;
                ensure!(*found == expected, "{target}, {what}: digest {found} but the host's is {expected}");
                ensure!(report.panic_free, "{target}: a panic path survives with {what}");
            }
            eprintln!("{what}{}: the same image", if solver.is_some() { " by DPM-Solver++" } else { "" });
        }
    }
    Ok(())
}

/// Dynamic thresholding, whose quantile is over a whole picture, is the host's.
fn thresholding() -> anyhow::Result<()> {
    let folder = shipped::models_folder().join("digits").join("checkpoint");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("scheduler_config.json"))?)?;
    config["thresholding"] = true.into();
    config["sample_max_value"] = 3.0.into();
    let path = root().join("target").join("firmware").join("thresholding.json");
    std::fs::write(&path, config.to_string())?;
    let options = checkpoint::Options { scheduler_config: Some(path), ..Default::default() };
    let checkpoint = Checkpoint::open_with(folder, &options)?;
    let export = export(&checkpoint, &ExportOptions { calibration_images: 4, ..ExportOptions::default() }, &())?;
    same_image("dynamic thresholding", export.bytes.as_slice()).map(drop)
}

/// Noise that a network scales is the host's.
fn learned_variance() -> anyhow::Result<()> {
    let path = root().join("target").join("firmware").join("learned_variance.json");
    std::fs::write(&path, r#"{"_class_name": "DDPMScheduler", "variance_type": "learned_range"}"#)?;
    let options = checkpoint::Options { scheduler_config: Some(path), ..Default::default() };
    let checkpoint = Checkpoint::open_with(root().join("tests/goldens/guided_diffusion"), &options)?;
    let options = ExportOptions { steps: vec![3], calibration_images: 2, ..ExportOptions::default() };
    let request = Request { steps: None, seed: 1, class: Some(1), ..PLAIN };
    same_image_of("learned variances", export(&checkpoint, &options, &())?.bytes.as_slice(), &request).map(drop)
}

/// What a classifier guides is the host's picture.
fn classifier_guidance() -> anyhow::Result<()> {
    let digits = shipped::models_folder().join("digits");
    let classifier = Some(digits.join("guide"));
    let options = ExportOptions { steps: vec![3], calibration_images: 4, classifier, ..ExportOptions::default() };
    let export = export(&Checkpoint::open(digits.join("checkpoint"))?, &options, &())?;
    let request = Request { steps: None, seed: 1, class: Some(7), guidance: Some(3.0), ..PLAIN };
    same_image_of("classifier guidance", export.bytes.as_slice(), &request).map(drop)
}

/// What filters along rows make is the host's.
fn rows() -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(root().join("tests/goldens/unet1d_sound"))?;
    let options = ExportOptions { steps: vec![3], calibration_images: 2, ..ExportOptions::default() };
    let request = Request { steps: None, seed: 1, class: None, ..PLAIN };
    same_image_of("filters along rows", export(&checkpoint, &options, &())?.bytes.as_slice(), &request).map(drop)
}

/// The policy's actions are the host's, bit for bit, and no step of it is long.
fn policy() -> anyhow::Result<()> {
    let bytes = shipped::find("reach", None, None, &())?;
    let model = Model::from_bytes(bytes.as_slice())?;
    let len = model.observation_len().context("reach is a policy")?;
    let observations = shipped::models_folder().join("reach").join("observations.safetensors");
    let conditions = Conditions::read_observations(&observations, len)?;
    let observation = conditions.observation_bytes(&model, 0);
    let draws = (1..=3).map(|seed| {
        let batch = Batch { seed, count: 1, conditions: conditions.clone(), ..Batch::default() };
        let drawn = draw(&model, &batch, &())?;
        Ok((Request { seed, ..PLAIN }, digest(drawn.iter().map(|drawn| drawn.bytes.as_slice()))))
    });
    let draws: Vec<(Request, String)> = draws.collect::<anyhow::Result<_>>()?;
    let mut reports = vec![];
    for target in ["thumbv6m-none-eabi", CORTEX_M4F, "riscv32imac-unknown-none-elf"] {
        let contents = Contents { observation: &observation, ..Contents::of(bytes.as_slice()) };
        let image = Firmware::build(boards::find(target)?[0], contents)?;
        for (request, expected) in &draws {
            let report = image.draw(request)?;
            let found = &report.digest;
            ensure!(found == expected, "{target}, reach: digest {found} but the host's is {expected}");
            ensure!(report.panic_free, "{target}: a panic path survives in a policy");
            let step = report.max_step_instructions.unwrap_or(0);
            ensure!(step <= STEP_INSTRUCTIONS, "{target}, reach: a step of {step} instructions");
            reports.push(report);
        }
    }
    eprintln!("reach: the same actions");
    estimates(bytes.as_slice(), &PLAIN, &reports)
}

/// A model draws the host's image on cores that load 16 bits and that do not, without a panic path. Returns what it took.
fn same_image(what: &str, model: &[u8]) -> anyhow::Result<Vec<Report>> {
    same_image_of(what, model, &GUIDED)
}

/// The same for a request.
fn same_image_of(what: &str, model: &[u8], request: &Request) -> anyhow::Result<Vec<Report>> {
    let expected = on_host(model, request)?;
    let mut reports = vec![];
    for target in ["thumbv6m-none-eabi", CORTEX_M4F, "riscv32imac-unknown-none-elf"] {
        let report = Firmware::build(boards::find(target)?[0], Contents::of(model))?.draw(request)?;
        ensure!(report.digest == expected, "{target}, {what}: digest {} but the host's is {expected}", report.digest);
        ensure!(report.panic_free, "{target}: a panic path survives with {what}");
        reports.push(report);
    }
    eprintln!("{what}: the same image");
    Ok(reports)
}

/// No step of a 32×32 model is long on a Cortex-M4F.
fn no_long_step() -> anyhow::Result<()> {
    let options = ExportOptions { steps: vec![1], calibration_images: 4, ..ExportOptions::default() };
    let export = exported("emoji", &options)?;
    let request = Request { steps: None, seed: 1, class: Some(0), ..PLAIN };
    let report =
        Firmware::build(boards::find(CORTEX_M4F)?[0], Contents::of(export.bytes.as_slice()))?.draw(&request)?;
    let step = report.max_step_instructions.unwrap_or(u64::MAX);
    ensure!(step <= STEP_INSTRUCTIONS, "emoji: a step of {step} instructions");
    ensure!(report.panic_free, "a panic path survives in emoji, whose convolutions are computed by tiles");
    eprintln!("emoji: no step longer than {step} instructions");
    estimates(export.bytes.as_slice(), &request, &[report])
}
