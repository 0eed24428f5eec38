//! A chain of convolutions by hand, from the sample to the prediction, without guidance and history, in one step.

use bytemuck::Zeroable;

use super::{Draft, elements, ring_of_samples};
use crate::format::{Conv2d, Header, NONE, Op, Precision};

/// Tensors by number.
const SAMPLE: u16 = 0;
const PREDICTION: u16 = 1;

/// It, and the shape that the next convolution reads.
pub(crate) struct Chain {
    pub(crate) draft: Draft,
    precision: Precision,
    shape: [u16; 3],
}

impl Chain {
    /// Convolutions `length` of a sample of a shape.
    pub(crate) fn new(precision: Precision, shape: [u16; 3], length: u16) -> Self {
        let header = Header {
            precision: precision.code(),
            unconditional_class: NONE,
            sample: SAMPLE,
            prediction: PREDICTION,
            unconditional: NONE,
            history: [NONE; 2],
            ..Header::zeroed()
        };
        let mut draft = Draft::start(header);
        draft.schedule.steps = 1;
        let wide = elements(precision)[1];
        draft.add(shape, wide, [0, length]);
        draft.add(shape, wide, [length - 1, length]);
        Self { draft, precision, shape }
    }

    /// One more convolution; the last writes the prediction.
    pub(crate) fn push(&mut self, shape: [u16; 3], op: Conv2d) -> &mut Conv2d {
        let at = self.draft.ops.len() as u16;
        let length = self.draft.tensor(SAMPLE).last;
        let [activation, _, _, ring] = elements(self.precision);
        let source = match self.draft.ops.last() {
            Some(op) => op.output(),
            None => SAMPLE,
        };
        let output = match at + 1 == length {
            true => PREDICTION,
            false => self.draft.add(shape, activation, [at, at + 1]),
        };
        let width = op.ring_width(self.shape[1].into(), shape[1].into()) as u16;
        let ring = if source == SAMPLE { ring_of_samples(self.precision) } else { ring };
        let scratch = self.draft.add([op.ring_rows() as u16, width, self.shape[2]], ring, [at; 2]);
        self.shape = shape;
        self.draft.ops.push(Op::Conv2d(Conv2d { sources: [source, NONE], output, scratch, ..op }));
        self.draft.conv(at.into())
    }
}
