//! How long work tells where it is. A command line draws it, a program logs it or, with `&()`, ignores it.

/// What long work tells. All methods may be called from several threads.
pub trait Progress: Sync {
    /// A stage begins, `total` units of work long.
    fn begin(&self, stage: &'static str, total: u64);

    /// Units of the current stage are done.
    fn advance(&self, units: u64);

    /// The current stage is over.
    fn end(&self);
}

/// Ignores it.
impl Progress for () {
    fn begin(&self, _stage: &'static str, _total: u64) {}

    fn advance(&self, _units: u64) {}

    fn end(&self) {}
}
