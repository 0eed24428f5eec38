//! The core for `page/`, compiled to WebAssembly: one model, one picture at a time, in slices that the page asks for.
//!
//! The page writes a file where `reserve` says and calls `load`, then `begin`, and `step` until it answers [`DONE`]. What else is
//! said, a description or an error, lies where `text` and `text_len` say.

mod animation;
/// What a picture costs on chips: the exporter's own estimate, which needs the core and no more.
#[path = "../../../host/src/cost/mod.rs"]
pub mod cost;
mod describe;
mod memory;

use std::cell::RefCell;

use sha2::{Digest, Sha256};
use waft::noise::Seed;
use waft::{Accelerator, Guidance, Image, Model, Request, Run, Samples, Session};

use memory::Block;

/// Answers of `step`.
const FAILED: u32 = 0;
const MORE: u32 = 1;
const DONE: u32 = 2;

/// What is loaded. Dropped from the top: a run before what it borrows.
#[derive(Default)]
struct Page {
    run: Option<Run<'static, Seed>>,
    model: Option<&'static Model<'static>>,
    /// Hold `model`'s bytes, `model` itself, its weights as this processor reads them, and the arena.
    file: Block,
    view: Option<Box<Model<'static>>>,
    accelerator: Option<Box<Accelerator>>,
    arena: Block,
    /// Pixels of the sample as it is.
    pixels: Vec<u8>,
    /// The same after each step that is complete.
    frames: Vec<Vec<u8>>,
    gif: Vec<u8>,
    text: String,
}

thread_local! {
    static PAGE: RefCell<Page> = RefCell::default();
}

fn with<T>(then: impl FnOnce(&mut Page) -> T) -> T {
    PAGE.with_borrow_mut(then)
}

/// Keeps a result's text; whether it was good.
fn answer(page: &mut Page, result: Result<String, String>) -> u32 {
    let good = result.is_ok();
    page.text = result.unwrap_or_else(|error| error);
    good.into()
}

/// Room for a file of `len` bytes; what was loaded is gone.
#[unsafe(no_mangle)]
extern "C" fn reserve(len: usize) -> *mut u8 {
    with(|page| {
        *page = Page { file: Block::new(len), ..Page::default() };
        page.file.as_mut_ptr()
    })
}

/// Opens the file that was written: 1, and the text describes it in JSON, or 0, and the text says what is wrong.
#[unsafe(no_mangle)]
extern "C" fn load() -> u32 {
    with(|page| {
        let result = page.load();
        answer(page, result)
    })
}

/// Begins a picture; a class below 0 is none, steps of 0 are the first list. 1, or 0, and the text says what is wrong.
#[unsafe(no_mangle)]
extern "C" fn begin(class: i32, seed: u64, steps: u32, guidance: f32) -> u32 {
    with(|page| {
        let result = page.begin(class, seed, steps, guidance);
        answer(page, result)
    })
}

/// Does at most `slices` slices of work, and stops where a diffusion step ends.
#[unsafe(no_mangle)]
extern "C" fn step(slices: u32) -> u32 {
    with(|page| match page.step(slices) {
        Ok(answer) => answer,
        Err(error) => {
            page.run = None;
            page.text = error;
            FAILED
        }
    })
}

/// Diffusion steps that are complete.
#[unsafe(no_mangle)]
extern "C" fn steps_done() -> u32 {
    with(|page| page.run.as_ref().map_or(0, |run| run.progress().step))
}

/// How much of the work is done, from 0 to 1.
#[unsafe(no_mangle)]
extern "C" fn fraction_done() -> f64 {
    with(|page| {
        page.run.as_ref().map_or(0.0, |run| f64::from(run.progress().slice) / f64::from(run.progress().slices.max(1)))
    })
}

/// The picture as it is now, (row, column, channel) bytes; of a complete one the text is its SHA-256.
#[unsafe(no_mangle)]
extern "C" fn pixels() -> *const u8 {
    with(|page| {
        page.paint();
        page.pixels.as_ptr()
    })
}

/// Makes a GIF of the steps so far, whose square pixels are `scale` wide: where it lies, or null, and the text says what is wrong.
#[unsafe(no_mangle)]
extern "C" fn gif(scale: usize) -> *const u8 {
    with(|page| {
        let shape = page.model.map_or([0; 3], |model| model.image_shape());
        match animation::encode(&page.frames, shape, scale) {
            Ok(bytes) => {
                page.gif = bytes;
                page.gif.as_ptr()
            }
            Err(error) => {
                page.text = error;
                std::ptr::null()
            }
        }
    })
}

/// Bytes of the GIF.
#[unsafe(no_mangle)]
extern "C" fn gif_len() -> usize {
    with(|page| page.gif.len())
}

/// Says in JSON what a picture of `steps` costs on chips, `guided` of them with guidance: 1, or 0, and the text says what is wrong.
#[unsafe(no_mangle)]
extern "C" fn estimate(steps: u32, guided: u32) -> u32 {
    with(|page| {
        let result = page.model.ok_or_else(|| "no model is loaded".into());
        let result = result.and_then(|model| describe::estimate(model, steps, guided));
        answer(page, result)
    })
}

/// Where the text lies, in UTF-8.
#[unsafe(no_mangle)]
extern "C" fn text() -> *const u8 {
    with(|page| page.text.as_ptr())
}

/// Bytes of the text.
#[unsafe(no_mangle)]
extern "C" fn text_len() -> usize {
    with(|page| page.text.len())
}

impl Page {
    fn load(&mut self) -> Result<String, String> {
        (self.run, self.model) = (None, None);
        // SAFETY: the file lives as long as the page's view of it: `reserve` drops both, the view first.
        let bytes = unsafe { self.file.as_static() };
        let model = Model::from_bytes(bytes).map_err(|error| error.to_string())?;
        if model.header().weights_bytes > 0 {
            return Err(
                "this model keeps its weights in a second file: export it without --stream to draw it here".into()
            );
        }
        self.accelerator = Some(Box::new(Accelerator::new(&model)));
        self.arena = Block::new(model.arena_bytes());
        let view: *const Model<'static> = &**self.view.insert(Box::new(model));
        // SAFETY: the box lives until the next file is loaded, when `model` and the run are gone.
        self.model = Some(unsafe { &*view });
        Ok(describe::describe(&model))
    }

    fn begin(&mut self, class: i32, seed: u64, steps: u32, guidance: f32) -> Result<String, String> {
        self.run = None;
        self.frames.clear();
        let model = self.model.ok_or("no model is loaded")?;
        let mut request = Request::new().seed(seed).guidance(Guidance::from_f32(guidance));
        if let Ok(class) = u16::try_from(class) {
            request = request.class(class);
        }
        if steps > 0 {
            request = request.steps(steps);
        }
        // SAFETY: the run that had the arena is gone; it lives until the next file is loaded.
        let arena = unsafe { self.arena.as_static_mut() };
        let mut session = Session::new(model, arena).map_err(|error| error.to_string())?;
        if let Some(accelerator) = &mut self.accelerator {
            let accelerator: *mut Accelerator = &mut **accelerator;
            // SAFETY: as for the arena.
            session = session.accelerated(unsafe { &mut *accelerator });
        }
        let run = session.into_run(request).map_err(|(_, error)| error.to_string())?;
        self.run = Some(run);
        Ok(String::new())
    }

    fn step(&mut self, slices: u32) -> Result<u32, String> {
        let before = self.run.as_ref().map(|run| run.progress().step);
        let answer = self.work(slices)?;
        if self.run.as_ref().map(|run| run.progress().step) != before {
            self.paint();
            self.frames.push(self.pixels.clone());
        }
        Ok(answer)
    }

    fn work(&mut self, slices: u32) -> Result<u32, String> {
        let run = self.run.as_mut().ok_or("no picture was begun")?;
        let before = run.progress().step;
        for _ in 0..slices {
            match run.step().map_err(|error| error.to_string())? {
                None => return Ok(DONE),
                Some(now) if now.step != before => break,
                Some(_) => {}
            }
        }
        Ok(MORE)
    }

    /// Turns the sample into pixels, without touching it before it is complete.
    fn paint(&mut self) {
        let Some(run) = &mut self.run else { return self.pixels.clear() };
        if run.progress().step == run.progress().steps
            && let Some(image) = run.image()
        {
            self.pixels = image.data().to_vec();
            self.text = digest(&image);
            return;
        }
        self.pixels = match run.sample() {
            Some(Samples::Fixed(values)) => values.iter().map(|&x| waft::arithmetic::byte_fixed(x)).collect(),
            Some(Samples::Float(values)) => values.iter().map(|&x| waft::arithmetic::byte_float(x)).collect(),
            None => vec![],
        };
    }
}

/// SHA-256 in hexadecimal, as `waft sample` prints it for one picture.
fn digest(image: &Image<'_>) -> String {
    Sha256::digest(image.data()).iter().map(|byte| format!("{byte:02x}")).collect()
}
