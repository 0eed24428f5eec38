//! What the fuzz targets share: how a model file and its streamed weights lie in an input, and changes of it.

pub mod boundary;
pub mod file;
