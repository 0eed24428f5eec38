//! Self-attention over pixels (Vaswani et al., 2017, equation 1), one query at a time: scores of one row live in the
//! scratch, the context is written over the query. Slice `s` is query `s`, all heads.

use crate::format::Attention;
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Attention) -> Option<u32> {
    let query = model.tensor(op.query)?;
    Some(u32::from(query.rows) * u32::from(query.columns))
}
