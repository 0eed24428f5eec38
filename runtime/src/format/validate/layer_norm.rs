use super::{Check, File, check, ensure, in_every_step, is_zero, readable, require};
use crate::format::{ALIGN, Affine, Element, Gather, LayerNorm, NONE};

pub(super) const fn validate(file: File<'_>, index: u16, op: &LayerNorm) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    ensure!(!matches!(op.gather(), Gather::Raw), Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(readable(file, [op.source, op.residual], false), Operand, index);
    ensure!(output.has_shape_of(&source) && file.is_activation(output.element()), Operand, index);
    if op.residual != NONE {
        let residual = require!(file.tensor(op.residual), Operand, index);
        ensure!(residual.has_shape_of(&output) && op.residual != op.source, Operand, index);
    }
    let bytes = 4 * source.channels as u64;
    match op.affine() {
        Affine::Constant => ensure!(file.holds(op.gamma, bytes) && file.holds(op.beta, bytes), Offset, index),
        Affine::Step => {
            let is_aligned = op.gamma.is_multiple_of(ALIGN as u32) && op.beta.is_multiple_of(ALIGN as u32);
            ensure!(is_aligned, Offset, index);
            check!(in_every_step(file, index, op.gamma, bytes));
            check!(in_every_step(file, index, op.beta, bytes));
        }
        Affine::Tensor => ensure!(false, Op, index),
    }
    if file.is_i8() {
        ensure!(op.epsilon_q16 >= 1 && op.epsilon_q16 < 1 << 62, Op, index);
        // |x − zero| < 2¹⁶, so that a difference from the mean in 12 fractional bits has 29 bits: 16-bit tensors are symmetric,
        // and the zero point of an 8-bit one is one of its values.
        let zeros = if source.element().is(Element::I16) { 0..=0 } else { -128..=127 };
        ensure!(*zeros.start() <= op.zero && op.zero <= *zeros.end(), Op, index);
    }
    Ok(())
}
