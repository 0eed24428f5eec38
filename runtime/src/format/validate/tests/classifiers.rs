//! Classifiers that guide.

use super::*;
use crate::draft::classified::{
    BACK, BACKWARD, BACKWARD_SCALED, FORWARD, GRADIENT, INPUT, LOGITS, LOSS, LOSS_OP, PREDICTION, RESULT, SAMPLE,
    UNCONDITIONAL,
};
use crate::format::Pass;

fn classified(precision: Precision) -> Draft {
    Draft::classified(precision)
}

#[test]
fn operations_of_classifiers() {
    let end = classified(I8).file().bytes().len() as u32;
    let passes = Pass::ALL.len() as u8;
    bounds!(classified(I8), Op, |d, v| d.classifier(FORWARD).pass = v, [0], [passes, 255]);
    bounds!(classified(I8), Op, |d, v| d.classifier(FORWARD).reserved_end[95] = v, [0], [1]);
    for op in [FORWARD, BACKWARD, BACKWARD_SCALED] {
        bounds!(classified(I8), Offset, |d, v| d.classifier(op).table = v, [PARAMETERS, end - 512], [0, 8, end - 496]);
    }
    // The float precisions compute what tables hold, and a softmax has none.
    accepted(classified(F32), |d| d.classifier(FORWARD).table = 8);
    for op in [FORWARD, BACKWARD, LOSS_OP] {
        bounds!(classified(I8), Offset, |d, v| d.classifier(op).factor_at = v, [0], [16]);
    }
    let factor = |d: &mut Draft, at: u32| {
        d.schedule.bias_bytes = 32;
        d.classifier(BACKWARD_SCALED).factor_at = at;
    };
    ALL.iter().for_each(|&precision| {
        bounds!(classified(precision), Offset, |d, v| factor(d, v), [0, 16], [8, 32, 48]);
    });
}

#[test]
fn what_operations_of_classifiers_read_and_write() {
    let end = classified(I8).tensors.len() as u16;
    bounds!(classified(I8), Operand, |d, v| d.classifier(FORWARD).gradient = v, [NONE], [SAMPLE]);
    bounds!(classified(I8), Operand, |d, v| d.classifier(LOSS_OP).gradient = v, [NONE], [INPUT]);
    bounds!(classified(I8), Operand, |d, v| d.classifier(BACKWARD).gradient = v, [BACK], [NONE, end, INPUT]);
    bounds!(classified(I8), Operand, |d, v| d.classifier(BACKWARD).source = v, [INPUT], [NONE, end, SAMPLE, BACK]);
    bounds!(classified(F32), Operand, |d, v| d.classifier(BACKWARD).source = v, [INPUT], [NONE, end, SAMPLE, BACK]);
    // What comes forward has eight bits, what goes back sixteen.
    refused(classified(I8), Field::Operand, |d| d.resize(INPUT, [2, 2, 4], Element::I16));
    refused(classified(I8), Field::Operand, |d| d.resize(LOGITS, [1, 1, 2], Element::I8));
    refused(classified(I8), Field::Operand, |d| d.resize(LOSS, [1, 1, 2], Element::I8));
    refused(classified(I8), Field::Operand, |d| d.resize(BACK, [2, 2, 4], Element::I8));
    accepted(classified(I8), |d| d.resize(RESULT, [2, 2, 4], Element::I16));
    refused(classified(I8), Field::Operand, |d| d.resize(RESULT, [2, 2, 4], Element::I32));
    // A channel for each class.
    bounds!(classified(I8), Operand, |d, v| d.header.classes = v, [2], [1, 3]);
}

#[test]
fn gradients_of_classifiers() {
    let tensors = classified(I8).tensors.len() as u16;
    bounds!(
        classified(I8),
        Header,
        |d, v| d.header.gradient = v,
        [],
        [PREDICTION, INPUT, UNCONDITIONAL, tensors, NONE]
    );
    // The prediction is kept as it was without, and nothing means "no class".
    bounds!(classified(I8), Header, |d, v| d.header.unconditional_class = v, [NONE], [0, 1]);
    refused(classified(I8), Field::Header, |d| {
        d.header.unconditional = NONE;
        d.tensor(UNCONDITIONAL).last = 0;
        d.header.history[0] = UNCONDITIONAL;
    });
    refused(classified(I8), Field::Lifetime, |d| d.tensor(GRADIENT).last = 8);
    refused(classified(I8), Field::Header, |d| d.header.classes = 0);
}
