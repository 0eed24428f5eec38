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
    // What nobody reads is written too, and in the shape and the type of what it is made of.
    let unread = |shape, element| {
        move |d: &mut Draft| {
            d.conv(LOSS_OP - 1).sources[0] = INPUT;
            d.resize(RESULT, shape, element);
        }
    };
    accepted(classified(I8), unread([2, 2, 4], Element::I8));
    refused(classified(I8), Field::Operand, unread([2, 2, 3], Element::I8));
    refused(classified(I8), Field::Operand, unread([2, 2, 4], Element::I32));
    // Another gradient than the one that comes back, of the same type.
    refused(classified(I8), Field::Operand, |d| {
        d.classifier(BACKWARD).gradient = LOSS;
        d.tensor(LOSS).last = BACKWARD as u16;
    });
    // Logits are one pixel: not two of a kernel that is smaller than the map.
    let [before, behind] = [LOSS_OP - 1, LOSS_OP + 1];
    for ([rows, columns], kernel, padding) in
        [([1, 1], [2, 2], [1, 1]), ([2, 1], [1, 2], [0, 1]), ([1, 2], [2, 1], [1, 0])]
    {
        let logits = |d: &mut Draft| {
            for (conv, padding) in [(before, [0, 0]), (behind, padding)] {
                (d.conv(conv).kernel, d.conv(conv).padding) = (kernel, padding);
            }
            let rings = [before, behind].map(|conv| d.conv(conv).scratch);
            d.resize(rings[0], [kernel[0].into(), 2, 4], Element::I16);
            d.resize(rings[1], [kernel[0].into(), 3 - u16::from(columns == 2), 2], Element::I16);
            d.resize(LOGITS, [rows, columns, 2], Element::I16);
            d.resize(LOSS, [rows, columns, 2], Element::I16);
        };
        match [rows, columns] {
            [1, 1] => accepted(classified(I8), logits),
            _ => refused(classified(I8), Field::Operand, logits),
        }
    }
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
    // What is added to the prediction is of its shape and type.
    let wide = Element::I32;
    refused(classified(I8), Field::Header, |d| d.resize(GRADIENT, [2, 2, 1], Element::I8));
    refused(classified(I8), Field::Header, |d| d.resize(GRADIENT, [2, 2, 2], wide));
    refused(classified(I8), Field::Header, |d| {
        [PREDICTION, UNCONDITIONAL].into_iter().for_each(|tensor| d.resize(tensor, [2, 2, 2], wide));
    });
    refused(classified(I8), Field::Header, |d| d.header.variance = GRADIENT);
    // A condition is there before, and nobody writes it.
    let condition = |d: &mut Draft| {
        d.header.condition = d.add([2, 2, 1], wide, [0, d.ops.len() as u16]);
        d.header.condition
    };
    accepted(classified(I8), |d| _ = condition(d));
    refused(classified(I8), Field::Header, |d| d.header.gradient = condition(d));
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
