//! What each operation of the network takes in one call, what it computes, and what the sampler takes around it.

use crate::board::print;
use crate::{print_hex, print_value};

/// Most operations of a network that is measured.
const OPERATIONS: usize = 512;

/// One operation.
#[derive(Clone, Copy, Default)]
struct Operation {
    /// Ticks of the board's counter.
    ticks: u64,
    /// Checksum of its result when it was last complete.
    checksum: u32,
}

/// One step.
pub struct Profile {
    operations: [Operation; OPERATIONS],
    /// Ticks before the first operation.
    noise: u64,
    /// Ticks after the last one.
    update: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self { operations: [Operation::default(); OPERATIONS], noise: 0, update: 0 }
    }
}

impl Profile {
    fn of(&mut self, index: u16) -> Option<&mut Operation> {
        self.operations.get_mut(usize::from(index))
    }

    /// Counts a slice, of an operation or of the sampler.
    pub fn add(&mut self, operation: Option<u16>, ticks: u64) {
        let has_begun = self.operations.first().is_some_and(|first| first.ticks > 0);
        match operation {
            Some(index) => {
                if let Some(operation) = self.of(index) {
                    operation.ticks += ticks;
                }
            }
            None if has_begun => self.update += ticks,
            None => self.noise += ticks,
        }
    }

    /// Notes an operation's result.
    pub fn complete(&mut self, index: u16, result: &[u8]) {
        if let Some(operation) = self.of(index) {
            operation.checksum = waft::format::chunk_checksum(result);
        }
    }

    /// Prints the operations that took any time, and the sampler's parts.
    pub fn print(&self) {
        print_value("noise=", self.noise);
        print_value("update=", self.update);
        for (index, operation) in (0u16..).zip(&self.operations).filter(|(_, operation)| operation.ticks > 0) {
            print_of("op", index, operation.ticks);
            print_of("crc", index, operation.checksum.into());
        }
    }
}

fn print_of(key: &str, index: u16, value: u64) {
    print(key);
    for byte in index.to_be_bytes() {
        print_hex(byte);
    }
    print_value("=", value);
}
