//! What a policy does, where others draw a picture.

use waft_core::Samples;

use crate::context::{Block, State, WaftContext, enter};
use crate::status::WaftStatus;

/// A policy's actions in the arena, (step, action) order, in 20 fractional bits and in the units of its training data; valid until
/// the next call that takes the context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaftActions {
    /// The values.
    pub data: *const i32,
    /// How many: steps times actions of a step.
    pub len: usize,
}

/// A policy's actions, once complete. They replace the sample, so that `waft_get_image` has none any more. Of the `i8` precision
/// only: `WAFT_STATUS_MODEL_UNSUPPORTED` for others, `WAFT_STATUS_INCOMPLETE` also for a model that draws pictures.
///
/// # Safety
/// `context` is open, `actions` points to one writable value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waft_get_actions(context: *mut WaftContext, actions: *mut WaftActions) -> WaftStatus {
    if actions.is_null() {
        return WaftStatus::Null;
    }
    // SAFETY: the caller's promise.
    let state = match unsafe { enter(context, &[Block::at(actions)]) } {
        Ok(state) => state,
        Err(status) => return status,
    };
    let Some(State::Drawing(run)) = state else { return WaftStatus::Idle };
    let values = match run.actions() {
        Some(Samples::Fixed(values)) => values,
        Some(Samples::Float(_)) => return WaftStatus::ModelUnsupported,
        None => return WaftStatus::Incomplete,
    };
    let found = WaftActions { data: values.as_ptr(), len: values.len() };
    // SAFETY: the caller's promise.
    unsafe { actions.write(found) };
    WaftStatus::Ok
}
