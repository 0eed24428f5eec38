//! One network call, for samplers of the caller's own.

use super::walk::Walk;
use super::{Samples, Session};
use crate::error::RunError;
use crate::format::Schedule;
use crate::ops::Context;
use crate::precision::with_precision;
use crate::weights::{Resident, WeightSource};

/// One network call in progress. Dropping it abandons the call.
#[derive(Debug)]
pub struct Prediction<'s, 'a, W = Resident> {
    pub(super) session: &'s mut Session<'a, W>,
    pub(super) walk: Walk,
    pub(super) schedule: Schedule,
    pub(super) step: u32,
    pub(super) class: u16,
}

impl<W: WeightSource> Prediction<'_, '_, W> {
    /// Does a bounded slice of work; `false` when there was none left.
    ///
    /// # Errors
    /// [`RunError::Corrupt`] if the model's bytes changed.
    pub fn step(&mut self) -> Result<bool, RunError> {
        if self.walk.op >= self.session.model.ops() {
            return Ok(false);
        }
        let context =
            Context { model: self.session.model, schedule: self.schedule, step: self.step, class: self.class };
        with_precision!(
            context.model.precision(),
            P => {
                let Session { arena, weights, acceleration, .. } = &mut *self.session;
                self.walk.advance::<P, W>(&context, arena, weights, acceleration).map(|_| true)
            },
            else Err(RunError::Corrupt { op: self.walk.op })
        )
    }

    /// The operation that the next [`step`](Self::step) starts, if it starts one.
    #[doc(hidden)]
    pub fn starts(&self) -> Option<u16> {
        (self.walk.slice == 0 && self.walk.op < self.session.model.ops()).then_some(self.walk.op)
    }

    /// A tensor's bytes as the plan stands now, for calibration and parity tests.
    #[doc(hidden)]
    pub fn tensor_bytes(&self, id: u16) -> Option<&[u8]> {
        self.session.tensor_bytes(id)
    }

    /// The model output, once the call is complete: epsilon, v or the clean sample, whatever the network was trained to
    /// predict, values in (row, column, channel) order and in the unit of [`Samples`].
    pub fn output(&self) -> Option<Samples<'_>> {
        if self.walk.op < self.session.model.ops() {
            return None;
        }
        self.session.samples(self.session.model.header().prediction)
    }
}
