//! Firmware that draws pictures under QEMU: the request comes on the semihosting command line, the picture's bytes and
//! the measurements go back as lines `key=value`.
//!
//! Keys of the command line, separated by spaces: `class`, `seed`, `steps`, `guidance` (16 fractional bits, decimal).
#![no_std]
#![no_main]

mod board;
mod semihosting;
mod stack;

use core::hint::black_box;

use semihosting::{exit, print, print_hex, print_value};
use waft::{Guidance, Request, Session};

waft::include_model!(MODEL, env!("WAFT_MODEL_FILE"));

static ARENA: waft::Arena<{ MODEL.arena_bytes() }> = waft::Arena::new();

/// Longest command line.
const LINE: usize = 128;

fn main() -> ! {
    let mut line = [0u8; LINE];
    let request = parse(semihosting::command_line(&mut line));
    let ok = request.is_some_and(|request| draw(request).is_some());
    if !ok {
        print("error=1\n\0");
    }
    exit(ok)
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

/// Draws, measures and prints; `None` if anything fails.
fn draw(request: Request) -> Option<()> {
    let memory = ARENA.take()?;
    board::start_timer();
    stack::paint();
    let mut longest = 0;
    let start = board::ticks();
    // The session lives in a frame of its own, so that the depth below counts it.
    let mut session = Session::new(&MODEL, memory).ok()?;
    let mut run = session.sample(black_box(request)).ok()?;
    loop {
        let before = board::ticks();
        let more = run.step().ok()?.is_some();
        longest = longest.max(board::ticks().wrapping_sub(before));
        if !more {
            break;
        }
    }
    let total = board::ticks().wrapping_sub(start);
    let image = run.image()?;
    let depth = stack::depth();
    print("image=\0");
    for &byte in image.data() {
        print_hex(byte);
    }
    print("\n\0");
    print_value("ticks=\0", total);
    print_value("longest_ticks=\0", longest);
    print_value("stack=\0", depth);
    Some(())
}

#[cfg(not(feature = "prove-panic-free"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print("panic=1\n\0");
    exit(false)
}

#[cfg(feature = "prove-panic-free")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        /// Defined nowhere.
        fn waft_panic_path_survives() -> !;
    }
    // SAFETY: an image that contains this call does not link.
    unsafe { waft_panic_path_survives() }
}
