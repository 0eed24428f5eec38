//! Small safetensors files that commands read and write.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::pointer::is_pointer;

/// Why a tensor file is refused.
#[derive(Debug, Error)]
pub enum TensorsError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Git LFS left a pointer in its place.
    #[error(
        "{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file"
    )]
    LargeFilePointer {
        /// The file.
        path: PathBuf,
    },
    /// Not a safetensors file.
    #[error("{path}: not a safetensors file: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        error: safetensors::SafeTensorError,
    },
    /// A tensor is missing.
    #[error("{path}: no tensor {name:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another type.
    #[error("{path}: tensor {name:?} is {found:?}, expected {expected}")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor has another shape.
    #[error("{path}: tensor {name:?} has shape {found:?}, expected {expected}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor holds a value that makes no sense.
    #[error("{path}: tensor {name:?} holds {value}, expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The value.
        value: f64,
        /// What it should be.
        expected: &'static str,
    },
}

/// An opened file.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Opens a file.
///
/// # Errors
/// If it cannot be read or parsed.
pub fn read(path: &Path) -> Result<Tensors, TensorsError> {
    let bytes = std::fs::read(path).map_err(|error| TensorsError::Io { path: path.into(), error })?;
    if is_pointer(&bytes) {
        return Err(TensorsError::LargeFilePointer { path: path.into() });
    }
    SafeTensors::deserialize(&bytes).map_err(|error| TensorsError::Parse { path: path.into(), error })?;
    Ok(Tensors { path: path.into(), bytes })
}

impl Tensors {
    fn get(&self, name: &str) -> Result<TensorView<'_>, TensorsError> {
        let missing = |_| TensorsError::Missing { path: self.path.clone(), name: name.into() };
        let parse = |error| TensorsError::Parse { path: self.path.clone(), error };
        SafeTensors::deserialize(&self.bytes).map_err(parse)?.tensor(name).map_err(missing)
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }

    /// The names of all tensors but `read`.
    pub fn others(&self, read: &[&str]) -> Vec<String> {
        let Ok(tensors) = SafeTensors::deserialize(&self.bytes) else { return vec![] };
        let mut others: Vec<String> = tensors.names().into_iter().map(String::from).collect();
        others.retain(|name| !read.contains(&name.as_str()));
        others.sort();
        others
    }

    /// Number of dimensions of a tensor; 0 if it is missing.
    pub fn rank(&self, name: &str) -> usize {
        self.get(name).map_or(0, |view| view.shape().len())
    }

    /// Shape and values of an `f32` tensor, all finite.
    ///
    /// # Errors
    /// If it is missing, of another type, or not finite.
    pub fn f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), TensorsError> {
        let view = self.get(name)?;
        if view.dtype() != Dtype::F32 {
            return Err(self.wrong_type(name, view.dtype(), "F32"));
        }
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        match values.iter().find(|v| !v.is_finite()) {
            Some(&value) => Err(self.wrong_value(name, value.into(), "finite numbers")),
            None => Ok((view.shape().to_vec(), values)),
        }
    }

    /// Shape and values of a tensor of `f16` or `f32`, all finite.
    ///
    /// # Errors
    /// If it is missing, of another type, or not finite.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), TensorsError> {
        let view = self.get(name)?;
        if view.dtype() != Dtype::F16 {
            return self.f32(name);
        }
        let values: Vec<f32> =
            view.data().as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect();
        match values.iter().find(|v| !v.is_finite()) {
            Some(&value) => Err(self.wrong_value(name, value.into(), "finite numbers")),
            None => Ok((view.shape().to_vec(), values)),
        }
    }

    /// Bytes of a `u8` tensor.
    ///
    /// # Errors
    /// If it is missing or of another type.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, TensorsError> {
        let view = self.get(name)?;
        match view.dtype() {
            Dtype::U8 => Ok(view.data().to_vec()),
            found => Err(self.wrong_type(name, found, "U8")),
        }
    }

    /// Values of an integer tensor of at most one dimension: `i64`, `i32`, or `f32` that are whole and below 2²⁴, beyond which
    /// they would not be exact.
    ///
    /// # Errors
    /// If it is missing, of another type or shape, or not whole.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, TensorsError> {
        let view = self.get(name)?;
        if view.shape().len() > 1 {
            return Err(self.wrong_shape(name, view.shape(), "(N)"));
        }
        match view.dtype() {
            Dtype::I64 => Ok(view.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()),
            Dtype::I32 => Ok(view.data().as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect()),
            Dtype::F32 => {
                let values = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                values
                    .map(|value| match value.fract() == 0.0 && value.abs() <= (1 << 24) as f32 {
                        true => Ok(value as i64),
                        false => Err(self.wrong_value(name, value.into(), "whole numbers up to 16777216")),
                    })
                    .collect()
            }
            found => Err(self.wrong_type(name, found, "I64 or F32")),
        }
    }

    /// An error that names a tensor's shape.
    pub fn wrong_shape(&self, name: &str, found: &[usize], expected: &'static str) -> TensorsError {
        TensorsError::Shape { path: self.path.clone(), name: name.into(), found: found.to_vec(), expected }
    }

    fn wrong_type(&self, name: &str, found: Dtype, expected: &'static str) -> TensorsError {
        TensorsError::Dtype { path: self.path.clone(), name: name.into(), found, expected }
    }

    fn wrong_value(&self, name: &str, value: f64, expected: &'static str) -> TensorsError {
        TensorsError::Value { path: self.path.clone(), name: name.into(), value, expected }
    }
}

/// Writes a file of one `f32` tensor.
///
/// # Errors
/// If the values do not fill the shape, or it cannot be written.
pub fn write(path: &Path, name: &str, shape: &[usize], values: &[f32]) -> Result<(), TensorsError> {
    let file = encode(name, shape, values).map_err(|error| TensorsError::Parse { path: path.into(), error })?;
    std::fs::write(path, file).map_err(|error| TensorsError::Io { path: path.into(), error })
}

/// The bytes of a file of one `f32` tensor.
///
/// # Errors
/// If the values do not fill the shape.
pub fn encode(name: &str, shape: &[usize], values: &[f32]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes)?;
    safetensors::serialize(HashMap::from([(name.to_string(), view)]), None)
}

/// (N, C, H, W) as (N, H, W, C).
pub fn to_hwc(values: &[f32], [rows, cols, channels]: [usize; 3]) -> Vec<f32> {
    let area = rows * cols;
    let one = |picture: &[f32]| -> Vec<f32> {
        (0..area).flat_map(|at| (0..channels).map(move |c| c * area + at)).map(|at| picture[at]).collect()
    };
    values.chunks_exact((area * channels).max(1)).flat_map(one).collect()
}

/// (N, H, W, C) as (N, C, H, W).
pub fn to_chw(values: &[f32], [rows, cols, channels]: [usize; 3]) -> Vec<f32> {
    let area = rows * cols;
    let one = |picture: &[f32]| -> Vec<f32> {
        (0..channels).flat_map(|c| (0..area).map(move |at| at * channels + c)).map(|at| picture[at]).collect()
    };
    values.chunks_exact((area * channels).max(1)).flat_map(one).collect()
}
