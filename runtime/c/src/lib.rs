//! C interface of waft: `libwaft.a`, with `waft.h` beside it (written by cbindgen, see `cbindgen.toml`).
//!
//! A context lives in memory of the caller, `WAFT_CONTEXT_BYTES` of it, and holds the validated model, the session and the
//! run. Every function checks its arguments for null and answers with a status; none allocates or panics.
#![no_std]

mod status;
mod weights;

use core::ffi::c_void;
use core::mem::{align_of, size_of};
use core::ptr::{addr_of, addr_of_mut, slice_from_raw_parts, slice_from_raw_parts_mut};

use waft_core::fixed::SAMPLE_BITS;
use waft_core::noise::{Between, Seed};
use waft_core::{Guidance, Model, Noise, Original, Request, Rescale, Run, SamplesMut, Session, WeightSource};

pub use status::{WaftStatus, waft_strerror};
pub use weights::WaftRead;

use status::{of_model, of_request, of_run, of_session};
use weights::Weights;

/// Bytes of memory for a context, on any target.
pub const WAFT_CONTEXT_BYTES: usize = 512;
/// Class of a request that names none.
pub const WAFT_NO_CLASS: i32 = -1;
/// Guidance of 1: the conditional prediction alone. Guidance has 16 fractional bits.
pub const WAFT_GUIDANCE_NONE: i32 = 1 << 16;

/// What a model file says of itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftInfo {
    /// Bytes that its arena needs, aligned to 16.
    pub arena_bytes: usize,
    /// Bytes of the weights' own file, which `waft_set_weights` is for; 0 if the model file carries them.
    pub weights_bytes: u32,
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
    /// Channels of the condition that it reads beside the sample, as high and wide as the picture; 0 if it reads none.
    pub condition_channels: usize,
}

/// A caller's noise: stores the standard Gaussian number `index` of draw `draw`, in 20 fractional bits, and answers true;
/// or answers false if there are no more. Draw 0 is the initial sample, draw k + 1 the noise of step k, draw 2^32 - 1 - k that
/// of the k-th way back; elements count in (row, column, channel) order.
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
    /// First step of the list that is guided, from 0; steps that are not take the conditional prediction alone.
    pub guided_from: u32,
    /// The step after the last one that is guided.
    pub guided_to: u32,
    /// How far guided predictions are brought back to the contrast of conditional ones: 0 to 1, in 16 fractional bits.
    pub guidance_rescale: u32,
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
    /// With a mask: how many steps a way back undoes (RePaint), or 0 for none.
    pub resample_jump: u32,
    /// How often each part of so many steps is taken.
    pub resample_times: u32,
    /// Seed whose noise is mixed to that of `seed`, for pictures that change into one another.
    pub to_seed: u64,
    /// How far from the one to the other: 0 to 1, in 16 fractional bits. 0 is `seed` alone.
    pub toward: u32,
    /// The condition, in 20 fractional bits, (row, column, channel) order; it is copied. Null if the model reads none.
    pub condition: *const i32,
    /// Its length.
    pub condition_len: usize,
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
    /// A function of the caller runs, or may: it must not come back.
    busy: bool,
    /// Absent only while it changes.
    state: Option<State>,
}

/// What a context is at.
enum State {
    Ready(Session<'static, Weights>),
    Drawing(Run<'static, Source, Weights>),
}

impl State {
    /// The session; a picture in progress is abandoned.
    fn into_session(self) -> Session<'static, Weights> {
        match self {
            State::Ready(session) => session,
            State::Drawing(run) => run.into_session(),
        }
    }
}

const _: () = assert!(size_of::<WaftContext>() <= WAFT_CONTEXT_BYTES && align_of::<WaftContext>() <= 8);

/// A block of the caller's memory.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    len: usize,
}

impl Block {
    fn of<T>(start: *const T, len: usize) -> Self {
        Self { start: start.addr(), len }
    }

    /// The place of one value.
    fn at<T>(place: *const T) -> Self {
        Self::of(place, size_of::<T>())
    }

    fn overlaps(self, other: Self) -> bool {
        let ends_before = |a: Self, b: Self| a.start.saturating_add(a.len) <= b.start;
        self.len > 0 && other.len > 0 && !ends_before(self, other) && !ends_before(other, self)
    }
}

/// The state of a context that is open and at rest, apart from what the function reads and writes for its caller.
///
/// # Safety
/// `context` is null or open.
unsafe fn enter<'c>(context: *mut WaftContext, uses: &[Block]) -> Result<&'c mut Option<State>, WaftStatus> {
    if context.is_null() {
        return Err(WaftStatus::Null);
    }
    // SAFETY: the caller's promise; no reference to these two fields exists.
    let (busy, arena) = unsafe { (addr_of!((*context).busy).read(), addr_of!((*context).arena).read()) };
    if busy {
        return Err(WaftStatus::Busy);
    }
    let own = [Block::of(context, size_of::<WaftContext>()), Block::of(arena.cast::<u8>(), arena.len())];
    if uses.iter().any(|&block| own.iter().any(|own| own.overlaps(block))) {
        return Err(WaftStatus::Overlap);
    }
    // SAFETY: the caller's promise; whoever held the state would have been busy.
    Ok(unsafe { &mut *addr_of_mut!((*context).state) })
}

/// Where a run's noise comes from.
enum Source {
    Seed(Seed),
    Between(Between),
    Caller(unsafe extern "C" fn(*mut c_void, u32, u32, *mut i32) -> bool, *mut c_void),
}

impl Noise for Source {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        match self {
            Source::Seed(seed) => seed.sample(draw, index),
            Source::Between(between) => between.sample(draw, index),
            Source::Caller(function, user) => {
                let mut value = 0;
                // SAFETY: the caller of `waft_begin` promised a function that can be called with these.
                unsafe { function(*user, draw, index, &raw mut value) }.then_some(value)
            }
        }
    }
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
    let found = WaftInfo {
        arena_bytes: model.arena_bytes(),
        weights_bytes: model.header().weights_bytes,
        height,
        width,
        channels,
        classes: model.classes().into(),
        steps,
        condition_channels: model.condition_shape().map_or(0, |[_, _, channels]| channels),
    };
    // SAFETY: the caller's promise.
    unsafe { info.write(found) };
    WaftStatus::Ok
}

/// Checks a model file completely and opens a context in `memory`: `WAFT_CONTEXT_BYTES`, aligned to 8. The model and the
/// arena stay in use until the context is; memory, model and arena must not overlap. `context` is null after a failure.
/// There is nothing to close: a context ends when its memory is used for something else.
///
/// # Safety
/// The three blocks are valid for as long as the context is used, and only the context uses `memory` and `arena`. Not from
/// inside a function that waft calls, for the same memory.
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
    if context.is_null() {
        return WaftStatus::Null;
    }
    let blocks = [Block::of(memory, memory_len), Block::of(model, model_len), Block::of(arena, arena_len)];
    let [a, b, c] = blocks;
    if blocks.iter().any(|block| block.overlaps(Block::at(context))) {
        return WaftStatus::Overlap;
    }
    // SAFETY: the caller's promise.
    unsafe { context.write(core::ptr::null_mut()) };
    if memory.is_null() || model.is_null() || arena.is_null() {
        return WaftStatus::Null;
    }
    if memory_len < size_of::<WaftContext>() || !memory.addr().is_multiple_of(align_of::<WaftContext>()) {
        return WaftStatus::Context;
    }
    if a.overlaps(b) || a.overlaps(c) || b.overlaps(c) {
        return WaftStatus::Overlap;
    }
    // SAFETY: the caller's promise.
    let model = match Model::from_bytes(unsafe { &*slice_from_raw_parts(model, model_len) }) {
        Ok(model) => model,
        Err(error) => return of_model(error),
    };
    let place: *mut WaftContext = memory.cast();
    let arena = slice_from_raw_parts_mut(arena, arena_len);
    // SAFETY: the place is large enough and aligned; nothing in it needs dropping. The model does not move and outlives the
    // session; its field is only reached through this reference from now on, and the arena only through the session.
    let session = unsafe {
        place.write(WaftContext { model, arena, busy: false, state: None });
        let model: &'static Model<'static> = &*addr_of!((*place).model);
        Session::with_weights(model, &mut *arena, Weights::NONE)
    };
    match session {
        // SAFETY: just written; the caller's promise.
        Ok(session) => unsafe {
            *addr_of_mut!((*place).state) = Some(State::Ready(session));
            context.write(place);
            WaftStatus::Ok
        },
        Err(error) => of_session(error),
    }
}

/// Names the function that reads the weights of a model that streams them, before the first picture; `user` is handed to it.
/// A picture that was in progress is abandoned. Needs a library that was built with the feature `stream`.
///
/// # Safety
/// `context` is open, and `read` can be called with `user` for as long as the context is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_set_weights(context: *mut WaftContext, read: WaftRead, user: *mut c_void) -> WaftStatus {
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &[]) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let Some(mut session) = state.take().map(State::into_session) else { return WaftStatus::Idle };
    let taken = session.weights().set(read, user);
    *state = Some(State::Ready(session));
    if taken { WaftStatus::Ok } else { WaftStatus::ModelUnsupported }
}

/// Seed 0, no class, the model's default list of steps, guidance 1 in all of them.
#[unsafe(no_mangle)]
pub extern "C" fn waft_default_request() -> WaftRequest {
    WaftRequest {
        seed: 0,
        class_: WAFT_NO_CLASS,
        steps: 0,
        guidance: WAFT_GUIDANCE_NONE,
        guided_from: 0,
        guided_to: u32::MAX,
        guidance_rescale: 0,
        noise: None,
        user: core::ptr::null_mut(),
        original: core::ptr::null(),
        original_len: 0,
        mask: core::ptr::null(),
        mask_len: 0,
        start: 0,
        resample_jump: 0,
        resample_times: 0,
        to_seed: 0,
        toward: 0,
        condition: core::ptr::null(),
        condition_len: 0,
    }
}

/// Begins a picture; one that was in progress is abandoned.
///
/// # Safety
/// `context` is open, `request` points to a request, its condition is null or points to as many readable values as it says,
/// its noise function can be called, and its picture and mask can be read, until the run ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_begin(context: *mut WaftContext, request: *const WaftRequest) -> WaftStatus {
    if request.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let asked = unsafe { *request };
    let reads = [Block::of(asked.original, asked.original_len), Block::of(asked.mask, asked.mask_len)];
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &reads) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let mut request = Request::new()
        .guidance(Guidance::from_bits(asked.guidance))
        .guidance_interval(asked.guided_from, asked.guided_to)
        .guidance_rescale(Rescale::from_bits(asked.guidance_rescale));
    if asked.class_ != WAFT_NO_CLASS {
        let Ok(class) = u16::try_from(asked.class_) else { return WaftStatus::Class };
        request = request.class(class);
    }
    if asked.steps != 0 {
        request = request.steps(asked.steps);
    }
    let noise = match asked.noise {
        Some(function) => Source::Caller(function, asked.user),
        None if asked.toward > 0 => Source::Between(Between::new(asked.seed, asked.to_seed, asked.toward)),
        None => Source::Seed(Seed::new(asked.seed)),
    };
    let Some(mut session) = state.take().map(State::into_session) else { return WaftStatus::Idle };
    if session.model().header().weights_bytes > 0 && session.weights().are_missing() {
        *state = Some(State::Ready(session));
        return WaftStatus::WeightsMissing;
    }
    // SAFETY: the caller's promise.
    let condition: &[i32] = if asked.condition.is_null() {
        &[]
    } else {
        unsafe { &*slice_from_raw_parts(asked.condition, asked.condition_len) }
    };
    if !give(&mut session, condition) {
        *state = Some(State::Ready(session));
        return WaftStatus::Condition;
    }
    // SAFETY: the caller's promise.
    let read = |start: *const u8, len: usize| unsafe { &*slice_from_raw_parts(start, len) };
    let original = (!asked.original.is_null()).then(|| {
        request = request.start(asked.start);
        let original = Original::new(read(asked.original, asked.original_len));
        let original =
            if asked.mask.is_null() { original } else { original.mask(read(asked.mask, asked.mask_len)) };
        match asked.resample_jump {
            0 => original,
            jump => original.resample(jump, asked.resample_times),
        }
    });
    match session.into_run_from(request, original, noise) {
        Ok(run) => {
            *state = Some(State::Drawing(run));
            WaftStatus::Ok
        }
        Err((session, error)) => {
            *state = Some(State::Ready(session));
            of_request(error)
        }
    }
}

/// Copies a condition, if the model reads one; whether it is as long as the model's, which is 0 for none.
fn give<W: WeightSource>(session: &mut Session<'_, W>, given: &[i32]) -> bool {
    match session.condition() {
        None => given.is_empty(),
        Some(SamplesMut::Fixed(condition)) if condition.len() == given.len() => {
            condition.iter_mut().zip(given).for_each(|(to, &value)| *to = value);
            true
        }
        Some(SamplesMut::Float(condition)) if condition.len() == given.len() => {
            let unit = 1.0 / (1 << SAMPLE_BITS) as f32;
            condition.iter_mut().zip(given).for_each(|(to, &value)| *to = value as f32 * unit);
            true
        }
        Some(_) => false,
    }
}

/// Does a bounded slice of work: `WAFT_STATUS_MORE` until the picture is complete, then `WAFT_STATUS_OK`. After an error
/// the picture is abandoned, but for those of streamed weights, which another call asks for again. `progress` may be null.
/// Functions of the caller are called from here, and must call nothing of waft with the same context.
///
/// # Safety
/// `context` is open; `progress` is null or points to one writable value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_step(context: *mut WaftContext, progress: *mut WaftProgress) -> WaftStatus {
    let writes = Block::of(progress, if progress.is_null() { 0 } else { size_of::<WaftProgress>() });
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &[writes]) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let Some(State::Drawing(run)) = state else { return WaftStatus::Idle };
    // SAFETY: the context is open; the flag is reached through its place alone.
    let busy = |busy: bool| unsafe { addr_of_mut!((*context).busy).write(busy) };
    busy(true);
    let result = run.step();
    busy(false);
    match result {
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
            let status = of_run(error);
            if !matches!(status, WaftStatus::WeightsUnreadable | WaftStatus::WeightsDamaged) {
                *state = state.take().map(|state| State::Ready(state.into_session()));
            }
            status
        }
    }
}

/// The complete picture.
///
/// # Safety
/// `context` is open, `image` points to one writable value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_get_image(context: *mut WaftContext, image: *mut WaftImage) -> WaftStatus {
    if image.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &[Block::at(image)]) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let Some(State::Drawing(run)) = state else { return WaftStatus::Idle };
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

/// Changes the guidance, in 16 fractional bits, of the steps that begin from now on, those outside of the request's interval
/// excepted: for a scale that depends on the step.
///
/// # Safety
/// `context` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_set_guidance(context: *mut WaftContext, guidance: i32) -> WaftStatus {
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &[]) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let Some(State::Drawing(run)) = state else { return WaftStatus::Idle };
    match run.set_guidance(Guidance::from_bits(guidance)) {
        Ok(()) => WaftStatus::Ok,
        Err(error) => of_request(error),
    }
}

/// Abandons the picture in progress, if there is one.
///
/// # Safety
/// `context` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_cancel(context: *mut WaftContext) -> WaftStatus {
    // SAFETY: the caller's promise.
    match unsafe { enter(context, &[]) } {
        Ok(state) => {
            *state = state.take().map(|state| State::Ready(state.into_session()));
            WaftStatus::Ok
        }
        Err(status) => status,
    }
}

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
