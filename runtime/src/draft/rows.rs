//! A small network of one row by hand whose maps are halved and doubled by filters.

extern crate std;

use bytemuck::Zeroable;

use super::{Draft, convolution, elements, header, ring_of_samples};
use crate::format::{Conv2d, Filter, NONE, Op, OpKind, Precision, Resampling};

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const INPUT: u16 = 2;
pub(crate) const HALF: u16 = 3;
pub(crate) const DOUBLE: u16 = 4;
/// The rings of operations 0 and 3.
const RINGS: u16 = 5;

/// Operations by number.
pub(crate) const HALVE: usize = 1;
pub(crate) const DOUBLE_OP: usize = 2;

impl Draft {
    pub(crate) fn rows(precision: Precision) -> Self {
        let [activation, wide, _, ring] = elements(precision);
        let mut draft = Self::start(header(precision, [SAMPLE, PREDICTION]));
        for (shape, element, life) in [
            ([1, 8, 1], wide, [0, 4]),
            ([1, 8, 1], wide, [3, 4]),
            ([1, 8, 4], activation, [0, 1]),
            ([1, 4, 4], activation, [1, 2]),
            ([1, 8, 4], activation, [2, 3]),
            ([1, 8, 1], ring_of_samples(precision), [0, 0]),
            ([1, 8, 4], ring, [3, 3]),
        ] {
            draft.add(shape, element, life);
        }
        let conv = |source: u16, output: u16, ring: u16| {
            let (sources, scratch) = ([source, NONE], RINGS + ring);
            Op::Conv2d(Conv2d { sources, output, scratch, ..convolution(precision) })
        };
        let filter = |resampling: Resampling, source: u16, output: u16| {
            let (kind, resampling) = (OpKind::Filter.code(), resampling.code());
            // From 256 times a halved value, or 128 times a doubled one.
            let shift = if resampling == Resampling::Halve.code() { -7 } else { -6 };
            Op::Filter(Filter { kind, resampling, source, output, multiplier: 1 << 30, shift, ..Filter::zeroed() })
        };
        draft.ops = std::vec![
            conv(SAMPLE, INPUT, 0),
            filter(Resampling::Halve, INPUT, HALF),
            filter(Resampling::Double, HALF, DOUBLE),
            conv(DOUBLE, PREDICTION, 1),
        ];
        draft
    }

    pub(crate) fn filter(&mut self, op: usize) -> &mut Filter {
        let Op::Filter(op) = &mut self.ops[op] else { panic!("moved") };
        op
    }
}
