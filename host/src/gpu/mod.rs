//! The GPU backend: the same plan, executed for many pictures at once by the kernels of `waft-kernels`, on a GPU
//! ([`cuda`]) or, to hold every kernel against the runtime where there is none, on the host ([`host`]).
//!
//! A [`Program`] is a model as launches: it is made once, and replayed for each step of each batch.

#[cfg(feature = "cuda")]
pub mod cuda;
mod draw;
pub mod host;
mod program;

use thiserror::Error;
use waft::RequestError;
use waft_kernels::{Kernel, Space};

pub use self::draw::{draw, state};
pub use self::program::{Launch, Program};

/// Why the GPU backend did not do what was asked for.
#[derive(Debug, Error)]
pub enum GpuError {
    /// No driver, or no device.
    #[error("no CUDA device: {0}")]
    NoDevice(String),
    /// The device has too little memory for the batch; [`draw`] halves it and tries again.
    #[error("{device}: no memory for a batch of {batch} pictures; free some, or ask for smaller batches with --batch")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Pictures of the batch.
        batch: u32,
    },
    /// The driver refused the kernels.
    #[error(
        "{device} with driver {driver} refuses the kernels: {what}; waft needs compute capability 7.5 and a driver for CUDA 11.4 or later"
    )]
    Refused {
        /// The device.
        device: String,
        /// The newest CUDA version that the driver knows.
        driver: String,
        /// What the driver says.
        what: String,
    },
    /// A call of the driver failed: the device is lost, or the program has a defect.
    #[error(
        "{device} with driver {driver} failed at {call}: {what}; if the device was lost (see `nvidia-smi`), start again, else please report this"
    )]
    Driver {
        /// The device.
        device: String,
        /// The newest CUDA version that the driver knows.
        driver: String,
        /// Which call.
        call: &'static str,
        /// What the driver says.
        what: String,
    },
    /// The model cannot draw this.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A model or a request that the GPU backend cannot take.
    #[error("{0}")]
    Unfit(String),
}

/// Names of all kernels in PTX.
pub fn kernel_names() -> &'static [&'static str] {
    Kernel::NAMES
}

/// What executes launches.
pub trait Device {
    /// Its name, for reports.
    fn name(&self) -> String;

    /// The newest CUDA version that its driver knows, if it has one.
    fn driver(&self) -> Option<String>;

    /// Most pictures of a batch that its memory has room for.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn capacity(&mut self, program: &Program) -> Result<u32, GpuError>;

    /// Sets up the four memories for a program and a batch; what they held is lost.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`] among others.
    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError>;

    /// Copies bytes to a memory.
    ///
    /// # Errors
    /// If the device fails.
    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError>;

    /// Copies bytes from a memory.
    ///
    /// # Errors
    /// If the device fails.
    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError>;

    /// Executes launches in order, the whole list `times` times, for the batch that it was prepared for.
    ///
    /// # Errors
    /// If the device fails.
    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError>;
}
