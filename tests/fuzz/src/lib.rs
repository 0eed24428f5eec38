//! What the fuzz targets share: the seeds of models, how a model file and its streamed weights lie in an input, and changes of it.

pub mod boundary;
pub mod count;
/// The core's models by hand; its tests use what is not used here.
#[path = "../../../runtime/src/draft/mod.rs"]
#[allow(dead_code)]
mod draft;
pub mod file;
pub mod run;
pub mod seeds;

// Where the models by hand look for the format.
use waft::format;
