//! Where a run's noise comes from: the documented seeds, or a function of the caller's.

use core::ffi::c_void;

use waft_core::Noise;
use waft_core::noise::{Between, Seed};

/// A caller's noise: stores the standard Gaussian number `index` of draw `draw`, in 20 fractional bits, and answers true;
/// or answers false if there are no more. Draw 0 is the initial sample, draw k + 1 the noise of step k, draw 2^32 - 1 - k that
/// of the k-th way back; elements count in (row, column, channel) order.
pub type WaftNoise = Option<unsafe extern "C" fn(user: *mut c_void, draw: u32, index: u32, value: *mut i32) -> bool>;

/// Where a run's noise comes from.
pub(crate) enum Source {
    Seed(Seed),
    Between(Between),
    Caller(unsafe extern "C" fn(*mut c_void, u32, u32, *mut i32) -> bool, *mut c_void),
}

impl Noise for Source {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        match self {
            Source::Seed(seed) => seed.sample(draw, index),
            Source::Between(between) => between.sample(draw, index),
            Source::Caller(function, user) => {
                let mut value = 0;
                // SAFETY: the caller of `waft_begin` promised a function that can be called with these.
                unsafe { function(*user, draw, index, &raw mut value) }.then_some(value)
            }
        }
    }
}
