//! A session's accelerator, which only hosts have.

use core::marker::PhantomData;

#[cfg(feature = "std")]
use crate::accelerator::Accelerator;
use crate::format::Op;
#[cfg(feature = "std")]
use crate::model::Model;
use crate::ops::Context;

/// An accelerator, if there is one; nothing at all without the feature `std`.
#[derive(Debug, Default)]
pub(super) struct Acceleration<'a> {
    #[cfg(feature = "std")]
    accelerator: Option<&'a mut Accelerator>,
    lifetime: PhantomData<&'a mut ()>,
}

impl<'a> Acceleration<'a> {
    /// `accelerator`, if it is for `model`.
    #[cfg(feature = "std")]
    pub(super) fn new(model: &Model<'_>, accelerator: &'a mut Accelerator) -> Self {
        Self { accelerator: accelerator.is_for(model).then_some(accelerator), lifetime: PhantomData }
    }

    /// The same for as long as a run borrows it.
    pub(super) fn lend(&mut self) -> Acceleration<'_> {
        Acceleration {
            #[cfg(feature = "std")]
            accelerator: self.accelerator.as_deref_mut(),
            lifetime: PhantomData,
        }
    }

    /// Executes an operation as a whole; `None` if it has to be executed in slices.
    #[inline(always)]
    pub(super) fn run(&mut self, context: &Context<'_>, index: u16, op: &Op, arena: &mut [u8]) -> Option<()> {
        #[cfg(feature = "std")]
        return self.accelerator.as_mut()?.run(context, index, op, arena);
        #[cfg(not(feature = "std"))]
        {
            let _ = (context, index, op, arena);
            None
        }
    }
}
