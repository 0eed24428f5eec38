//! The structural check, a `const fn`: what it accepts can be run without a bound or an overlap in doubt.

mod activate;
mod attention;
mod classifier;
mod conv2d;
mod filter;
mod header;
mod layer_norm;
mod ops;
mod overlap;
mod schedules;
mod tensors;

use super::{ALIGN, Element, Header, NONE, Precision};
use crate::error::ModelError;

/// Returns the error from the enclosing function unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $field:ident, $index:expr) => {
        if !$condition {
            return Err(crate::error::ModelError::Malformed {
                field: crate::error::Field::$field,
                index: $index as usize,
            });
        }
    };
}

/// `match` with early return: `?` for `Option` in a `const fn`.
macro_rules! require {
    ($option:expr, $field:ident, $index:expr) => {
        match $option {
            Some(value) => value,
            None => {
                return Err(crate::error::ModelError::Malformed {
                    field: crate::error::Field::$field,
                    index: $index as usize,
                });
            }
        }
    };
}

/// `match` with early return: `?` for `Result` in a `const fn`.
macro_rules! check {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}

use {check, ensure, require};

type Check = Result<(), ModelError>;

/// The file under test: its header, once read, and all of it.
#[derive(Clone, Copy)]
struct File<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

/// Checks everything that the operations rely on, and that the file has the checksum `found`.
pub(crate) const fn validate(bytes: &[u8], found: u32) -> Result<Header, ModelError> {
    if bytes.len() < size_of::<Header>() {
        return Err(ModelError::Truncated { expected: size_of::<Header>(), found: bytes.len() });
    }
    let header = Header::read(bytes, 0);
    if u32::from_le_bytes(header.magic) != u32::from_le_bytes(super::MAGIC) {
        return Err(ModelError::Magic);
    }
    if header.version != super::VERSION {
        return Err(ModelError::Version { found: header.version });
    }
    if Precision::from_code(header.precision).is_none() {
        return Err(ModelError::Precision { found: header.precision });
    }
    if bytes.len() < header.file_bytes as usize {
        return Err(ModelError::Truncated { expected: header.file_bytes as usize, found: bytes.len() });
    }
    ensure!(bytes.len() == header.file_bytes as usize, Header, 0);
    if found != header.checksum {
        return Err(ModelError::Checksum { expected: header.checksum, found });
    }
    let file = File { header: &header, bytes };
    check!(header::validate(file));
    check!(tensors::validate(file));
    check!(ops::validate(file));
    check!(overlap::validate(file));
    check!(schedules::validate(file));
    Ok(header)
}

impl File<'_> {
    /// Whether `len` bytes at `at` lie in the file, aligned for the device's loads.
    const fn holds(self, at: u32, len: u64) -> bool {
        at.is_multiple_of(ALIGN as u32)
            && at as usize >= size_of::<Header>()
            && at as u64 + len <= self.header.file_bytes as u64
    }

    const fn precision(self) -> Precision {
        self.header.precision()
    }

    const fn is_i8(self) -> bool {
        matches!(self.precision(), Precision::I8)
    }

    const fn tensor(self, id: u16) -> Option<super::Tensor> {
        self.header.tensor(self.bytes, id)
    }

    /// Element of accumulators, norm maps and the sample.
    const fn wide(self) -> Element {
        if self.is_i8() { Element::I32 } else { Element::F32 }
    }

    /// Element of the conditioning vector.
    const fn conditioning(self) -> Element {
        if self.is_i8() { Element::I16 } else { Element::F32 }
    }

    /// Whether activations of the precision may have this element type.
    const fn is_activation(self, element: Element) -> bool {
        matches!(
            (self.precision(), element),
            (Precision::I8, Element::I8 | Element::I16)
                | (Precision::F16, Element::F16)
                | (Precision::F32, Element::F32)
        )
    }

    /// Whether a tensor is given to the network, so that no operation writes it: the sample, the condition, the observation.
    const fn is_given(self, id: u16) -> bool {
        id == self.header.sample
            || self.header.condition != 0 && id == self.header.condition
            || self.header.observation != 0 && id == self.header.observation
    }

    /// Whether the sampler reads a tensor behind the network call: the prediction, the learned variance, the classifier's gradient.
    const fn is_result(self, id: u16) -> bool {
        id == self.header.prediction
            || self.header.variance != 0 && id == self.header.variance
            || self.header.gradient != 0 && id == self.header.gradient
    }

    /// Whether a tensor belongs to the sampler, so that no operation reads or writes it: it holds what lies between calls.
    const fn is_kept(self, id: u16) -> bool {
        id == self.header.unconditional || id == self.header.history[0] || id == self.header.history[1]
    }
}

/// Whether reserved bytes are zeros, as they have to be.
const fn is_zero<const N: usize>(reserved: [u8; N]) -> bool {
    let mut i = 0;
    while i < N {
        if reserved[i] != 0 {
            return false;
        }
        i += 1;
    }
    true
}

/// Rows, columns and channels of one or two sources that are joined along the channels.
const fn joined(file: File<'_>, index: u16, sources: [u16; 2]) -> Result<[usize; 3], ModelError> {
    let first = require!(file.tensor(sources[0]), Operand, index);
    let mut channels = first.channels as usize;
    if sources[1] != NONE {
        let second = require!(file.tensor(sources[1]), Operand, index);
        ensure!(first.rows == second.rows && first.columns == second.columns, Operand, index);
        channels += second.channels as usize;
    }
    Ok([first.rows as usize, first.columns as usize, channels])
}

/// Whether every source has an element type that the operation reads; `given`: whether the sample and the condition are
/// among these.
const fn readable(file: File<'_>, sources: [u16; 2], given: bool) -> bool {
    let mut i = 0;
    while i < 2 {
        if sources[i] != NONE {
            let element = match file.tensor(sources[i]) {
                Some(t) => t.element(),
                None => return false,
            };
            let is_given = given && file.is_given(sources[i]) && element.is(file.wide());
            if !file.is_activation(element) && !is_given {
                return false;
            }
        }
        i += 1;
    }
    true
}

/// Whether `len` bytes at `at` lie in the biases of a step, in every schedule.
const fn in_every_step(file: File<'_>, index: u16, at: u32, len: u64) -> Check {
    let mut i = 0;
    while i < file.header.schedules {
        let schedule = require!(file.header.schedule(file.bytes, i), Schedule, i);
        ensure!(at as u64 + len <= schedule.bias_bytes as u64, Offset, index);
        i += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
