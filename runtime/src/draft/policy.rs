//! A small policy by hand: an observation and its projection, computed once a run, a normalization that is modulated by it and
//! added to a shortcut, and a transposed convolution to the prediction.

extern crate std;

use std::vec::Vec;

use bytemuck::Zeroable;

use super::{Draft, PARAMETERS, convolution, elements, group_norm, header, linear, ring_of_samples};
use crate::format::{
    Activate, Conv2d, Film, FixedAction, FloatAction, Header, NONE, Observe, Op, OpKind, Precision, Shuffle,
};

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const OBSERVED: u16 = 2;
pub(crate) const FILM: u16 = 3;
pub(crate) const MAP: u16 = 4;
pub(crate) const NORM: u16 = 5;
pub(crate) const SHORTCUT: u16 = 6;
pub(crate) const SUM: u16 = 7;
/// The rings of operations 2, 4 and 6.
pub(crate) const RINGS: u16 = 8;
pub(crate) const OBSERVATION: u16 = 11;

/// Operations by number.
pub(crate) const OBSERVE: usize = 0;
pub(crate) const LINEAR: usize = 1;
pub(crate) const FIRST: usize = 2;
pub(crate) const ACTIVATE: usize = 5;
pub(crate) const LAST: usize = 6;

impl Draft {
    pub(crate) fn policy(precision: Precision) -> Self {
        let [activation, wide, conditioning, ring] = elements(precision);
        let mut draft =
            Self::start(Header { observation: OBSERVATION, once: 2, ..header(precision, [SAMPLE, PREDICTION]) });
        let end = 7;
        let map = [1, 2, 2];
        for (shape, element, life) in [
            ([1, 4, 2], wide, [0, end]),
            ([1, 4, 2], wide, [6, end]),
            ([1, 1, 3], conditioning, [0, 1]),
            ([1, 1, 4], wide, [1, end]),
            (map, activation, [2, 5]),
            ([1, 2, 2], wide, [3, 5]),
            (map, activation, [4, 5]),
            (map, activation, [5, 6]),
            // Kernels of three columns and of one, in steps of two.
            ([1, 5, 2], ring_of_samples(precision), [2, 2]),
            ([1, 4, 2], ring_of_samples(precision), [4, 4]),
            ([1, 2, 2], ring, [6, 6]),
            ([1, 1, 3], wide, [0, end]),
        ] {
            draft.add(shape, element, life);
        }
        draft.tensors[usize::from(SUM)].offset = draft.tensors[usize::from(SHORTCUT)].offset;
        draft.ops = operations(precision);
        draft.actions = match precision {
            Precision::I8 => {
                let action = FixedAction { multiplier: 1 << 30, ..FixedAction::zeroed() };
                bytemuck::cast_slice(&[action; 2]).to_vec()
            }
            Precision::F16 | Precision::F32 => {
                let action = FloatAction { gain: 1.0, ..FloatAction::zeroed() };
                bytemuck::cast_slice(&[action; 2]).to_vec()
            }
        };
        draft
    }

    pub(crate) fn observe(&mut self) -> &mut Observe {
        let Op::Observe(op) = &mut self.ops[OBSERVE] else { panic!("moved") };
        op
    }

    pub(crate) fn activate(&mut self) -> &mut Activate {
        let Op::Activate(op) = &mut self.ops[ACTIVATE] else { panic!("moved") };
        op
    }
}

fn operations(precision: Precision) -> Vec<Op> {
    let conv = convolution(precision);
    let shrinking = Conv2d { sources: [SAMPLE, NONE], stride: 2, ..conv };
    std::vec![
        Op::Observe(Observe {
            kind: OpKind::Observe.code(),
            source: OBSERVATION,
            output: OBSERVED,
            centers: PARAMETERS,
            gains: PARAMETERS,
            ..Observe::zeroed()
        }),
        Op::Linear(linear(OBSERVED, FILM)),
        Op::Conv2d(Conv2d { kernel: [1, 3], padding: [0, 1], output: MAP, scratch: RINGS, ..shrinking }),
        Op::GroupNorm(group_norm(MAP, NORM, 1)),
        Op::Conv2d(Conv2d { output: SHORTCUT, scratch: RINGS + 1, ..shrinking }),
        Op::Activate(Activate {
            kind: OpKind::Activate.code(),
            film: Film::ScaleShift.code(),
            source: MAP,
            output: SUM,
            residual: SHORTCUT,
            norm: NORM,
            observed: FILM,
            affine_shift: 10,
            multiplier: 1 << 30,
            residual_multiplier: 1 << 30,
            ..Activate::zeroed()
        }),
        Op::Conv2d(Conv2d {
            sources: [SUM, NONE],
            output: PREDICTION,
            scratch: RINGS + 2,
            shuffle: Shuffle::Columns.code(),
            ..conv
        }),
    ]
}
