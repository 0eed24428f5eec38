//! What came out.

use serde::Serialize;
use waft::Model;

use super::precision_name;
use super::prepared::Prepared;
use crate::cost::chips::{self, ChipCost};
use crate::plan::materialized_bytes;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// Bytes of the file.
    pub flash_bytes: u64,
    /// Bytes of the weights' own file, 0 if there is none.
    pub weights_bytes: u64,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// The largest sum of live buffers.
    pub arena_lower_bound_bytes: u64,
    /// Arena of the same graph in 8 bits with every node's result in a buffer of its own.
    pub arena_materialized_bytes: u64,
    /// Multiply-accumulates of one network call.
    pub macs_per_step: u64,
    /// Parameters of the checkpoint.
    pub params: u64,
    /// `i8`, `f16` or `f32`.
    pub precision: &'static str,
    /// Steps of the first list.
    pub steps: usize,
    /// Steps of all lists.
    pub step_lists: Vec<usize>,
    /// What it means for chips: whether it fits, and how long a picture takes.
    pub chips: Vec<ChipCost>,
    /// What to know about the result.
    pub notes: Vec<String>,
    /// Error of every activation against `f32` on the same samples.
    pub tensors: Vec<TensorError>,
}

/// How far one activation is from `f32`.
#[derive(Clone, Debug, Serialize)]
pub struct TensorError {
    /// The operation that computes it.
    pub name: String,
    /// Its element type.
    pub element: String,
    /// Signal to error, in decibels; errors of all operations before are included.
    pub sqnr_db: f64,
}

impl ExportReport {
    /// The figures of a file.
    pub(super) fn new(model: &Model<'_>, prepared: &Prepared, tensors: Vec<TensorError>) -> Self {
        let header = model.header();
        let step_lists: Vec<usize> = prepared.lists.iter().map(|list| list.steps.len()).collect();
        Self {
            flash_bytes: u64::from(header.file_bytes),
            weights_bytes: u64::from(header.weights_bytes),
            arena_bytes: u64::from(header.arena_bytes),
            arena_lower_bound_bytes: u64::from(header.arena_lower_bound),
            arena_materialized_bytes: materialized_bytes(&prepared.graph),
            macs_per_step: header.macs,
            params: header.params,
            precision: precision_name(model.precision()),
            steps: step_lists.first().copied().unwrap_or(0),
            step_lists,
            chips: chips::costs(model),
            notes: vec![],
            tensors,
        }
    }
}
