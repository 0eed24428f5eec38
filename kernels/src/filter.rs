//! Resampling along rows: a thread one element of the result.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::filter::{added, added_float, filtered, filtered_float, reflected, taps};
use waft::format::{Filter, Op, Precision};

use crate::element::Place;
use crate::memory::Memory;
use crate::{Strides, Threads};

/// In any precision.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FilterKernel {
    strides: Strides,
    op: Filter,
    source: Place,
    output: Place,
    /// Whether it is in the `i8` precision.
    integer: u32,
}

impl FilterKernel {
    /// Of operation `index` of a model; `None` if it does not resample.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Filter(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            output: Place::of(Some(model.tensor(op.output)?)),
            integer: u32::from(model.precision() == Precision::I8),
        })
    }
}

impl Threads for FilterKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let (arena, source, op) = (self.strides.arena(picture), &self.source, &self.op);
        let (pixel, channel) = (element / source.channels, element % source.channels);
        let (row, column) = (pixel / self.output.columns, pixel % self.output.columns);
        let at = |column: i32| {
            let column = reflected(column, source.columns as i32) as u32;
            (row * source.columns + column) * source.channels + channel
        };
        let taps = taps(op.resampling(), column as i32);
        if self.integer != 0 {
            let sum =
                taps.fold(0, |sum, (weight, column)| added(op, sum, weight, source.integer(memory, arena, at(column))));
            self.output.set_integer(memory, arena, element, filtered(op, sum));
        } else {
            let sum = taps
                .fold(0.0, |sum, (weight, column)| added_float(sum, weight, source.float(memory, arena, at(column))));
            self.output.set_float(memory, arena, element, filtered_float(op, sum));
        }
    }
}
