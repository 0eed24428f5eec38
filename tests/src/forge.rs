//! Forgeries: model files with changed bytes under a right checksum.

use bytemuck::Pod;
use waft::format::seal;
use waft::{Model, ModelError};
use waft_host::sample::AlignedBytes;

/// A copy of a file with the value at byte `at`, a record or a field of one, changed, and the checksum mended.
///
/// # Panics
/// If the file ends before the value.
pub fn forge<T: Pod>(file: &AlignedBytes, at: usize, change: impl FnOnce(&mut T)) -> AlignedBytes {
    let mut copy = file.clone();
    let bytes = copy.as_mut_slice();
    let mut value: T = bytemuck::pod_read_unaligned(&bytes[at..at + size_of::<T>()]);
    change(&mut value);
    bytes[at..at + size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
    seal(bytes);
    copy
}

/// What validation says of such a copy.
///
/// # Errors
/// What it finds wrong.
///
/// # Panics
/// If the file ends before the value.
pub fn changed<T: Pod>(file: &AlignedBytes, at: usize, change: impl FnOnce(&mut T)) -> Result<(), ModelError> {
    Model::from_bytes(forge(file, at, change).as_slice()).map(|_| ())
}
