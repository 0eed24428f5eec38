//! What a function answers, and what it says of the core's errors.

use core::ffi::{CStr, c_char};

use waft_core::{ModelError, RequestError, RunError, SessionError};

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
    /// The context's memory is not aligned to 8.
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
    /// The model was exported without guidance, or the library was built without rescaled guidance.
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
    /// Memory, model, arena and what a function reads or writes overlap.
    Overlap = 19,
    /// Called from inside a function that waft called.
    Busy = 20,
    /// The model streams its weights: call `waft_set_weights`.
    WeightsMissing = 21,
    /// The function that reads weights could not; `waft_step` again asks it again.
    WeightsUnreadable = 22,
    /// Streamed weights are damaged or of another model; `waft_step` again reads them again.
    WeightsDamaged = 23,
    /// The model reads a condition and the request has none, or the other way round, or it has another length.
    Condition = 24,
    /// The model acts on an observation and the request has none, or the other way round, or it has another length.
    Observation = 25,
}

pub(crate) fn of_model(error: ModelError) -> WaftStatus {
    match error {
        ModelError::Checksum { .. } | ModelError::Malformed { .. } => WaftStatus::ModelDamaged,
        _ => WaftStatus::ModelFormat,
    }
}

pub(crate) fn of_session(error: SessionError) -> WaftStatus {
    match error {
        SessionError::ArenaTooSmall { .. } => WaftStatus::ArenaTooSmall,
        SessionError::ArenaMisaligned => WaftStatus::ArenaMisaligned,
        SessionError::ModelMisaligned => WaftStatus::ModelMisaligned,
        _ => WaftStatus::ModelUnsupported,
    }
}

pub(crate) fn of_request(error: RequestError) -> WaftStatus {
    match error {
        RequestError::Steps { .. } => WaftStatus::Steps,
        RequestError::GuidanceUnavailable | RequestError::RescaleDisabled => WaftStatus::Guidance,
        RequestError::NotASampler => WaftStatus::NotASampler,
        RequestError::Class { .. } | RequestError::Unconditional | RequestError::ClassMissing => WaftStatus::Class,
        RequestError::ConditionMissing => WaftStatus::Condition,
        RequestError::ObservationMissing | RequestError::ObservationNotFinite { .. } => WaftStatus::Observation,
        _ => WaftStatus::Original,
    }
}

pub(crate) fn of_run(error: RunError) -> WaftStatus {
    match error {
        RunError::NoiseExhausted { .. } => WaftStatus::NoiseExhausted,
        RunError::WeightsUnreadable { .. } => WaftStatus::WeightsUnreadable,
        RunError::WeightsDamaged { .. } => WaftStatus::WeightsDamaged,
        _ => WaftStatus::Corrupt,
    }
}

/// What a status means, in English; never null.
#[unsafe(no_mangle)]
pub extern "C" fn waft_strerror(status: u32) -> *const c_char {
    const TEXTS: [&CStr; 26] = [
        c"done",
        c"there is more to do",
        c"an argument is a null pointer",
        c"the context's memory is not aligned to 8",
        c"not a model file of this version, or truncated",
        c"the model file is damaged; copy it again",
        c"the model does not start at a multiple of 4",
        c"the library was built without the model's precision or operations",
        c"the arena is smaller than the model needs",
        c"the arena does not start at a multiple of 16",
        c"the model carries no list of that many steps",
        c"there is no such class, or a class is missing",
        c"the model was exported without guidance, or the library was built without rescaled guidance",
        c"the model can predict but not sample",
        c"no picture was begun, or it was cancelled or failed",
        c"the picture is not complete yet",
        c"the noise function had no more numbers",
        c"the model's bytes changed under the run",
        c"the picture to start from or its mask has another size, or the model cannot start from it there",
        c"memory, model, arena or what a function reads or writes overlap",
        c"called from inside a function that waft called",
        c"the model streams its weights; call waft_set_weights",
        c"the weights cannot be read",
        c"the weights are damaged or of another model",
        c"the model reads a condition of another length than the request has",
        c"the model acts on an observation of another length than the request has",
    ];
    TEXTS.get(status as usize).unwrap_or(&c"unknown status").as_ptr()
}
