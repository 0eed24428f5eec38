use super::{Check, File, check, ensure, in_every_step, is_zero, require};
use crate::format::{ALIGN, Classifier, Element, NONE, Pass};

pub(super) const fn validate(file: File<'_>, index: u16, op: &Classifier) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved_end), Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(output.has_shape_of(&source) && file.is_activation(output.element()), Operand, index);
    let (narrow, wide) = match file.is_i8() {
        true => (Element::I8, Element::I16),
        false => (output.element(), output.element()),
    };
    let (is_loss, is_forward) = (matches!(op.pass(), Pass::Loss), matches!(op.pass(), Pass::Forward));
    ensure!(source.element().is(if is_loss { wide } else { narrow }), Operand, index);
    ensure!(is_forward || output.element().is(wide), Operand, index);
    // A class's logit is a channel.
    ensure!(
        !is_loss || source.rows == 1 && source.columns == 1 && source.channels == file.header.classes,
        Operand,
        index
    );
    ensure!(is_loss || !file.is_i8() || file.holds(op.table, 256 * 2), Offset, index);
    match op.pass() {
        Pass::Forward | Pass::Loss => ensure!(op.gradient == NONE, Operand, index),
        Pass::Backward | Pass::BackwardScaled => {
            let gradient = require!(file.tensor(op.gradient), Operand, index);
            ensure!(gradient.has_shape_of(&source) && gradient.element().is(wide), Operand, index);
            ensure!(op.gradient != op.source, Operand, index);
        }
    }
    if !matches!(op.pass(), Pass::BackwardScaled) {
        ensure!(op.factor_at == 0, Offset, index);
        return Ok(());
    }
    ensure!(op.factor_at.is_multiple_of(ALIGN as u32), Offset, index);
    check!(in_every_step(file, index, op.factor_at, if file.is_i8() { 8 } else { 4 }));
    Ok(())
}
