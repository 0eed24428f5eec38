use super::{Check, File, ensure, is_zero, readable, require};
use crate::format::{Element, Filter, NONE, Resampling};

pub(super) const fn validate(file: File<'_>, index: u16, op: &Filter) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(readable(file, [op.source, NONE], false), Operand, index);
    ensure!(file.is_activation(output.element()), Operand, index);
    ensure!(output.rows == source.rows && output.channels == source.channels, Operand, index);
    // A row is reflected once: it is longer than what is read beyond its ends.
    let (columns, fewest) = match op.resampling() {
        Resampling::Halve => (source.columns as u32 / 2, 4),
        Resampling::Double => (source.columns as u32 * 2, 3),
    };
    ensure!(source.columns >= fewest && output.columns as u32 == columns, Operand, index);
    if file.is_i8() {
        // |x − zero| < 2¹⁶, and the taps' magnitudes are 304 together: 16-bit tensors are symmetric, and the zero point of an 8-bit
        // one is one of its values.
        let zeros = if source.element().is(Element::I16) { 0..=0 } else { -128..=127 };
        ensure!(*zeros.start() <= op.zero && op.zero <= *zeros.end(), Op, index);
    }
    Ok(())
}
