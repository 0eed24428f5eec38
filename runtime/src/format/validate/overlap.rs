//! No two tensors that are alive together share memory, but where an operation may write over what it has read.

use super::{Check, File, ensure, joined, require};
use crate::format::{Conv2d, Op, Tensor};

pub(super) const fn validate(file: File<'_>) -> Check {
    let mut i = 0;
    while i < file.header.tensors {
        let a = require!(file.tensor(i), Tensor, i);
        let mut j = i + 1;
        while j < file.header.tensors {
            let b = require!(file.tensor(j), Tensor, j);
            let share = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
            if share && a.first <= b.last && b.first <= a.last {
                let in_place = if a.last == b.first {
                    may_overwrite(file, a.last, i, j)
                } else if b.last == a.first {
                    may_overwrite(file, b.last, j, i)
                } else {
                    false
                };
                ensure!(in_place, Overlap, j);
            }
            j += 1;
        }
        i += 1;
    }
    Ok(())
}

/// Whether operation `index` may write its result `output` over its operand `dying`, which nobody reads later.
const fn may_overwrite(file: File<'_>, index: u16, dying: u16, output: u16) -> bool {
    let (Some(op), Some(from), Some(to)) = (file.header.op(file.bytes, index), file.tensor(dying), file.tensor(output))
    else {
        return false;
    };
    if op.output() != output {
        return false;
    }
    match op {
        // Each query is read before the context is written over it.
        Op::Attention(op) => op.query == dying && op.key_value != dying && op.scratch != dying,
        Op::Conv2d(op) => {
            let is_source = op.sources[0] == dying || op.sources[1] == dying;
            let is_residual = op.residual == dying;
            let is_other = op.norm == dying || op.bias_tensor == dying || op.scratch == dying || op.window == dying;
            if is_other || !(is_source || is_residual) {
                return false;
            }
            // A residual is read element by element, just before the result is written to the same place.
            if is_residual && (from.offset != to.offset || !from.element().is(to.element())) {
                return false;
            }
            // A convolution whose weights come in several chunks reads its sources once for each.
            let channels = match joined(file, index, op.sources) {
                Ok([_, _, channels]) => channels,
                Err(_) => return false,
            };
            let passes = match op.chunks(to.channels as u64, channels as u64) {
                Some(chunks) => chunks.count,
                None => 1,
            };
            !is_source || (passes == 1 && rows_are_read_first(&op, &from, &to))
        }
        Op::GroupNorm(_) | Op::Embed(_) | Op::Linear(_) => false,
    }
}

/// Whether each output row ends before the first source row that has not been gathered when it is written.
const fn rows_are_read_first(op: &Conv2d, from: &Tensor, to: &Tensor) -> bool {
    let mut y = 0u64;
    while y < to.rows as u64 {
        let next = y * op.stride as u64 + op.kernel[0] as u64;
        let unread = next.saturating_sub(op.padding[0] as u64) >> op.doubling();
        if unread >= from.rows as u64 {
            return true;
        }
        let written = to.offset as u64 + (y + 1) * to.row_bytes();
        if written > from.offset as u64 + unread * from.row_bytes() {
            return false;
        }
        y += 1;
    }
    true
}
