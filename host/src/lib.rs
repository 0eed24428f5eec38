//! From a diffusers checkpoint to a `.waft` file, and from there to pictures, on the host.
#![deny(missing_docs)]

pub mod checkpoint;
pub mod graph;
pub mod import;
pub mod lower;
pub mod plan;
pub mod schedule;
