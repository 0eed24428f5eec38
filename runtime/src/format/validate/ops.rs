use super::{
    Check, File, activate, attention, check, classifier, conv2d, ensure, filter, in_every_step, is_zero, joined,
    layer_norm, readable, require,
};
use crate::format::{ALIGN, Affine, Element, Embed, GroupNorm, Linear, NONE, Op, Precision};

pub(super) const fn validate(file: File<'_>) -> Check {
    let header = file.header;
    let mut index = 0;
    while index < header.ops {
        let op = require!(header.op(file.bytes, index), Op, index);
        // A run executes these once: nothing in them depends on the step.
        ensure!(index >= header.once || matches!(op, Op::Observe(_) | Op::Linear(_)), Op, index);
        check!(validate_operands(file, index, &op));
        // A result's life starts where it is written: nothing else can be lost by writing it.
        let output = require!(file.tensor(op.output()), Operand, index);
        ensure!(output.first == index && !file.is_given(op.output()), Lifetime, op.output());
        ensure!(!file.is_kept(op.output()) && !op.is_scratch(op.output()), Lifetime, op.output());
        check!(match op {
            Op::Conv2d(op) => conv2d::validate(file, index, &op),
            Op::GroupNorm(op) => validate_group_norm(file, index, &op),
            Op::Attention(op) => attention::validate(file, index, &op),
            Op::Embed(op) => validate_embed(file, index, &op),
            Op::Linear(op) => validate_linear(file, index, &op),
            Op::Activate(op) => activate::validate(file, index, &op),
            Op::Observe(op) => activate::validate_observe(file, index, &op),
            Op::LayerNorm(op) => layer_norm::validate(file, index, &op),
            Op::LinearAttention(op) => attention::validate_linear(file, index, &op),
            Op::Classifier(op) => classifier::validate(file, index, &op),
            Op::Filter(op) => filter::validate(file, index, &op),
        });
        index += 1;
    }
    Ok(())
}

/// Operands are alive and were written before; scratch is the operation's own.
const fn validate_operands(file: File<'_>, index: u16, op: &Op) -> Check {
    let operands = op.operands();
    let mut i = 0;
    while i < operands.len() {
        let id = operands[i];
        if id != NONE {
            let t = require!(file.tensor(id), Operand, index);
            ensure!(index <= t.last, Lifetime, id);
            // Results are read after the operation that wrote them; what is given is there from the start to the end.
            let written = t.first < index || file.is_given(id) || op.is_scratch(id);
            ensure!(written && !file.is_kept(id), Lifetime, id);
            if op.is_scratch(id) {
                ensure!(t.first == index && t.last == index, Lifetime, id);
                let mut other = 0;
                while other < operands.len() {
                    ensure!(other == i || operands[other] != id, Operand, index);
                    other += 1;
                }
            }
        }
        i += 1;
    }
    Ok(())
}

const fn validate_group_norm(file: File<'_>, index: u16, op: &GroupNorm) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved_end), Op, index);
    let [rows, columns, channels] = check!(joined(file, index, op.sources));
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(readable(file, op.sources, false), Operand, index);
    ensure!(output.element().is(file.wide()), Operand, index);
    ensure!(output.rows == 1 && output.columns as usize == channels && output.channels == 2, Operand, index);
    // No number of channels is a multiple of 0; that nothing is divided by 0 below, the compiler has to see.
    ensure!(op.groups > 0 && channels.is_multiple_of(op.groups as usize), Op, index);
    // Bounds the sum of squares of 16-bit values so that 16 fractional bits of its mean fit an unsigned 64-bit word.
    ensure!(rows as u64 * columns as u64 * (channels / op.groups as usize) as u64 <= 1 << 17, Op, index);
    check!(validate_affine(file, index, op, channels as u64));
    if file.is_i8() {
        ensure!(op.epsilon_q16 >= 1 && op.epsilon_q16 < 1 << 62, Op, index);
        ensure!(op.affine_shift >= 4 && op.affine_shift <= 30, Op, index);
        let mut i = 0;
        while i < 2 {
            ensure!(op.ratio[i] >= 1 && op.ratio[i] <= 1 << 15, Op, index);
            // |x − zero| < 2¹⁶ and, with 16 fractional bits, |mean| < 2³²: its square would not fit. 16-bit tensors are
            // symmetric, and the zero point of an 8-bit one is one of its values.
            let zeros = match file.tensor(op.sources[i]) {
                Some(t) if t.element().is(Element::I16) => 0..=0,
                _ => -128..=127,
            };
            ensure!(*zeros.start() <= op.zero[i] && op.zero[i] <= *zeros.end(), Op, index);
            i += 1;
        }
    }
    Ok(())
}

/// The factors and summands of a normalization are where it says.
const fn validate_affine(file: File<'_>, index: u16, op: &GroupNorm, channels: u64) -> Check {
    ensure!(matches!(op.affine(), Affine::Tensor) || op.affine_tensor == 0, Op, index);
    match op.affine() {
        Affine::Constant => {
            ensure!(file.holds(op.gamma, channels * 4) && file.holds(op.beta, channels * 4), Offset, index);
        }
        Affine::Step => {
            let is_aligned = op.gamma.is_multiple_of(ALIGN as u32) && op.beta.is_multiple_of(ALIGN as u32);
            ensure!(is_aligned, Offset, index);
            check!(in_every_step(file, index, op.gamma, channels * 4));
            check!(in_every_step(file, index, op.beta, channels * 4));
        }
        Affine::Tensor => {
            let affine = require!(file.tensor(op.affine_tensor), Operand, index);
            ensure!(affine.len() as u64 == 2 * channels && affine.element().is(file.wide()), Operand, index);
        }
    }
    Ok(())
}

const fn validate_embed(file: File<'_>, index: u16, op: &Embed) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved), Op, index);
    ensure!(is_zero(op.reserved_middle) && is_zero(op.reserved_end), Op, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(output.len() as u64 == file.header.conditioning as u64, Operand, index);
    ensure!(output.element().is(file.conditioning()), Operand, index);
    let row = file.header.conditioning as u64 * file.conditioning().bytes() as u64;
    ensure!(file.header.classes == 0 || file.holds(op.table, file.header.classes as u64 * row), Offset, index);
    ensure!(op.input_shift <= 12 && op.output_shift <= 15, Op, index);
    Ok(())
}

const fn validate_linear(file: File<'_>, index: u16, op: &Linear) -> Check {
    ensure!(is_zero(op.reserved) && is_zero(op.reserved_end), Op, index);
    let source = require!(file.tensor(op.source), Operand, index);
    let output = require!(file.tensor(op.output), Operand, index);
    ensure!(source.element().is(file.conditioning()), Operand, index);
    ensure!(output.element().is(file.wide()), Operand, index);
    let weight_bytes = match file.precision() {
        Precision::I8 | Precision::F16 => 2,
        Precision::F32 => 4,
    };
    let outputs = output.len() as u64;
    ensure!(file.holds(op.weights, outputs * source.len() as u64 * weight_bytes), Offset, index);
    ensure!(file.holds(op.bias, outputs * 4), Offset, index);
    ensure!(!file.is_i8() || file.holds(op.requant, outputs * 8), Offset, index);
    Ok(())
}
