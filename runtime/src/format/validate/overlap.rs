//! No two tensors that are alive together share memory, but where an operation may write over what it has read.
//!
//! The walk over the operations meets each tensor where its life begins, and compares it with its neighbours in address
//! only: n log n, in the compiler's interpreter too.

use super::{Check, File, check, ensure, joined, require};
use crate::format::{Conv2d, MAX_ALIVE, NONE, Op, Tensor};

pub(super) const fn validate(file: File<'_>) -> Check {
    let header = file.header;
    let mut memory = Memory { ids: [NONE; MAX_ALIVE], len: 0 };
    let [newer, older] = header.history;
    let mut index = 0;
    check!(memory.add_all(file, index, &[header.sample, header.unconditional, newer, older]));
    // Of these 0 means that there is none.
    if header.condition != 0 {
        check!(memory.add(file, index, header.condition));
    }
    if header.observation != 0 {
        check!(memory.add(file, index, header.observation));
    }
    // Every other tensor is the scratch or the result of the operation with which its life begins.
    while index < header.ops {
        let op = require!(header.op(file.bytes, index), Op, index);
        check!(memory.add_all(file, index, &op.scratch()));
        check!(memory.add(file, index, op.output()));
        index += 1;
    }
    Ok(())
}

/// Tensors by ascending address, none of which shares memory with another. Some may be dead: they leave when their memory or
/// their place in the list is wanted.
struct Memory {
    ids: [u16; MAX_ALIVE],
    len: usize,
}

impl Memory {
    const fn add_all(&mut self, file: File<'_>, index: u16, ids: &[u16]) -> Check {
        let mut rest = ids;
        while let [id, tail @ ..] = rest {
            if *id != NONE {
                check!(self.add(file, index, *id));
            }
            rest = tail;
        }
        Ok(())
    }

    /// Adds a tensor whose life begins with operation `index`. The result comes last: what it replaces is not looked at again.
    const fn add(&mut self, file: File<'_>, index: u16, id: u16) -> Check {
        if self.len == MAX_ALIVE {
            self.bury(file, index);
        }
        let tensor = require!(file.tensor(id), Tensor, id);
        let first = self.first_behind(file, tensor.offset);
        let mut end = first;
        while end < self.len {
            let other = require!(file.tensor(self.id(end)), Tensor, id);
            if other.offset >= tensor.offset + tensor.bytes {
                break;
            }
            let replaced = other.last == index && may_overwrite(file, index, self.id(end), id);
            ensure!(other.last < index || replaced, Overlap, id);
            end += 1;
        }
        ensure!(self.len - (end - first) < MAX_ALIVE, Alive, id);
        self.replace(first, end, id);
        Ok(())
    }

    const fn id(&self, at: usize) -> u16 {
        if at < MAX_ALIVE { self.ids[at] } else { NONE }
    }

    const fn set(&mut self, at: usize, id: u16) {
        if at < MAX_ALIVE {
            self.ids[at] = id;
        }
    }

    /// The place of the first tensor that ends behind an address, by bisection.
    const fn first_behind(&self, file: File<'_>, address: u32) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            match file.tensor(self.id(middle)) {
                Some(tensor) if tensor.offset + tensor.bytes <= address => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Puts one tensor in the place of those from `first` to before `end`.
    const fn replace(&mut self, first: usize, end: usize, id: u16) {
        let len = self.len + 1 - (end - first);
        if end == first {
            let mut at = self.len;
            while at > first {
                self.set(at, self.id(at - 1));
                at -= 1;
            }
        } else {
            let mut at = first + 1;
            while at < len {
                self.set(at, self.id(at + (end - first) - 1));
                at += 1;
            }
        }
        self.set(first, id);
        self.len = len;
    }

    /// Removes what is dead when operation `index` begins.
    const fn bury(&mut self, file: File<'_>, index: u16) {
        let mut alive = 0;
        let mut at = 0;
        while at < self.len {
            let id = self.id(at);
            if let Some(tensor) = file.tensor(id)
                && tensor.last >= index
            {
                self.set(alive, id);
                alive += 1;
            }
            at += 1;
        }
        self.len = alive;
    }
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
        // Each query is read before the context is written to its place, which is all the memory of both.
        Op::Attention(op) => op.query == dying,
        // Contexts are those of all queries and read none; a query is weighed before its result is written over it.
        Op::LinearAttention(op) => op.query == dying && op.key_value != dying && op.scratch != dying,
        Op::Conv2d(op) => {
            let is_source = op.sources[0] == dying || op.sources[1] == dying;
            let is_residual = op.residual == dying;
            let is_other = op.norm == dying || op.bias_tensor == dying;
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
            let passes = match op.chunks(op.computed(to).channels as u64, channels as u64) {
                Some(chunks) => chunks.count,
                None => 1,
            };
            !is_source || (passes == 1 && rows_are_read_first(&op, &from, &to))
        }
        // Element by element, just before the result is written to the same place.
        Op::Activate(op) => {
            let is_read = op.source == dying || op.residual == dying;
            is_read && from.offset == to.offset && from.element().is(to.element())
        }
        // Pixel by pixel: a pixel's channels are summed before the first is written, the residual's read one by one.
        Op::LayerNorm(op) => {
            let is_read = op.source == dying || op.residual == dying;
            is_read && from.offset == to.offset && from.element().is(to.element())
        }
        Op::GroupNorm(_) | Op::Embed(_) | Op::Linear(_) | Op::Observe(_) | Op::Classifier(_) | Op::Filter(_) => false,
    }
}

/// Whether each output row ends before the first source row that has not been gathered when it is written.
pub(super) const fn rows_are_read_first(op: &Conv2d, from: &Tensor, to: &Tensor) -> bool {
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
