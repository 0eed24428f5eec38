//! What each operation of the network takes, summed over the run, and what it computes.

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

/// All operations.
pub struct Profile([Operation; OPERATIONS]);

impl Default for Profile {
    fn default() -> Self {
        Self([Operation::default(); OPERATIONS])
    }
}

impl Profile {
    fn of(&mut self, index: u16) -> Option<&mut Operation> {
        self.0.get_mut(usize::from(index))
    }

    /// Counts a step, if it was one of an operation.
    pub fn add(&mut self, operation: Option<u16>, ticks: u64) {
        if let Some(operation) = operation.and_then(|index| self.of(index)) {
            operation.ticks += ticks;
        }
    }

    /// Notes an operation's result.
    pub fn complete(&mut self, index: u16, result: &[u8]) {
        if let Some(operation) = self.of(index) {
            operation.checksum = waft::format::chunk_checksum(result);
        }
    }

    /// Prints the operations that took any time.
    pub fn print(&self) {
        for (index, operation) in (0u16..).zip(&self.0).filter(|(_, operation)| operation.ticks > 0) {
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
