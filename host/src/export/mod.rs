//! The whole line: checkpoint to `.waft` file, in stages.
//!
//! ```text
//! Prepared ──────────────────────────────► f16, f32 ─┐
//!    └─ widths of activations ─ Calibrated ─ Quantized ─┴─► Export
//! ```
//!
//! Each stage owns the one before; a decision is made once, is a value, and the network is emitted once for each that needs a
//! file to be made.

mod accuracy;
mod activations;
mod calibrated;
mod error;
mod file;
mod loaded;
mod options;
mod prepared;
mod quantized;
mod range;
mod report;
mod weights;

use waft::format::Precision;

use self::calibrated::Calibrated;
pub use self::error::ExportError;
use self::file::File;
use self::loaded::Loaded;
pub use self::options::{ExportOptions, ResidualWidth, Room};
use self::prepared::Prepared;
use self::quantized::Quantized;
pub use self::report::{ExportReport, TensorError};
use crate::checkpoint::Checkpoint;
use crate::graph::Graph;
use crate::network::Network;
use crate::progress::Progress;
pub use crate::recipe::{Ranges, Recipe, Rounding, Shortcuts};
use crate::sample::AlignedBytes;
pub use crate::widths::WeightWidth;

/// An exported model.
#[derive(Debug)]
pub struct Export {
    /// The file.
    pub bytes: AlignedBytes,
    /// The weights' own file, if they are streamed.
    pub weights: Option<Vec<u8>>,
    /// What to tell people.
    pub report: ExportReport,
    /// The operations in real numbers, by the file's indices: what parity is checked against.
    pub network: Network,
}

/// The last stage before the file: all decisions of its precision are made.
enum Decided {
    Float(Box<Prepared>, Precision),
    Integer(Box<Quantized>),
}

impl Decided {
    fn prepared(&self) -> &Prepared {
        match self {
            Decided::Float(prepared, _) => prepared,
            Decided::Integer(quantized) => quantized.prepared(),
        }
    }

    fn emit(&self, stream: Option<u64>) -> Result<File, ExportError> {
        match self {
            Decided::Float(prepared, precision) => prepared.emit(*precision, stream),
            Decided::Integer(quantized) => quantized.emit(stream),
        }
    }
}

/// Exports a checkpoint.
///
/// # Errors
/// If something is not supported, by name.
pub fn export(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<Export, ExportError> {
    options.check()?;
    finish(Prepared::new(checkpoint, options)?, options, progress)
}

/// Exports a graph that was made by other means than a checkpoint, with one list of DDIM's default steps.
///
/// # Errors
/// If the graph has what the device cannot do, or the options ask for what a graph does not have.
pub fn export_graph(graph: Graph, options: &ExportOptions, progress: &dyn Progress) -> Result<Export, ExportError> {
    options.check()?;
    finish(Prepared::of_graph(graph, options)?, options, progress)
}

/// From the first stage to the file.
fn finish(prepared: Prepared, options: &ExportOptions, progress: &dyn Progress) -> Result<Export, ExportError> {
    let reference = prepared.emit(Precision::F32, None)?;
    let reference = Loaded::new(&reference)?;
    let samples = reference.trajectory(&prepared.conditions);
    let mut notes = prepared.notes.clone();
    notes.extend(range::check(&prepared, [&reference; 2], &samples)?);
    let decided = match options.precision {
        Precision::F16 | Precision::F32 => Decided::Float(Box::new(prepared), options.precision),
        Precision::I8 => {
            let calibrated = Calibrated::new(prepared, &reference.model, options, progress)?;
            let mut quantized = Quantized::new(calibrated, options, progress)?;
            if options.output_correction {
                quantized.correct_outputs(&reference.model, progress)?;
            }
            Decided::Integer(Box::new(quantized))
        }
    };
    let file = decided.emit(options.stream)?;
    let prepared = decided.prepared();
    let loaded = Loaded::new(&file)?;
    let both = [&reference, &loaded];
    if options.precision == Precision::F16 {
        range::check(prepared, both, &loaded.trajectory(&prepared.conditions))?;
    }
    let tensors = match options.precision {
        Precision::F32 => vec![],
        Precision::F16 | Precision::I8 => accuracy::measure(prepared, both, &samples, progress),
    };
    let report = ExportReport { notes, ..ExportReport::new(&loaded.model, prepared, tensors) };
    let network = prepared.network.clone();
    Ok(Export { bytes: file.bytes, weights: options.stream.map(|_| file.weights), report, network })
}

/// An `f32` model whose single list visits the given timesteps, for one network call at each.
///
/// # Errors
/// If the checkpoint is not supported.
pub fn predictor(checkpoint: &Checkpoint, timesteps: &[i64]) -> Result<AlignedBytes, ExportError> {
    Ok(Prepared::predictor(checkpoint, timesteps)?.emit(Precision::F32, None)?.bytes)
}

/// The precision's name in commands and reports.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::I8 => "i8",
        Precision::F16 => "f16",
        Precision::F32 => "f32",
    }
}
