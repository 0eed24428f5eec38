//! The page of runtime/web in a real browser: it draws the core's pictures and refuses what is no model.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use base64::Engine;
use waft::Model;
use waft_host::cost::chips::{self, CHIPS};
use waft_host::sample::{Batch, digest, draw};
use waft_host::shipped;

use super::firmware::GUIDED;
use crate::emulate::{PLAIN, Request};
use crate::repository::root;
use crate::setup;
use crate::web;

/// What the page is asked for by its address, and by its form.
const REQUESTS: [Request; 2] = [Request { class: Some(7), seed: 1, steps: Some(10), ..PLAIN }, GUIDED];
const BY_FORM: Request = Request { class: Some(3), seed: u64::MAX, steps: Some(20), ..PLAIN };

/// A window as large as a phone's, and the least height of what a finger presses.
const PHONE: &str = "390,1800";
const FINGER: u32 = 44;

/// Milliseconds of the browser's virtual time that a page may take.
const LIMIT: u32 = 120_000;

/// What stands before a picture's digest in the page; before it is drawn that is a dash.
const DIGEST: &str = "<output id=\"digest\">";

/// How often a page is shown until it has finished.
const ATTEMPTS: u32 = 5;

/// A browser and the folder of the pages that it is shown.
struct Browser {
    program: &'static str,
    folder: PathBuf,
}

impl Browser {
    /// Shows a page; what it prints.
    fn show(&self, page: &str, hash: &str, arguments: &[String]) -> anyhow::Result<String> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(self.program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        // Containers often have little shared memory; and virtual time must not run out while other threads compile the core.
        command.args(["--disable-dev-shm-usage", "--js-flags=--no-wasm-async-compilation"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--virtual-time-budget={LIMIT}")).args(arguments);
        command.arg(format!("file://{}#{hash}", self.folder.join(page).display()));
        let output = command.output().with_context(|| format!("cannot run {}", self.program))?;
        ensure!(output.status.success(), "{}: {}", self.program, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The document that a page has become, once it has what it is to have: on a busy machine virtual time was seen to run out
    /// before the page had drawn. What the document says is compared by the caller, whatever it is.
    fn document(
        &self,
        page: &str,
        hash: &str,
        window: &[String],
        is_finished: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let arguments = [&["--dump-dom".into()], window].concat();
        let mut document = self.show(page, hash, &arguments)?;
        for _ in 1..ATTEMPTS {
            if is_finished(&document) {
                break;
            }
            eprintln!("{page}#{hash}: not finished when the browser's time ran out; once more");
            document = self.show(page, hash, &arguments)?;
        }
        Ok(document)
    }

    /// A picture of a page in a window.
    fn screenshot(&self, name: &str, hash: &str, window: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let arguments = [format!("--screenshot={}", path.display()), format!("--window-size={window}")];
        self.show("index.html", hash, &arguments)?;
        ensure!(path.is_file(), "the browser made no {}", path.display());
        Ok(path)
    }
}

/// The address of a picture, behind its `#`.
fn hash(request: &Request) -> String {
    let number = |value: Option<String>| value.unwrap_or_default();
    format!(
        "model=digits&class={}&seed={}&steps={}&guidance={}",
        number(request.class.map(|class| class.to_string())),
        request.seed,
        number(request.steps.map(|steps| steps.to_string())),
        request.guidance.unwrap_or(1.0)
    )
}

/// The bytes of the core's picture on this machine.
fn on_host(model: &[u8], request: &Request) -> anyhow::Result<Vec<u8>> {
    let batch = Batch { request: request.on_host(), seed: request.seed, count: 1, ..Batch::default() };
    let images = draw(&Model::from_bytes(model)?, &batch, &())?;
    Ok(images.into_iter().next().context("no picture")?.bytes)
}

/// The text between two others.
fn between<'t>(text: &'t str, start: &str, end: &str) -> anyhow::Result<&'t str> {
    let from = text.find(start).with_context(|| format!("the document has no {start}"))? + start.len();
    let len = text[from..].find(end).with_context(|| format!("{start} does not end"))?;
    Ok(&text[from..from + len])
}

/// Runs all of it.
pub(super) fn browser() -> anyhow::Result<()> {
    let folder = root().join("target").join("web");
    let page = web::page()?;
    std::fs::write(folder.join("index.html"), &page)?;
    let script = std::fs::read_to_string(root().join("tests").join("web.js"))?;
    std::fs::write(folder.join("test.html"), format!("{page}<script>{script}</script>\n"))?;
    let browser = Browser { program: setup::browser()?, folder };
    let bytes = shipped::find("digits", None, None, &())?;
    for request in &REQUESTS {
        by_address(&browser, bytes.as_slice(), request)?;
    }
    by_hand(&browser, bytes.as_slice())?;
    for (name, window) in [("desktop.png", "1280,1500"), ("phone.png", PHONE)] {
        let path: PathBuf = browser.screenshot(name, &hash(&REQUESTS[0]), window)?;
        eprintln!("{}: look at it", Path::new("target").join("web").join(name).display());
        ensure!(std::fs::metadata(&path)?.len() > 10_000, "{} shows nothing", path.display());
    }
    Ok(())
}

/// A page with a picture in its address draws it, step by step.
fn by_address(browser: &Browser, model: &[u8], request: &Request) -> anyhow::Result<()> {
    let expected = digest([on_host(model, request)?.as_slice()]);
    let is_finished = |document: &str| between(document, DIGEST, "</output>").is_ok_and(|digest| digest != "–");
    let document = browser.document("index.html", &hash(request), &[], is_finished)?;
    let found = between(&document, DIGEST, "</output>")?;
    ensure!(found == expected, "{request:?}: the page's digest is {found:?}, the core's {expected}");
    let drawn = document.matches("aria-label=\"After step ").count();
    ensure!(Some(drawn as u32) == request.steps, "the page has shown {drawn} steps of {:?}", request.steps);
    let boxes = between(&document, "<svg id=\"map\"", "</svg>")?.matches("<rect").count();
    let tensors = usize::from(Model::from_bytes(model)?.tensors());
    ensure!(boxes == tensors, "the memory map has {boxes} boxes for {tensors} tensors");
    eprintln!("the page draws {request:?} as the core does");
    Ok(())
}

/// What tests/web.js did to the page and saw.
fn by_hand(browser: &Browser, model: &[u8]) -> anyhow::Result<()> {
    let expected = on_host(model, &BY_FORM)?;
    let window = format!("--window-size={PHONE}");
    let document =
        browser.document("test.html", "", &[window], |document| document.contains("data-finished=\"true\""))?;
    let body = between(&document, "<body", ">")?;
    let seen = |key: &str| between(body, &format!("data-{key}=\""), "\"").with_context(|| body.to_string());
    let refused = seen("refused")?;
    ensure!(refused.starts_with("damaged.waft: model file is damaged: checksum "), "a damaged file: {refused:?}");
    ensure!(seen("disabled")? == "true", "a damaged file can be drawn");
    ensure!(seen("recovered")? == "true", "the error stays when an intact file is dropped");
    let pixels: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(seen("pixels")? == pixels, "the canvas shows other pixels than the core draws");
    let gif = base64::engine::general_purpose::STANDARD.decode(seen("gif")?)?;
    ensure!(
        last_frame(&gif)? == (BY_FORM.steps.unwrap_or(0) as usize, expected),
        "the GIF is not the steps of the picture"
    );
    same_estimates(&Model::from_bytes(model)?, seen("chips")?)?;
    ensure!(seen("seed")?.starts_with("The seed has 64 bits"), "a seed of 65 bits is taken");
    let number = |key: &str| Ok::<u32, anyhow::Error>(seen(key)?.parse()?);
    let (controls, reached) = (number("controls")?, number("reached")?);
    ensure!(controls >= 8 && reached == controls, "the keyboard reaches {reached} of {controls} controls");
    let (window, wide, low) = (number("window")?, number("wide")?, number("low")?);
    ensure!(window <= 500 && wide <= window, "the page is {wide} wide in a window of {window}");
    ensure!(low >= FINGER, "a button of {low} pixels");
    ensure!(seen("finished")? == "true", "tests/web.js did not finish");
    eprintln!(
        "the page refuses a damaged file, draws a dropped one, and shows the core's pixels; by keyboard and on a phone"
    );
    Ok(())
}

/// How many frames a GIF of a grey picture has, and the last one's pixels, reduced to 8 rows of 8.
fn last_frame(bytes: &[u8]) -> anyhow::Result<(usize, Vec<u8>)> {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(bytes)?;
    let (width, scale) = (usize::from(decoder.width()), usize::from(decoder.width()) / 8);
    ensure!(scale >= 32 && decoder.height() == decoder.width(), "a GIF of {width} by {}", decoder.height());
    let (mut frames, mut pixels) = (0, vec![]);
    while let Some(frame) = decoder.read_next_frame()? {
        frames += 1;
        let cells = (0..8).flat_map(|y| (0..8).map(move |x| (y * width + x) * scale * 4));
        pixels = cells.map(|at| frame.buffer[at]).collect();
    }
    Ok((frames, pixels))
}

/// The page's table of chips has the seconds that `inspect` would print for the form's request.
fn same_estimates(model: &Model<'_>, table: &str) -> anyhow::Result<()> {
    let list =
        (0..model.schedules()).filter_map(|index| model.schedule(index)).find(|l| Some(l.steps) == BY_FORM.steps);
    let list = list.context("digits have that list of steps")?;
    let mut lines = table.lines();
    ensure!(lines.next() == Some("ChipCoreMHzSecondsFits"), "{table}");
    for chip in &CHIPS {
        let cost = chips::cost(chip, model, Some(&list), 0);
        let seconds = cost.seconds.with_context(|| format!("{}: no estimate", chip.name))?;
        let expected = format!("{}{}{}{seconds:.2}", chip.name, cost.core, chip.megahertz);
        let found = lines.next().unwrap_or_default();
        ensure!(found.starts_with(&expected), "the page's estimate is {found:?}, the exporter's {expected:?}");
    }
    Ok(())
}
