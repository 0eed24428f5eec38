use super::{Check, File, ModelError, check, ensure, is_zero, require};
use crate::format::{Attention, Element, LinearAttention, Precision, Tensor};

pub(super) const fn validate(file: File<'_>, index: u16, op: &Attention) -> Check {
    ensure!(is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let operands = Operands {
        query: op.query,
        key_value: op.key_value,
        output: op.output,
        heads: op.heads,
        memory: op.memory,
        memory_at: op.memory_at,
    };
    let query = check!(operands.validate(file, index));
    let scratch = require!(file.tensor(op.scratch), Operand, index);
    let tokens = query.rows as u64 * query.columns as u64 + op.memory as u64;
    ensure!(scratch.len() as u64 == tokens && scratch.element().is(file.wide()), Operand, index);
    if file.is_i8() {
        // The weighted sum of values, at most 128 each, fits 32 bits.
        ensure!(op.weight_bits >= 1 && op.weight_bits <= 15, Op, index);
        ensure!(tokens << (op.weight_bits + 7) <= i32::MAX as u64, Op, index);
        ensure!(op.value_multiplier >= 0 && op.score_multiplier >= 0, Op, index);
    }
    Ok(())
}

pub(super) const fn validate_linear(file: File<'_>, index: u16, op: &LinearAttention) -> Check {
    ensure!(is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let operands = Operands {
        query: op.query,
        key_value: op.key_value,
        output: op.output,
        heads: op.heads,
        memory: op.memory,
        memory_at: op.memory_at,
    };
    let query = check!(operands.validate(file, index));
    let scratch = require!(file.tensor(op.scratch), Operand, index);
    let head = require!(query.channels.checked_div(op.heads), Op, index) as u64;
    ensure!(scratch.len() as u64 == query.channels as u64 * (head + 1), Operand, index);
    ensure!(scratch.element().is(file.conditioning()), Operand, index);
    if file.is_i8() {
        // Weighted sums fit 32 bits: of values, at most 2⁷ each, and of contexts, at most 2¹³.
        let keys = query.rows as u64 * query.columns as u64 + op.memory as u64;
        ensure!(op.key_bits >= 1 && op.key_bits <= 15 && op.query_bits >= 1 && op.query_bits <= 14, Op, index);
        ensure!(keys << (op.key_bits + 7) <= i32::MAX as u64, Op, index);
        ensure!(head << (op.query_bits + 13) <= i32::MAX as u64, Op, index);
        let multipliers = op.key_multiplier >= 0 && op.query_multiplier >= 0 && op.value_multiplier >= 0;
        ensure!(multipliers, Op, index);
    }
    Ok(())
}

/// What both attentions read and write.
struct Operands {
    query: u16,
    key_value: u16,
    output: u16,
    heads: u16,
    memory: u16,
    memory_at: u32,
}

impl Operands {
    /// The queries, in whose place the result is written; keys and values of the same pixels and of learned ones.
    const fn validate(&self, file: File<'_>, index: u16) -> Result<Tensor, ModelError> {
        let query = require!(file.tensor(self.query), Operand, index);
        let key_value = require!(file.tensor(self.key_value), Operand, index);
        let output = require!(file.tensor(self.output), Operand, index);
        ensure!(query.has_shape_of(&output) && query.element().is(output.element()), Operand, index);
        ensure!(query.offset == output.offset, Operand, index);
        ensure!(key_value.rows == query.rows && key_value.columns == query.columns, Operand, index);
        ensure!(key_value.channels as u32 == 2 * query.channels as u32, Operand, index);
        let element = match file.precision() {
            Precision::I8 => Element::I8,
            Precision::F16 => Element::F16,
            Precision::F32 => Element::F32,
        };
        ensure!(query.element().is(element) && key_value.element().is(element), Operand, index);
        // No number of channels is a multiple of 0.
        ensure!(query.channels.is_multiple_of(self.heads), Op, index);
        let memory_bytes = self.memory as u64 * key_value.channels as u64 * element.bytes() as u64;
        let has_memory = if self.memory == 0 { self.memory_at == 0 } else { file.holds(self.memory_at, memory_bytes) };
        ensure!(has_memory, Offset, index);
        Ok(query)
    }
}
