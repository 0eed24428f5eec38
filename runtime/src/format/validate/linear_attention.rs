use super::{Check, File, ensure, is_zero, require};
use crate::format::{Element, LinearAttention, Precision};

pub(super) const fn validate(file: File<'_>, index: u16, op: &LinearAttention) -> Check {
    ensure!(is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let query = require!(file.tensor(op.query), Operand, index);
    let key_value = require!(file.tensor(op.key_value), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    let scratch = require!(file.tensor(op.scratch), Operand, index);
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
    ensure!(op.heads > 0 && query.channels.is_multiple_of(op.heads), Op, index);
    let head = (query.channels / op.heads) as u64;
    ensure!(scratch.len() as u64 == query.channels as u64 * (head + 1), Operand, index);
    ensure!(scratch.element().is(file.conditioning()), Operand, index);
    let memory_bytes = op.memory as u64 * key_value.channels as u64 * element.bytes() as u64;
    ensure!(if op.memory == 0 { op.memory_at == 0 } else { file.holds(op.memory_at, memory_bytes) }, Offset, index);
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
