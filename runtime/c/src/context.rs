//! A context in memory of the caller: the validated model, the session and the run.

use core::ffi::c_void;
use core::mem::{align_of, size_of};
use core::ptr::{addr_of, addr_of_mut, slice_from_raw_parts, slice_from_raw_parts_mut};

use waft_core::{Model, Run, Session};

use crate::noise::Source;
use crate::status::{WaftStatus, of_model, of_session};
use crate::weights::{WaftRead, Weights};

/// Words of memory for a context, on any target.
pub const WAFT_CONTEXT_WORDS: usize = 80;

/// Memory for a context: static, on a stack that outlives it, or allocated.
#[repr(C)]
pub struct WaftMemory {
    /// Of waft.
    pub words: [u64; WAFT_CONTEXT_WORDS],
}

/// A model, its session and its run. Opaque to C; never moved.
pub struct WaftContext {
    model: Model<'static>,
    arena: *mut [u8],
    /// A function of the caller runs, or may: it must not come back.
    pub(crate) busy: bool,
    /// Absent only while it changes.
    state: Option<State>,
}

/// What a context is at.
#[allow(clippy::large_enum_variant, reason = "there is no heap to box a run in, and a context's memory has one size")]
pub(crate) enum State {
    Ready(Session<'static, Weights>),
    Drawing(Run<'static, Source, Weights>),
}

impl State {
    /// The session; a picture in progress is abandoned.
    pub(crate) fn into_session(self) -> Session<'static, Weights> {
        match self {
            State::Ready(session) => session,
            State::Drawing(run) => run.into_session(),
        }
    }
}

const _: () = assert!(size_of::<WaftContext>() <= size_of::<WaftMemory>());
const _: () = assert!(align_of::<WaftContext>() <= align_of::<WaftMemory>());

/// A block of the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    start: usize,
    len: usize,
}

impl Block {
    pub(crate) fn of<T>(start: *const T, len: usize) -> Self {
        Self { start: start.addr(), len }
    }

    /// The place of one value.
    pub(crate) fn at<T>(place: *const T) -> Self {
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
pub(crate) unsafe fn enter<'c>(context: *mut WaftContext, uses: &[Block]) -> Result<&'c mut Option<State>, WaftStatus> {
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

/// Checks a model file completely and opens a context in `memory`. The model and the arena stay in use until the context is;
/// memory, model and arena must not overlap. `context` is null after a failure.
/// There is nothing to close: a context ends when its memory is used for something else.
///
/// # Safety
/// The three blocks are valid for as long as the context is used, and only the context uses `memory` and `arena`. Not from
/// inside a function that waft calls, for the same memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_open(
    memory: *mut WaftMemory,
    model: *const u8,
    model_len: usize,
    arena: *mut u8,
    arena_len: usize,
    context: *mut *mut WaftContext,
) -> WaftStatus {
    if context.is_null() {
        return WaftStatus::Null;
    }
    let blocks = [Block::at(memory), Block::of(model, model_len), Block::of(arena, arena_len)];
    let [a, b, c] = blocks;
    if blocks.iter().any(|block| block.overlaps(Block::at(context))) {
        return WaftStatus::Overlap;
    }
    // SAFETY: the caller's promise.
    unsafe { context.write(core::ptr::null_mut()) };
    if memory.is_null() || model.is_null() || arena.is_null() {
        return WaftStatus::Null;
    }
    if !memory.addr().is_multiple_of(align_of::<WaftContext>()) {
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
    // SAFETY: the place is large enough (see `WaftMemory`) and aligned; nothing in it needs dropping. The model does not
    // move and outlives the session; its field is only reached through this reference from now on, and the arena only through the session.
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
