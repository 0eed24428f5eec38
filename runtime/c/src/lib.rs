//! C interface of waft: `libwaft.a`, with `waft.h` beside it (written by cbindgen, see `cbindgen.toml`).
//!
//! A context lives in memory of the caller, `WAFT_CONTEXT_BYTES` of it, and holds the validated model, the session and the
//! run. Every function checks its arguments for null and answers with a status; none allocates or panics.
#![no_std]

use core::ffi::{c_char, c_void};
use core::mem::{align_of, size_of};
use core::ptr::{addr_of, addr_of_mut, slice_from_raw_parts, slice_from_raw_parts_mut};

use waft_core::noise::Seed;
use waft_core::{
    Guidance, Model, ModelError, Noise, Original, Request, RequestError, Run, RunError, Session, SessionError,
};

/// Bytes of memory for a context, on any target.
pub const WAFT_CONTEXT_BYTES: usize = 512;
/// Class of a request that names none.
pub const WAFT_NO_CLASS: i32 = -1;
/// Guidance of 1: the conditional prediction alone. Guidance has 16 fractional bits.
pub const WAFT_GUIDANCE_NONE: i32 = 1 << 16;

/// What a function answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WaftStatus {
    /// Done; of `waft_step`: the picture is complete.
    Ok = 0,
    /// There is more to do: call `waft_step` again.
    More = 1,
    /// An argument is a null pointer.
    Null = 2,
    /// The context's memory is too small or not aligned to 8.
    Context = 3,
    /// Not a model file, of another version, or truncated.
    ModelFormat = 4,
    /// The model file is damaged.
    ModelDamaged = 5,
    /// The model does not start at a multiple of 4.
    ModelMisaligned = 6,
    /// The library was built without the model's precision or one of its operations.
    ModelUnsupported = 7,
    /// The arena is smaller than the model needs.
    ArenaTooSmall = 8,
    /// The arena does not start at a multiple of 16.
    ArenaMisaligned = 9,
    /// The model carries no list of that many steps.
    Steps = 10,
    /// There is no such class, or a class is missing.
    Class = 11,
    /// The model was exported without guidance.
    Guidance = 12,
    /// The model can predict but not sample.
    NotASampler = 13,
    /// No picture was begun, or it was cancelled or failed.
    Idle = 14,
    /// The picture is not complete yet.
    Incomplete = 15,
    /// The noise function had no more numbers.
    NoiseExhausted = 16,
    /// The model's bytes changed under the run.
    Corrupt = 17,
    /// A picture to start from, or its mask, has another size, or the first step does not exist.
    Original = 18,
}

/// What a model file says of itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftInfo {
    /// Bytes that its arena needs, aligned to 16.
    pub arena_bytes: usize,
    /// Rows of the picture.
    pub height: usize,
    /// Columns of the picture.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Number of classes; 0 if it is unconditional.
    pub classes: u32,
    /// Steps of the default list.
    pub steps: u32,
}

/// A caller's noise: stores the standard Gaussian number `index` of draw `draw`, in 20 fractional bits, and answers true;
/// or answers false if there are no more. Draw 0 is the initial sample, draw k + 1 the noise of step k; elements count in
/// (row, column, channel) order.
pub type WaftNoise = Option<unsafe extern "C" fn(user: *mut c_void, draw: u32, index: u32, value: *mut i32) -> bool>;

/// What to draw. Start from `waft_default_request()`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftRequest {
    /// Seed of the documented noise.
    pub seed: u64,
    /// Class, or `WAFT_NO_CLASS`.
    pub class_: i32,
    /// Steps; 0 takes the model's default list.
    pub steps: u32,
    /// Guidance, in 16 fractional bits.
    pub guidance: i32,
    /// Noise of the caller instead of the seed's, or null.
    pub noise: WaftNoise,
    /// Handed to `noise`.
    pub user: *mut c_void,
    /// Picture to start from, (row, column, channel) bytes that stay in use until the run ends, or null for noise alone.
    pub original: *const u8,
    /// Its bytes.
    pub original_len: usize,
    /// With a picture: a byte a pixel, 128 or more where it is drawn anew; or null. Stays in use until the run ends.
    pub mask: *const u8,
    /// Its bytes.
    pub mask_len: usize,
    /// With a picture: the first step of the list that is taken, from 0.
    pub start: u32,
}

/// How far a run is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftProgress {
    /// Diffusion steps that are complete.
    pub step: u32,
    /// Diffusion steps in all.
    pub steps: u32,
    /// Slices of work that are complete.
    pub slice: u32,
    /// Slices of work in all.
    pub slices: u32,
}

/// A picture in the arena, (row, column, channel) order; valid until the next call that takes the context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftImage {
    /// The bytes.
    pub data: *const u8,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
}

/// A model, its session and its run. Opaque to C; never moved.
pub struct WaftContext {
    model: Model<'static>,
    arena: *mut [u8],
    run: Option<Run<'static, 'static, Source>>,
    /// What `run` borrows.
    session: Option<Session<'static>>,
}

const _: () = assert!(size_of::<WaftContext>() <= WAFT_CONTEXT_BYTES && align_of::<WaftContext>() <= 8);

/// Where a run's noise comes from.
enum Source {
    Seed(Seed),
    Caller(unsafe extern "C" fn(*mut c_void, u32, u32, *mut i32) -> bool, *mut c_void),
}

impl Noise for Source {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        match self {
            Source::Seed(seed) => seed.sample(draw, index),
            Source::Caller(function, user) => {
                let mut value = 0;
                // SAFETY: the caller of `waft_begin` promised a function that can be called with these.
                unsafe { function(*user, draw, index, &raw mut value) }.then_some(value)
            }
        }
    }
}

fn of_model(error: ModelError) -> WaftStatus {
    match error {
        ModelError::Checksum { .. } | ModelError::Malformed { .. } => WaftStatus::ModelDamaged,
        _ => WaftStatus::ModelFormat,
    }
}

fn of_session(error: SessionError) -> WaftStatus {
    match error {
        SessionError::ArenaTooSmall { .. } => WaftStatus::ArenaTooSmall,
        SessionError::ArenaMisaligned => WaftStatus::ArenaMisaligned,
        SessionError::ModelMisaligned => WaftStatus::ModelMisaligned,
        _ => WaftStatus::ModelUnsupported,
    }
}

fn of_request(error: RequestError) -> WaftStatus {
    match error {
        RequestError::Steps { .. } => WaftStatus::Steps,
        RequestError::GuidanceUnavailable => WaftStatus::Guidance,
        RequestError::NotASampler => WaftStatus::NotASampler,
        RequestError::Class { .. } | RequestError::Unconditional | RequestError::ClassMissing => WaftStatus::Class,
        _ => WaftStatus::Original,
    }
}

fn of_run(error: RunError) -> WaftStatus {
    match error {
        RunError::NoiseExhausted { .. } => WaftStatus::NoiseExhausted,
        _ => WaftStatus::Corrupt,
    }
}

/// What a status means, in English; never null.
#[unsafe(no_mangle)]
pub extern "C" fn waft_strerror(status: u32) -> *const c_char {
    const TEXTS: [&core::ffi::CStr; 19] = [
        c"done",
        c"there is more to do",
        c"an argument is a null pointer",
        c"the context's memory is too small or not aligned to 8",
        c"not a model file of this version, or truncated",
        c"the model file is damaged; copy it again",
        c"the model does not start at a multiple of 4",
        c"the library was built without the model's precision or operations",
        c"the arena is smaller than the model needs",
        c"the arena does not start at a multiple of 16",
        c"the model carries no list of that many steps",
        c"there is no such class, or a class is missing",
        c"the model was exported without guidance",
        c"the model can predict but not sample",
        c"no picture was begun, or it was cancelled or failed",
        c"the picture is not complete yet",
        c"the noise function had no more numbers",
        c"the model's bytes changed under the run",
        c"the picture to start from or its mask has another size, or the model cannot start from it there",
    ];
    TEXTS.get(status as usize).unwrap_or(&c"unknown status").as_ptr()
}

/// Checks a model file and tells what it needs.
///
/// # Safety
/// `model` points to `model_len` readable bytes, `info` to one writable value; null is answered with a status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_inspect(model: *const u8, model_len: usize, info: *mut WaftInfo) -> WaftStatus {
    if model.is_null() || info.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let model = match Model::from_bytes(unsafe { &*slice_from_raw_parts(model, model_len) }) {
        Ok(model) => model,
        Err(error) => return of_model(error),
    };
    let [height, width, channels] = model.image_shape();
    let steps = model.schedule(0).map_or(0, |schedule| schedule.steps);
    let found =
        WaftInfo { arena_bytes: model.arena_bytes(), height, width, channels, classes: model.classes().into(), steps };
    // SAFETY: the caller's promise.
    unsafe { info.write(found) };
    WaftStatus::Ok
}

/// Checks a model file completely and opens a context in `memory`: `WAFT_CONTEXT_BYTES`, aligned to 8. The model and the
/// arena stay in use until the context is; memory, model and arena must not overlap.
///
/// # Safety
/// The three blocks are valid for as long as the context is used, and only the context uses `memory` and `arena`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_open(
    memory: *mut c_void,
    memory_len: usize,
    model: *const u8,
    model_len: usize,
    arena: *mut u8,
    arena_len: usize,
    context: *mut *mut WaftContext,
) -> WaftStatus {
    if memory.is_null() || model.is_null() || arena.is_null() || context.is_null() {
        return WaftStatus::Null;
    }
    if memory_len < size_of::<WaftContext>() || !memory.addr().is_multiple_of(align_of::<WaftContext>()) {
        return WaftStatus::Context;
    }
    // SAFETY: the caller's promise.
    let model = match Model::from_bytes(unsafe { &*slice_from_raw_parts(model, model_len) }) {
        Ok(model) => model,
        Err(error) => return of_model(error),
    };
    let place: *mut WaftContext = memory.cast();
    let arena = slice_from_raw_parts_mut(arena, arena_len);
    // SAFETY: the place is large enough and aligned; nothing in it needs dropping.
    unsafe { place.write(WaftContext { model, arena, run: None, session: None }) };
    // SAFETY: just written; opening a session checks arena and features.
    if let Err(error) = unsafe { session(place) } {
        return error;
    }
    // SAFETY: the caller's promise.
    unsafe { context.write(place) };
    WaftStatus::Ok
}

/// A new session over the context's model and arena; what borrowed the old one must be gone.
///
/// # Safety
/// `context` is open, and no run of it exists.
unsafe fn session(context: *mut WaftContext) -> Result<&'static mut Session<'static>, WaftStatus> {
    // SAFETY: the context does not move and outlives what it holds; its fields are only reached through pointers.
    unsafe {
        let model: &'static Model<'static> = &*addr_of!((*context).model);
        let session = Session::new(model, &mut *(*context).arena).map_err(of_session)?;
        Ok((*addr_of_mut!((*context).session)).insert(session))
    }
}

/// Seed 0, no class, the model's default list of steps, guidance 1.
#[unsafe(no_mangle)]
pub extern "C" fn waft_default_request() -> WaftRequest {
    WaftRequest {
        seed: 0,
        class_: WAFT_NO_CLASS,
        steps: 0,
        guidance: WAFT_GUIDANCE_NONE,
        noise: None,
        user: core::ptr::null_mut(),
        original: core::ptr::null(),
        original_len: 0,
        mask: core::ptr::null(),
        mask_len: 0,
        start: 0,
    }
}

/// Begins a picture; one that was in progress is abandoned.
///
/// # Safety
/// `context` is open, `request` points to a request, its noise function can be called, and its picture and mask can be read,
/// until the run ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_begin(context: *mut WaftContext, request: *const WaftRequest) -> WaftStatus {
    if context.is_null() || request.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let asked = unsafe { *request };
    let mut request = Request::new().guidance(Guidance::from_bits(asked.guidance));
    if asked.class_ != WAFT_NO_CLASS {
        let Ok(class) = u16::try_from(asked.class_) else { return WaftStatus::Class };
        request = request.class(class);
    }
    if asked.steps != 0 {
        request = request.steps(asked.steps);
    }
    let noise = match asked.noise {
        Some(function) => Source::Caller(function, asked.user),
        None => Source::Seed(Seed::new(asked.seed)),
    };
    // SAFETY: the context is open; the run is gone before its session is replaced.
    unsafe {
        *addr_of_mut!((*context).run) = None;
        let session = match session(context) {
            Ok(session) => session,
            Err(status) => return status,
        };
        let run = if asked.original.is_null() {
            session.sample_with(request, noise)
        } else {
            let mut original = Original::new(&*slice_from_raw_parts(asked.original, asked.original_len));
            if !asked.mask.is_null() {
                original = original.mask(&*slice_from_raw_parts(asked.mask, asked.mask_len));
            }
            session.sample_from_with(request.start(asked.start), original, noise)
        };
        match run {
            Ok(run) => *addr_of_mut!((*context).run) = Some(run),
            Err(error) => return of_request(error),
        }
    }
    WaftStatus::Ok
}

/// Does a bounded slice of work: `WAFT_STATUS_MORE` until the picture is complete, then `WAFT_STATUS_OK`. After an error
/// the picture is abandoned. `progress` may be null.
///
/// # Safety
/// `context` is open; `progress` is null or points to one writable value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_step(context: *mut WaftContext, progress: *mut WaftProgress) -> WaftStatus {
    if context.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise; the run is the only thing that uses session and arena.
    let place = unsafe { &mut *addr_of_mut!((*context).run) };
    let Some(run) = place else { return WaftStatus::Idle };
    match run.step() {
        Ok(Some(now)) => {
            if !progress.is_null() {
                let now = WaftProgress { step: now.step, steps: now.steps, slice: now.slice, slices: now.slices };
                // SAFETY: the caller's promise.
                unsafe { progress.write(now) };
            }
            WaftStatus::More
        }
        Ok(None) => WaftStatus::Ok,
        Err(error) => {
            *place = None;
            of_run(error)
        }
    }
}

/// The complete picture.
///
/// # Safety
/// `context` is open, `image` points to one writable value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_get_image(context: *mut WaftContext, image: *mut WaftImage) -> WaftStatus {
    if context.is_null() || image.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let Some(run) = (unsafe { &mut *addr_of_mut!((*context).run) }) else { return WaftStatus::Idle };
    let Some(found) = run.image() else { return WaftStatus::Incomplete };
    let found = WaftImage {
        data: found.data().as_ptr(),
        height: found.height(),
        width: found.width(),
        channels: found.channels(),
    };
    // SAFETY: the caller's promise.
    unsafe { image.write(found) };
    WaftStatus::Ok
}

/// Abandons the picture in progress, if there is one.
///
/// # Safety
/// `context` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_cancel(context: *mut WaftContext) -> WaftStatus {
    if context.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    unsafe { *addr_of_mut!((*context).run) = None };
    WaftStatus::Ok
}

/// Links only if no panic path survives in what the program uses.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        /// Defined nowhere.
        fn waft_panic_path_survives() -> !;
    }
    // SAFETY: a program that contains this call does not link.
    unsafe { waft_panic_path_survives() }
}
