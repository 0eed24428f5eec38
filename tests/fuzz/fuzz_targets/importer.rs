//! Any bytes as a checkpoint: the configuration, a zero byte, the scheduler's configuration, a zero byte, and a file of
//! weights. What opens is imported, and every tensor is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_host::checkpoint::{Checkpoint, CheckpointError};
use waft_host::import::import_for_sampling;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let (Some(config), Some(scheduler), Some(weights)) = (parts.next(), parts.next(), parts.next()) else { return };
    let (Ok(config), Ok(scheduler)) = (str::from_utf8(config), str::from_utf8(scheduler)) else { return };
    let scheduler = (!scheduler.is_empty()).then_some(scheduler);
    let Ok(checkpoint) = Checkpoint::from_bytes(config, scheduler, weights.to_vec()) else { return };
    let _ = checkpoint.params();
    for key in checkpoint.unused() {
        // A shape that no tensor has: the error names the right one.
        if let Err(CheckpointError::Shape { found, .. }) = checkpoint.tensor(&key, &[usize::MAX]) {
            let _ = checkpoint.tensor(&key, &found);
        }
    }
    let _ = import_for_sampling(&checkpoint);
});
