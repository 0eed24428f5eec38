//! A small network by hand that normalizes the channels of each pixel and adds a shortcut behind the activation.

extern crate std;

use std::vec::Vec;

use bytemuck::Zeroable;

use super::{Draft, PARAMETERS, convolution, elements, ring_of_samples};
use crate::format::{Center, Conv2d, Gather, Header, LayerNorm, NONE, Op, OpKind, Precision};

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const MAP: u16 = 2;
pub(crate) const SHORTCUT: u16 = 3;
pub(crate) const SUM: u16 = 4;
/// The rings of operations 0, 1 and 3.
pub(crate) const RINGS: u16 = 5;

/// Operations by number.
pub(crate) const LAYER_NORM: usize = 2;

impl Draft {
    pub(crate) fn pixels(precision: Precision) -> Self {
        let [activation, wide, _, ring] = elements(precision);
        let mut draft = Self::start(Header {
            precision: precision.code(),
            unconditional_class: NONE,
            sample: SAMPLE,
            prediction: PREDICTION,
            unconditional: NONE,
            history: [NONE; 2],
            ..Header::zeroed()
        });
        let end = 4;
        let map = [2, 2, 4];
        for (shape, element, life) in [
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [3, end]),
            (map, activation, [0, 2]),
            (map, activation, [1, 2]),
            (map, activation, [2, 3]),
            ([3, 4, 1], ring_of_samples(precision), [0, 0]),
            ([1, 2, 1], ring_of_samples(precision), [1, 1]),
            ([3, 4, 4], ring, [3, 3]),
        ] {
            draft.add(shape, element, life);
        }
        draft.tensors[usize::from(SUM)].offset = draft.tensors[usize::from(SHORTCUT)].offset;
        draft.ops = operations(precision);
        draft
    }

    pub(crate) fn layer_norm(&mut self) -> &mut LayerNorm {
        let Op::LayerNorm(op) = &mut self.ops[LAYER_NORM] else { panic!("moved") };
        op
    }
}

fn operations(precision: Precision) -> Vec<Op> {
    let conv = Conv2d { sources: [SAMPLE, NONE], ..convolution(precision) };
    let wide = |op: Conv2d| Conv2d { kernel: [3, 3], padding: [1, 1], ..op };
    std::vec![
        Op::Conv2d(Conv2d { output: MAP, scratch: RINGS, ..wide(conv) }),
        Op::Conv2d(Conv2d { output: SHORTCUT, scratch: RINGS + 1, ..conv }),
        Op::LayerNorm(LayerNorm {
            kind: OpKind::LayerNorm.code(),
            center: Center::Mean.code(),
            gather: Gather::AffineSilu.code(),
            source: MAP,
            output: SUM,
            residual: SHORTCUT,
            gamma: PARAMETERS,
            beta: PARAMETERS,
            epsilon: 1e-5,
            epsilon_q16: 1,
            multiplier: 1 << 30,
            residual_multiplier: 1 << 30,
            ..LayerNorm::zeroed()
        }),
        Op::Conv2d(Conv2d { sources: [SUM, NONE], output: PREDICTION, scratch: RINGS + 2, ..wide(conv) }),
    ]
}
