//! What a model file says of itself.

use core::ptr::slice_from_raw_parts;

use waft_core::Model;

use crate::status::{WaftStatus, of_model};

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
    /// Values of the observation that a policy acts on; 0 of a model that draws pictures. A policy's `width` is the number of its
    /// steps, its `channels` that of the actions of a step.
    pub observation_len: usize,
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
        observation_len: model.observation_len().unwrap_or(0),
    };
    // SAFETY: the caller's promise.
    unsafe { info.write(found) };
    WaftStatus::Ok
}
