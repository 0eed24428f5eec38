//! A run, slice by slice, and its picture.

use core::mem::size_of;
use core::ptr::addr_of_mut;

use waft_core::Guidance;

use crate::context::{Block, State, WaftContext, enter};
use crate::status::{WaftStatus, of_request, of_run};

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
