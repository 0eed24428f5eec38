//! A small network by hand that a classifier guides: a convolution, its SiLU, logits, and the way back.

extern crate std;

use std::vec::Vec;

use bytemuck::Zeroable;

use super::{Draft, PARAMETERS, convolution, elements, header, ring_of_samples};
use crate::format::{Classifier, Conv2d, Element, Header, NONE, Op, OpKind, Pass, Precision};

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const GRADIENT: u16 = 2;
pub(crate) const UNCONDITIONAL: u16 = 3;
pub(crate) const INPUT: u16 = 4;
pub(crate) const RESULT: u16 = 5;
pub(crate) const LOGITS: u16 = 6;
pub(crate) const LOSS: u16 = 7;
pub(crate) const BACK: u16 = 8;
pub(crate) const BACK_TWICE: u16 = 9;
pub(crate) const SCALED: u16 = 10;
/// The rings of operations 0, 1, 3, 5 and 8.
const RINGS: u16 = 11;

/// Operations by number.
pub(crate) const FORWARD: usize = 2;
pub(crate) const LOSS_OP: usize = 4;
pub(crate) const BACKWARD: usize = 6;
pub(crate) const BACKWARD_SCALED: usize = 7;

impl Draft {
    pub(crate) fn classified(precision: Precision) -> Self {
        let [activation, wide, ..] = elements(precision);
        let back = if precision == Precision::I8 { Element::I16 } else { activation };
        let ring = ring_of_samples(precision);
        let mut draft = Self::start(Header {
            classes: 2,
            gradient: GRADIENT,
            unconditional: UNCONDITIONAL,
            ..header(precision, [SAMPLE, PREDICTION])
        });
        let end = 9;
        let map = [2, 2, 4];
        for (shape, element, life) in [
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [8, end]),
            ([2, 2, 1], wide, [0, end]),
            (map, activation, [1, 7]),
            (map, activation, [2, 3]),
            ([1, 1, 2], back, [3, 4]),
            ([1, 1, 2], back, [4, 5]),
            (map, back, [5, 6]),
            (map, back, [6, 7]),
            (map, back, [7, 8]),
            ([3, 4, 1], ring, [0, 0]),
            ([3, 4, 1], ring, [1, 1]),
            ([2, 2, 4], ring, [3, 3]),
            ([2, 3, 2], ring, [5, 5]),
            ([1, 2, 4], ring, [8, 8]),
        ] {
            draft.add(shape, element, life);
        }
        draft.ops = operations(precision);
        draft
    }

    pub(crate) fn classifier(&mut self, op: usize) -> &mut Classifier {
        let Op::Classifier(op) = &mut self.ops[op] else { panic!("moved") };
        op
    }
}

fn operations(precision: Precision) -> Vec<Op> {
    let conv = convolution(precision);
    let of =
        |source: u16, output: u16, ring: u16| Conv2d { sources: [source, NONE], output, scratch: RINGS + ring, ..conv };
    let wide = |op: Conv2d| Conv2d { kernel: [3, 3], padding: [1, 1], ..op };
    let of_classifier = |pass: Pass, source: u16, gradient: u16, output: u16| {
        let table = if pass == Pass::Loss { 0 } else { PARAMETERS };
        let (kind, pass) = (OpKind::Classifier.code(), pass.code());
        let multiplier = 1 << 30;
        Op::Classifier(Classifier { kind, pass, source, gradient, output, table, multiplier, ..Classifier::zeroed() })
    };
    std::vec![
        Op::Conv2d(wide(of(SAMPLE, PREDICTION, 0))),
        Op::Conv2d(wide(of(SAMPLE, INPUT, 1))),
        of_classifier(Pass::Forward, INPUT, NONE, RESULT),
        Op::Conv2d(Conv2d { kernel: [2, 2], ..of(RESULT, LOGITS, 2) }),
        of_classifier(Pass::Loss, LOGITS, NONE, LOSS),
        Op::Conv2d(Conv2d { kernel: [2, 2], padding: [1, 1], ..of(LOSS, BACK, 3) }),
        of_classifier(Pass::Backward, INPUT, BACK, BACK_TWICE),
        of_classifier(Pass::BackwardScaled, INPUT, BACK_TWICE, SCALED),
        Op::Conv2d(of(SCALED, GRADIENT, 4)),
    ]
}
