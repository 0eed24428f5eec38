//! Why there is no schedule.

use thiserror::Error;

use super::TimestepSpacing;

/// Why a scheduler configuration, a step count or a list of timesteps is refused.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// Not JSON, or no object.
    #[error("scheduler_config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that is not supported or makes no sense.
    #[error("scheduler_config.json: {field} = {value} is not supported: {expected}")]
    Field {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What would be.
        expected: String,
    },
    /// A step count that the schedule cannot give.
    #[error("{steps} steps of {spacing:?} spacing over {train} training steps: {what}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// The spacing.
        spacing: TimestepSpacing,
        /// Training steps.
        train: usize,
        /// Why not, and what to do.
        what: String,
    },
    /// A list of timesteps that is not one.
    #[error("timesteps: {what}")]
    Timesteps {
        /// Why not, and what to do.
        what: String,
    },
    /// A list of noise levels that is not one.
    #[error("noise levels: {what}")]
    Sigmas {
        /// Why not, and what to do.
        what: String,
    },
    /// A step that looks back further than a device does.
    #[error("timestep {timestep} looks back on {asked} clean samples, a device keeps {kept}: {advice}")]
    History {
        /// The timestep.
        timestep: f64,
        /// How many it looks back on.
        asked: usize,
        /// How many there are.
        kept: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A step whose coefficients are not finite.
    #[error("timestep {timestep} has coefficients that are not finite: {advice}")]
    NotFinite {
        /// The timestep.
        timestep: f64,
        /// What to do.
        advice: &'static str,
    },
}

impl ScheduleError {
    pub(crate) fn field(field: &str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Field { field: field.into(), value: value.to_string(), expected: expected.into() }
    }
}
