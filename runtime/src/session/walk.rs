//! The way through the operations of one network call.

use super::acceleration::Acceleration;
use crate::error::RunError;
use crate::format::{NONE, Op};
use crate::ops::{self, Context};
use crate::precision::Arithmetic;
use crate::weights::{Loading, WeightSource, Window};

/// Position in the operations of one network call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    pub(super) op: u16,
    pub(super) slice: u32,
    loading: Loading,
}

/// What an advance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Weights have not arrived yet.
    Waits,
    /// Slices were executed: one, or all of an operation.
    Works { slices: u32 },
}

impl Walk {
    /// Before the first slice of an operation.
    pub(super) fn at(op: u16) -> Self {
        Self { op, ..Self::default() }
    }

    /// Executes one slice, or brings its weights nearer.
    pub(super) fn advance<P: Arithmetic, W: WeightSource>(
        &mut self,
        context: &Context<'_>,
        arena: &mut [u8],
        weights: &mut W,
        acceleration: &mut Acceleration<'_>,
    ) -> Result<Advance, RunError> {
        let corrupt = RunError::Corrupt { op: self.op };
        let op: Op = context.model.op(self.op).ok_or(corrupt)?;
        if self.slice == 0 && acceleration.run(context, self.op, &op, arena).is_some() {
            *self = Walk::at(self.op + 1);
            return Ok(Advance::Works { slices: ops::slices(context.model, &op) });
        }
        if W::STREAMS
            && let Op::Conv2d(conv) = &op
            && conv.window != NONE
        {
            let window = Window::bind(context, conv, self.slice).ok_or(corrupt)?;
            if !self.loading.advance(self.op, &window, arena, weights)? {
                return Ok(Advance::Waits);
            }
        }
        ops::run::<P>(context, &op, self.slice, arena).ok_or(corrupt)?;
        self.slice += 1;
        if self.slice >= ops::slices(context.model, &op) {
            *self = Walk::at(self.op + 1);
        }
        Ok(Advance::Works { slices: 1 })
    }
}
