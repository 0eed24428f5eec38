use super::{Check, File, check, ensure, in_every_step, is_zero, readable, require};
use crate::format::{ALIGN, Activate, Film, NONE, Observe};

pub(super) const fn validate(file: File<'_>, index: u16, op: &Activate) -> Check {
    ensure!(op.has_known_codes() && op.reserved == 0, Op, index);
    ensure!(is_zero(op.reserved_middle) && is_zero(op.reserved_end), Op, index);
    ensure!(!file.is_i8() || op.affine_shift >= 4 && op.affine_shift <= 30, Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(readable(file, [op.source, op.residual], false), Operand, index);
    ensure!(output.has_shape_of(&source) && file.is_activation(output.element()), Operand, index);
    let norm = require!(file.tensor(op.norm), Operand, index);
    ensure!(norm.element().is(file.wide()) && norm.rows == 1, Operand, index);
    ensure!(norm.columns == source.channels && norm.channels == 2, Operand, index);
    // All are read at once.
    ensure!(op.norm != op.source && op.observed != op.source && op.observed != op.norm, Operand, index);
    if op.residual != NONE {
        let residual = require!(file.tensor(op.residual), Operand, index);
        ensure!(residual.has_shape_of(&output), Operand, index);
        ensure!(op.residual != op.source && op.residual != op.norm && op.residual != op.observed, Operand, index);
    }
    let len = match op.film() {
        Film::None => {
            ensure!(op.film_at == 0 && op.observed == NONE, Op, index);
            return Ok(());
        }
        Film::Shift => source.channels as u64,
        Film::ScaleShift => 2 * source.channels as u64,
    };
    ensure!(op.film_at.is_multiple_of(ALIGN as u32), Offset, index);
    check!(in_every_step(file, index, op.film_at, 4 * len));
    if op.observed != NONE {
        let observed = require!(file.tensor(op.observed), Operand, index);
        ensure!(observed.len() as u64 == len && observed.element().is(file.wide()), Operand, index);
    }
    Ok(())
}

pub(super) const fn validate_observe(file: File<'_>, index: u16, op: &Observe) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(source.element().is(file.wide()), Operand, index);
    ensure!(output.has_shape_of(&source) && output.element().is(file.conditioning()), Operand, index);
    let len = source.len() as u64;
    let gain_bytes = if file.is_i8() { 8 } else { 4 };
    ensure!(file.holds(op.centers, 4 * len) && file.holds(op.gains, gain_bytes * len), Offset, index);
    Ok(())
}
