//! What to draw, and the beginning of a run.

use core::ffi::c_void;
use core::ptr::slice_from_raw_parts;

use waft_core::fixed::SAMPLE_BITS;
use waft_core::noise::{Between, Seed};
use waft_core::{Guidance, Original, Request, Rescale, SamplesMut};

use crate::context::{Block, State, WaftContext, enter};
use crate::noise::{Source, WaftNoise};
use crate::status::{WaftStatus, of_request};

/// Class of a request that names none.
pub const WAFT_NO_CLASS: i32 = -1;
/// Guidance of 1: the conditional prediction alone. Guidance has 16 fractional bits.
pub const WAFT_GUIDANCE_NONE: i32 = 1 << 16;

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
    /// What a policy acts on, in 20 fractional bits, in the units of its training data, the oldest step first; it is copied. Null
    /// if the model acts on none.
    pub observation: *const i32,
    /// Its length.
    pub observation_len: usize,
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
        observation: core::ptr::null(),
        observation_len: 0,
    }
}

/// Begins a picture; one that was in progress is abandoned.
///
/// # Safety
/// `context` is open, `request` points to a request, its condition and its observation are null or point to as many readable
/// values as it says,
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
    let values = |start: *const i32, len: usize| -> &[i32] {
        // SAFETY: the caller's promise.
        if start.is_null() { &[] } else { unsafe { &*slice_from_raw_parts(start, len) } }
    };
    let given = [
        (give(session.condition(), values(asked.condition, asked.condition_len)), WaftStatus::Condition),
        (give(session.observation(), values(asked.observation, asked.observation_len)), WaftStatus::Observation),
    ];
    if let Some((_, status)) = given.into_iter().find(|(fits, _)| !fits) {
        *state = Some(State::Ready(session));
        return status;
    }
    // SAFETY: the caller's promise.
    let read = |start: *const u8, len: usize| unsafe { &*slice_from_raw_parts(start, len) };
    let original = (!asked.original.is_null()).then(|| {
        request = request.start(asked.start);
        let original = Original::new(read(asked.original, asked.original_len));
        let original = if asked.mask.is_null() { original } else { original.mask(read(asked.mask, asked.mask_len)) };
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

/// Copies a condition or an observation to where the model reads it, if it does; whether it is as long as that, which is 0 for
/// none.
fn give(place: Option<SamplesMut<'_>>, given: &[i32]) -> bool {
    match place {
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
