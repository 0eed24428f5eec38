//! What can go wrong, one small type per operation, and [`Error`], which holds any of them.

use core::fmt;

/// Which part of a model file does not hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Field {
    /// A field of the header.
    Header,
    /// Name or provenance.
    Text,
    /// A section or parameter array lies outside the file or is not aligned.
    Offset,
    /// A tensor's shape, element type, size or place in the arena.
    Tensor,
    /// A tensor is used outside its lifetime, or before it is written.
    Lifetime,
    /// Two tensors that are alive at the same time share memory.
    Overlap,
    /// More tensors hold data at once than [`MAX_ALIVE`](crate::format::MAX_ALIVE).
    Alive,
    /// An operation's kind or a field of it.
    Op,
    /// An operation names a tensor that does not exist or does not fit.
    Operand,
    /// A schedule or one of its steps.
    Schedule,
}

/// Why a file is not a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// Fewer bytes than the header promises.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Does not start with `WAFT`.
    Magic,
    /// Written for another version of the format.
    Version {
        /// The file's version.
        found: u16,
    },
    /// Not a precision that exists.
    Precision {
        /// The file's value.
        found: u8,
    },
    /// Damaged: the checksum differs.
    Checksum {
        /// The file's checksum.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// The checksum is right but the contents contradict themselves.
    Malformed {
        /// What does not hold together.
        field: Field,
        /// Index of the tensor, operation or schedule; 0 for the header.
        index: usize,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { expected, found } => {
                write!(f, "model file is truncated: {expected} bytes expected, {found} found; copy it again")
            }
            Self::Magic => f.write_str("not a .waft file: it does not start with WAFT"),
            Self::Version { found } => {
                write!(f, "format version {found}, this build reads {}; export the model again", crate::format::VERSION)
            }
            Self::Precision { found } => {
                write!(f, "unknown precision {found}; the file is newer than this build or damaged")
            }
            Self::Checksum { expected, found } => {
                write!(f, "model file is damaged: checksum {found:08x}, expected {expected:08x}; copy it again")
            }
            Self::Malformed { field, index } => {
                write!(f, "model file is malformed: {field:?} {index}; export the model again")
            }
        }
    }
}

impl core::error::Error for ModelError {}

/// Why a model cannot be run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SessionError {
    /// The memory is too small.
    ArenaTooSmall {
        /// Bytes that the model needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The memory does not start at a multiple of 16; [`Arena`](crate::Arena) does.
    ArenaMisaligned,
    /// The model's bytes do not start at a multiple of 4; [`include_model!`](crate::include_model) aligns them.
    ModelMisaligned,
    /// The crate was built without the model's precision; enable the feature of that name.
    PrecisionDisabled {
        /// The precision that the model needs.
        precision: crate::Precision,
    },
    /// The model keeps its weights in a file of their own; use
    /// [`Session::with_weights`](crate::Session::with_weights).
    WeightsMissing,
    /// The crate was built without an operation that the model needs; enable the feature.
    OperationDisabled {
        /// Name of the feature.
        feature: &'static str,
    },
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArenaTooSmall { expected, found } => {
                write!(f, "arena of {found} bytes is too small: the model needs {expected}")
            }
            Self::ArenaMisaligned => f.write_str("arena does not start at a multiple of 16; use waft::Arena"),
            Self::ModelMisaligned => {
                f.write_str("model does not start at a multiple of 4; use include_model! or align the buffer")
            }
            Self::PrecisionDisabled { precision } => {
                write!(f, "built without the precision {precision:?}; enable the feature of that name")
            }
            Self::WeightsMissing => f.write_str("the model streams its weights; use Session::with_weights"),
            Self::OperationDisabled { feature } => {
                write!(f, "built without an operation of the model; enable the feature {feature}")
            }
        }
    }
}

impl core::error::Error for SessionError {}

/// Why a picture cannot be drawn as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RequestError {
    /// The file carries no list of that many steps.
    Steps {
        /// Steps asked for.
        asked: u32,
    },
    /// There is no such class.
    Class {
        /// Class asked for.
        asked: u16,
        /// Number of classes.
        classes: u16,
    },
    /// A class was given to a model without classes.
    Unconditional,
    /// The model is class-conditional and the request names no class.
    ClassMissing,
    /// Guidance other than 1 needs a class that means "none" and an arena planned for it at export.
    GuidanceUnavailable,
    /// The crate was built without the feature `guidance-rescale`.
    RescaleDisabled,
    /// The model's output has other channels than its input: it can predict but not sample.
    NotASampler,
    /// There is no such step to start with.
    Start {
        /// Step asked for, from 0.
        asked: u32,
        /// Steps of the list.
        steps: u32,
    },
    /// A run that starts from noise alone takes all steps of its list.
    StartNeedsOriginal,
    /// The list's sampler looks back on two clean samples, which a later start does not have.
    StartLooksBack,
    /// The model carries no noise levels to start from a picture.
    OriginalUnavailable,
    /// The crate was built without the feature `original`.
    OriginalDisabled,
    /// The picture or its mask has another size.
    OriginalSize {
        /// Bytes of the picture and of its mask.
        found: [usize; 2],
        /// What the model draws.
        expected: [usize; 2],
    },
    /// Ways back need a mask, a sampler that does not look back on earlier steps, 1 to 10000 steps and 1 to 1000 times.
    ResampleUnavailable,
    /// The model reads a condition, which was not given; see [`Session::condition`](crate::Session::condition).
    ConditionMissing,
    /// The model acts on an observation, which was not given; see [`Session::observation`](crate::Session::observation).
    ObservationMissing,
    /// The observation holds a value that is not a finite number.
    ObservationNotFinite {
        /// Index of the first such value.
        index: usize,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps { asked } => {
                write!(f, "the model carries no list of {asked} steps; export it again with that count")
            }
            Self::Class { asked, classes } => write!(f, "class {asked} does not exist; the model has {classes}"),
            Self::NotASampler => f.write_str("the model's output has other channels than its input; use predict"),
            Self::ConditionMissing => f.write_str("the model reads a condition beside the sample; give it one"),
            Self::ObservationMissing => f.write_str("the model acts on an observation; give it one"),
            Self::ObservationNotFinite { index } => {
                write!(
                    f,
                    "value {index} of the observation is not a finite number; check the sensor that it comes from"
                )
            }
            Self::Unconditional => f.write_str("the model has no classes; leave the class out"),
            Self::ClassMissing => f.write_str("the model is class-conditional; name a class"),
            Self::Start { asked, steps } => {
                write!(f, "step {asked} does not exist to start with; the list has {steps}, from 0")
            }
            Self::StartNeedsOriginal => f.write_str("a start at a later step needs a picture to start from"),
            Self::StartLooksBack => f.write_str(
                "the sampler looks back on two steps and cannot start at a later one; export with another scheduler",
            ),
            Self::OriginalUnavailable => {
                f.write_str("the model carries no noise levels to start from a picture; export it again")
            }
            Self::ResampleUnavailable => f.write_str(
                "resampling needs a mask, a sampler that does not look back on earlier steps, a jump of 1 to 10000 steps and 1 to \
                 1000 times",
            ),
            Self::RescaleDisabled => {
                f.write_str("built without rescaled guidance; enable the feature guidance-rescale, or rescale by 0")
            }
            Self::OriginalDisabled => f.write_str("built without pictures to start from; enable the feature original"),
            Self::OriginalSize { found: [image, mask], expected: [pixels, places] } => {
                write!(f, "the picture has {image} bytes, its mask {mask}; the model draws {pixels} in {places} pixels")
            }
            Self::GuidanceUnavailable => {
                f.write_str("the model was exported without guidance; leave it at 1 or export it again with guidance")
            }
        }
    }
}

impl core::error::Error for RequestError {}

/// Why a run ended before its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The caller's noise source had no more numbers.
    NoiseExhausted {
        /// The draw that was asked for: 0 for the initial sample, step + 1 else.
        draw: u32,
    },
    /// The model's bytes changed under the run: an operation no longer holds together. Check the flash.
    Corrupt {
        /// Index of the operation.
        op: u16,
    },
    /// The source of streamed weights failed. [`step`](crate::Run::step) again asks it again.
    WeightsUnreadable {
        /// First byte asked for.
        offset: u32,
    },
    /// Streamed weights are not those of the model file. [`step`](crate::Run::step) again reads them again.
    WeightsDamaged {
        /// Index of the operation.
        op: u16,
        /// Number of the chunk.
        chunk: u32,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoiseExhausted { draw } => write!(f, "the noise source had no numbers for draw {draw}"),
            Self::Corrupt { op } => write!(f, "operation {op} no longer holds together: the model's bytes changed"),
            Self::WeightsUnreadable { offset } => write!(f, "the weights cannot be read at byte {offset}"),
            Self::WeightsDamaged { op, chunk } => {
                write!(f, "the weights of operation {op}, chunk {chunk}, are damaged or of another model")
            }
        }
    }
}

impl core::error::Error for RunError {}

/// Any of this crate's errors: what `?` makes of the others in a function that answers with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The file is not a model.
    Model(ModelError),
    /// The model cannot be run here.
    Session(SessionError),
    /// The picture cannot be drawn as asked.
    Request(RequestError),
    /// The run ended before its picture.
    Run(RunError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
            Self::Run(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}
