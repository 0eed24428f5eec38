//! Why a checkpoint is not exported.

use thiserror::Error;
use waft::ModelError;

use crate::checkpoint::CheckpointError;
use crate::condition::ConditionError;
use crate::graph::Shape;
use crate::import::{ClassifierError, ImportError};
use crate::rewrite::RewriteError;
use crate::schedule::{ScheduleError, Solver};
use crate::stream::WindowTooSmall;

/// Why a checkpoint was not exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The network is not supported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The classifier cannot be used.
    #[error(transparent)]
    Classifier(#[from] ClassifierError),
    /// The network does not fold into device operations.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// The step list is not possible.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The checkpoint's scheduler is none that there is a solver for, and no other was asked for.
    #[error(
        "the checkpoint's scheduler is {class_name}, which waft does not have; choose one with --scheduler: {}",
        names()
    )]
    NoSolver {
        /// Its class in diffusers.
        class_name: String,
    },
    /// Conditions that cannot be used.
    #[error(transparent)]
    Conditions(#[from] ConditionError),
    /// A network that reads a condition, and none to calibrate with.
    #[error(
        "the network reads a condition beside the sample, and the i8 precision learns its ranges from pictures: give \
         conditions as they will occur, tensor condition (N, {channels}, {rows}, {columns}) or a PNG (--condition)"
    )]
    NoConditions {
        /// Channels of a condition.
        channels: usize,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A policy, and no observations to calibrate with.
    #[error(
        "the network is a policy, and the i8 precision learns its ranges from what it does: give observations as they will \
         occur, tensor observation (N, {len}) (--observation)"
    )]
    NoObservations {
        /// Values of an observation.
        len: usize,
    },
    /// Numbers of a policy that the fixed point of the i8 precision does not hold.
    #[error(
        "{what} {index} is normalized by a factor of {gain} around {center}, which the i8 precision does not hold: numbers \
         lie between -2048 and 2048, and 2^-20 is the smallest step; train with other units, or export f32"
    )]
    Units {
        /// Of what.
        what: &'static str,
        /// Its index.
        index: usize,
        /// Its factor.
        gain: f64,
        /// Its center.
        center: f64,
    },
    /// A vector of time and class with large elements.
    #[error(
        "the vector that time and class become has elements of {largest:.1}; the i8 precision holds those below {limit}: export f16 \
         or f32"
    )]
    Conditioning {
        /// The largest.
        largest: f64,
        /// What would be too large.
        limit: f64,
    },
    /// A timestep that the network has no embedding of.
    #[error("timestep {timestep}: {reason}; name others, as --timesteps does")]
    Timestep {
        /// The timestep.
        timestep: f64,
        /// Why there is none.
        reason: String,
    },
    /// An option that is out of its range, or contradicts another.
    #[error("{field} = {value}: {expected}")]
    Option {
        /// The field of [`ExportOptions`](super::ExportOptions).
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Less memory than the narrowest activations need.
    #[error("budget_ram = {budget}: the arena needs {needed} bytes at least")]
    BudgetRam {
        /// Bytes that were granted.
        budget: u64,
        /// Bytes that the arena has with 8 bits wherever that is possible.
        needed: u64,
    },
    /// Less memory than the narrowest weights need.
    #[error("budget_flash = {budget}: the file needs {needed} bytes at least; export fewer step lists")]
    BudgetFlash {
        /// Bytes that were granted.
        budget: u64,
        /// Bytes that the file has with four bits wherever that is possible.
        needed: u64,
    },
    /// A window that does not hold the smallest part of some convolution's weights.
    #[error("stream = {limit}: {} needs a window of at least {} bytes", .window.operation, .window.needed)]
    Window {
        /// Bytes that were granted.
        limit: u64,
        /// What is needed, and where.
        window: WindowTooSmall,
    },
    /// The class that means "no class" is none of the model's.
    #[error("waft.json: unconditional_class = {class}, but the model has {classes} classes")]
    UnconditionalClass {
        /// The class.
        class: usize,
        /// Number of the model's classes.
        classes: usize,
    },
    /// Guidance without a class that means "no class".
    #[error(
        "guidance = {guidance}: guidance needs a class that means \"no class\"; name it as unconditional_class in waft.json"
    )]
    NoUnconditionalClass {
        /// The guidance.
        guidance: f32,
    },
    /// More than a field of the format holds.
    #[error("{what} would be {value}, the format ends at {limit}; {advice}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        value: u64,
        /// The largest.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A tensor with a longer side than the format's fields hold.
    #[error("{tensor} is {shape}; no dimension may exceed 65535")]
    Dimension {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Shape,
    },
    /// A number that is not finite in a run of the file.
    #[error(
        "{operation}: numbers leave the range of {precision} in step {step}, where {}",
        if .largest.is_finite() {
            format!("f32 has up to {largest:.3e} (f16 ends at 6.55e4); export in another precision, or scale these weights down")
        } else {
            "f32 is not finite either; the checkpoint is damaged, or it diverges with this scheduler".to_string()
        }
    )]
    NotFinite {
        /// How the file computes.
        precision: &'static str,
        /// Number of the step, from 1.
        step: usize,
        /// The first operation whose result is not finite.
        operation: String,
        /// The largest magnitude of that result in `f32`.
        largest: f64,
    },
    /// The file that was written does not validate: too large a model, or a defect of the exporter.
    #[error("the plan does not fit the format ({0}); reduce the model, or report it if it is small")]
    Format(#[from] ModelError),
}

fn names() -> String {
    Solver::ALL.iter().map(Solver::name).collect::<Vec<_>>().join(", ")
}
