//! A small network by hand that normalizes the channels of each pixel and adds a shortcut behind the activation, then linear
//! attention with learned keys.

extern crate std;

use std::vec::Vec;

use bytemuck::Zeroable;

use super::{Draft, PARAMETERS, convolution, elements, header, ring_of_samples};
use crate::format::{Center, Conv2d, Gather, LayerNorm, LinearAttention, NONE, Op, OpKind, Precision};

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const MAP: u16 = 2;
pub(crate) const SHORTCUT: u16 = 3;
pub(crate) const SUM: u16 = 4;
/// The rings of operations 0, 1 and 6.
const RINGS: u16 = 5;
pub(crate) const QUERY: u16 = 8;
pub(crate) const KEY_VALUE: u16 = 9;
pub(crate) const CONTEXT: u16 = 10;
pub(crate) const CONTEXTS: u16 = 11;
/// The rings of operations 3 and 4.
const RINGS_OF_ATTENTION: u16 = 12;

/// Operations by number.
pub(crate) const LAYER_NORM: usize = 2;
pub(crate) const TO_QUERY: usize = 3;
pub(crate) const TO_KEY_VALUE: usize = 4;
pub(crate) const LINEAR_ATTENTION: usize = 5;
pub(crate) const LAST: usize = 6;

impl Draft {
    pub(crate) fn pixels(precision: Precision) -> Self {
        let [activation, wide, conditioning, ring] = elements(precision);
        let mut draft = Self::start(header(precision, [SAMPLE, PREDICTION]));
        let end = 7;
        let map = [2, 2, 4];
        for (shape, element, life) in [
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [6, end]),
            (map, activation, [0, 2]),
            (map, activation, [1, 2]),
            (map, activation, [2, 4]),
            ([3, 4, 1], ring_of_samples(precision), [0, 0]),
            ([1, 2, 1], ring_of_samples(precision), [1, 1]),
            ([3, 4, 4], ring, [6, 6]),
            (map, activation, [3, 5]),
            ([2, 2, 8], activation, [4, 5]),
            (map, activation, [5, 6]),
            // Two heads of two channels.
            ([1, 4, 3], conditioning, [5, 5]),
            ([1, 2, 4], ring, [3, 3]),
            ([1, 2, 4], ring, [4, 4]),
        ] {
            draft.add(shape, element, life);
        }
        draft.tensors[usize::from(SUM)].offset = draft.tensors[usize::from(SHORTCUT)].offset;
        draft.tensors[usize::from(CONTEXT)].offset = draft.tensors[usize::from(QUERY)].offset;
        draft.ops = operations(precision);
        draft
    }

    pub(crate) fn linear_attention(&mut self) -> &mut LinearAttention {
        let Op::LinearAttention(op) = &mut self.ops[LINEAR_ATTENTION] else { panic!("moved") };
        op
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
        Op::Conv2d(Conv2d { sources: [SUM, NONE], output: QUERY, scratch: RINGS_OF_ATTENTION, ..conv }),
        Op::Conv2d(Conv2d { sources: [SUM, NONE], output: KEY_VALUE, scratch: RINGS_OF_ATTENTION + 1, ..conv }),
        Op::LinearAttention(LinearAttention {
            kind: OpKind::LinearAttention.code(),
            query: QUERY,
            key_value: KEY_VALUE,
            output: CONTEXT,
            scratch: CONTEXTS,
            heads: 2,
            memory: 1,
            memory_at: PARAMETERS,
            key_multiplier: 1 << 30,
            query_multiplier: 1 << 30,
            value_multiplier: 1 << 30,
            key_bits: 8,
            query_bits: 8,
            gain: 0.5,
            ..LinearAttention::zeroed()
        }),
        Op::Conv2d(Conv2d { sources: [CONTEXT, NONE], output: PREDICTION, scratch: RINGS + 2, ..wide(conv) }),
    ]
}
