//! Log points at session level: `defmt` or nothing.

/// Logs with `defmt` if the feature is on; evaluates nothing otherwise.
macro_rules! debug {
    ($format:literal $(, $argument:expr)*) => {{
        #[cfg(feature = "defmt")]
        defmt::debug!($format $(, $argument)*);
    }};
}

pub(crate) use debug;
