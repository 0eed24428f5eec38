//! An observation or another vector, normalized and activated: what projections read. One slice.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use bytemuck::Pod;

use super::{Context, view, view_mut};
use crate::format::Observe;

/// What is read and written: an observation of type `X`, gains of type `G`, results of type `Y`.
struct Bound<'a, X, G, Y> {
    source: &'a [X],
    centers: &'a [X],
    gains: &'a [G],
    output: &'a mut [Y],
}

impl<'a, X: Pod, G: Pod, Y: Pod> Bound<'a, X, G, Y> {
    fn bind(context: &Context<'a>, op: &Observe, arena: &'a mut [u8]) -> Option<Self> {
        let (source, output) = (context.tensor(op.source)?, context.tensor(op.output)?);
        let [source_bytes, output_bytes] = arena.get_disjoint_mut([source.range(), output.range()]).ok()?;
        Some(Self {
            source: view(source_bytes)?,
            centers: context.data(op.centers, source.len())?,
            gains: context.data(op.gains, source.len())?,
            output: view_mut(output_bytes)?,
        })
    }

    /// Each result with its value, center and gain.
    fn elements(self) -> impl Iterator<Item = (&'a mut Y, X, X, G)> {
        let values = self.source.iter().zip(self.centers).zip(self.gains);
        self.output.iter_mut().zip(values).map(|(output, ((&x, &center), &gain))| (output, x, center, gain))
    }
}
