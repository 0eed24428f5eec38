//! Firmware that draws pictures under an emulator: the request comes on the command line, the picture's bytes, or a policy's
//! actions, and the measurements go back as lines `key=value`.
//!
//! Keys of the command line, separated by spaces: `class`, `seed`, `steps`, `guidance` (16 fractional bits, decimal),
//! `start` (the first step, with the feature `original`).
#![no_std]
#![no_main]

mod board;
#[cfg(feature = "kernels")]
mod kernels;
#[cfg(feature = "loaded")]
mod loaded;
#[cfg(feature = "profile")]
mod profile;
mod stack;

use core::hint::black_box;

use board::print;
#[cfg(feature = "original")]
use waft::Original;
#[cfg(not(feature = "stream"))]
use waft::SessionError;
use waft::noise::Seed;
use waft::{Guidance, Model, Request, RequestError, Run, Session, WeightSource};

#[cfg(not(any(feature = "loaded", model_memory)))]
waft::include_model!(MODEL, env!("WAFT_MODEL_FILE"));
#[cfg(all(not(feature = "loaded"), model_memory))]
waft::include_model! {
    #[unsafe(link_section = ".model")]
    MODEL, env!("WAFT_MODEL_FILE")
}

#[cfg(not(feature = "loaded"))]
static ARENA: waft::Arena<{ MODEL.arena_bytes() }> = waft::Arena::new();
#[cfg(feature = "loaded")]
static ARENA: waft::Arena<{ loaded::ARENA_BYTES }> = waft::Arena::new();

/// The model that is linked.
#[cfg(not(feature = "loaded"))]
fn model() -> Option<&'static Model<'static>> {
    Some(&MODEL)
}

#[cfg(feature = "loaded")]
use loaded::model;

#[cfg(feature = "stream")]
mod stream;
#[cfg(feature = "stream")]
use stream::session;

/// A session over the model and its own weights.
#[cfg(not(feature = "stream"))]
fn session(model: &'static Model<'static>, memory: &'static mut [u8]) -> Result<Session<'static>, SessionError> {
    Session::new(model, memory)
}

/// Begins a picture from noise.
#[cfg(not(feature = "original"))]
fn begin<'s, W: WeightSource>(
    session: &'s mut Session<'static, W>,
    request: Request,
) -> Result<Run<'s, Seed, &'s mut W>, RequestError> {
    session.sample(request)
}

/// Begins a picture from the one that is linked, behind which its mask may lie.
#[cfg(feature = "original")]
fn begin<'s, W: WeightSource>(
    session: &'s mut Session<'static, W>,
    request: Request,
) -> Result<Run<'s, Seed, &'s mut W>, RequestError> {
    static LINKED: &[u8] = include_bytes!(env!("WAFT_ORIGINAL_FILE"));
    let [rows, columns, channels] = session.model().image_shape();
    let (image, mask) = LINKED.split_at_checked(rows * columns * channels).unwrap_or((LINKED, &[]));
    let original = Original::new(image);
    session.sample_from(request, if mask.is_empty() { original } else { original.mask(mask) })
}

/// Gives a policy the observation that is linked; other networks of rows have none.
#[cfg(feature = "unet1d")]
fn observe<W: WeightSource>(session: &mut Session<'static, W>) -> Option<()> {
    static LINKED: &[u8] = include_bytes!(env!("WAFT_OBSERVATION_FILE"));
    let Some(observation) = session.observation() else { return Some(()) };
    match observation {
        waft::SamplesMut::Fixed(observation) => {
            for (value, &bytes) in observation.iter_mut().zip(LINKED.as_chunks().0) {
                *value = i32::from_le_bytes(bytes);
            }
        }
        waft::SamplesMut::Float(observation) => {
            for (value, &bytes) in observation.iter_mut().zip(LINKED.as_chunks().0) {
                *value = f32::from_le_bytes(bytes);
            }
        }
    }
    Some(())
}

/// Longest command line.
const LINE: usize = 128;

/// Draws what the command line asks for; whether all went well.
fn main() -> bool {
    let mut line = [0u8; LINE];
    let request = parse(board::command_line(&mut line));
    let ok = request.is_some_and(|request| draw(request).is_some());
    if !ok {
        print("error=1\n");
    }
    ok
}

/// The request of a command line; `None` if a value is not a number.
fn parse(line: &[u8]) -> Option<Request> {
    let mut request = Request::new();
    for word in line.split(|&byte| byte == b' ') {
        let mut parts = word.splitn(2, |&byte| byte == b'=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
        let value = number(value)?;
        request = match key {
            b"class" => request.class(u16::try_from(value).ok()?),
            b"seed" => request.seed(value),
            b"steps" => request.steps(u32::try_from(value).ok()?),
            b"guidance" => request.guidance(Guidance::from_bits(i32::try_from(value).ok()?)),
            b"start" => request.start(u32::try_from(value).ok()?),
            _ => return None,
        };
    }
    Some(request)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// No interrupt is ever enabled here: all that runs is one critical section.
#[cfg(not(target_has_atomic = "8"))]
mod critical {
    struct Always;

    critical_section::set_impl!(Always);

    // SAFETY: nothing else runs.
    unsafe impl critical_section::Impl for Always {
        unsafe fn acquire() -> critical_section::RawRestoreState {}

        unsafe fn release(_: critical_section::RawRestoreState) {}
    }
}

/// Draws, measures and prints; `None` if anything fails.
fn draw(request: Request) -> Option<()> {
    let model = model()?;
    let memory = ARENA.take()?;
    board::start_counter();
    stack::paint();
    let mut longest = 0;
    let start = board::instructions();
    // The session lives in a frame of its own, so that the depth below counts it.
    let mut session = session(model, memory).ok()?;
    #[cfg(feature = "unet1d")]
    observe(&mut session)?;
    let mut run = begin(&mut session, black_box(request)).ok()?;
    #[cfg(feature = "profile")]
    let mut profile = profile::Profile::default();
    loop {
        #[cfg(feature = "profile")]
        let operation = run.operation();
        let before = board::instructions();
        let progress = run.step().ok()?;
        let more = progress.is_some();
        let spent = board::instructions().wrapping_sub(before);
        longest = longest.max(spent);
        #[cfg(feature = "profile")]
        {
            profile.add(operation, spent);
            if let Some(index) = operation.filter(|_| run.operation() != operation) {
                let output = model.op(index)?.output();
                profile.complete(index, run.tensor_bytes(output)?);
            }
            // The steps that follow take the same.
            if progress.is_some_and(|now| now.step == 1 && now.steps > 1) {
                profile.print();
                return Some(());
            }
        }
        if !more {
            break;
        }
    }
    let total = board::instructions().wrapping_sub(start);
    let depth = stack::depth();
    print("image=");
    #[cfg(feature = "unet1d")]
    if model.has_actions() {
        match run.actions()? {
            waft::Samples::Fixed(actions) => actions.iter().flat_map(|action| action.to_le_bytes()).for_each(print_hex),
            waft::Samples::Float(actions) => actions.iter().flat_map(|action| action.to_le_bytes()).for_each(print_hex),
        }
    }
    if !model.has_actions() {
        for &byte in run.image()?.data() {
            print_hex(byte);
        }
    }
    print("\n");
    print_value("ticks=", total);
    print_value("longest_ticks=", longest);
    print_value("stack=", depth);
    #[cfg(feature = "profile")]
    profile.print();
    #[cfg(feature = "kernels")]
    for trial in kernels::trials(board::instructions) {
        for (key, value) in [("ticks:", trial.ticks), ("sum:", trial.checksum)] {
            print(key);
            print(trial.name);
            print_value("=", value);
        }
    }
    Some(())
}

/// Prints two hexadecimal digits.
fn print_hex(byte: u8) {
    const DIGITS: &str = "0123456789abcdef";
    for digit in [usize::from(byte >> 4), usize::from(byte & 15)] {
        print(DIGITS.get(digit..=digit).unwrap_or_default());
    }
}

/// Prints a key and a number.
fn print_value(key: &str, value: u64) {
    print(key);
    for byte in value.to_be_bytes() {
        print_hex(byte);
    }
    print("\n");
}

#[cfg(not(feature = "prove-panic-free"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print("panic=1\n");
    board::exit(false)
}

#[cfg(feature = "prove-panic-free")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        /// Defined nowhere.
        fn waft_panic_path_survives() -> !;
    }
    // SAFETY: an image that contains this call does not link, or imports it.
    unsafe { waft_panic_path_survives() }
}
