//! C interface of waft: `libwaft.a`, with `waft.h` beside it (written by cbindgen, see `cbindgen.toml`).
//!
//! A context lives in memory of the caller, a `waft_memory`, and holds the validated model, the session and the run. Every
//! function checks its arguments for null and answers with a status; none allocates or panics.
#![no_std]

mod actions;
mod context;
mod info;
mod noise;
mod request;
mod run;
mod status;
mod weights;

pub use actions::{WaftActions, waft_get_actions};
pub use context::{WAFT_CONTEXT_WORDS, WaftContext, WaftMemory, waft_open, waft_set_weights};
pub use info::{WaftInfo, waft_inspect};
pub use noise::WaftNoise;
pub use request::{WAFT_GUIDANCE_NONE, WAFT_NO_CLASS, WaftRequest, waft_begin, waft_default_request};
pub use run::{WaftImage, WaftProgress, waft_cancel, waft_get_image, waft_set_guidance, waft_step};
pub use status::{WaftStatus, waft_strerror};
pub use weights::WaftRead;

/// Links only if no panic path survives in what the program uses.
#[cfg(not(debug_assertions))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        /// Defined nowhere.
        fn waft_panic_path_survives() -> !;
    }
    // SAFETY: a program that contains this call does not link.
    unsafe { waft_panic_path_survives() }
}

/// The debug profile checks for overflow, which panics: it stops here, where a debugger finds it.
#[cfg(debug_assertions)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
