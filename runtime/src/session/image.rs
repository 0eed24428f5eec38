//! The finished picture.

/// A picture: bytes in (row, column, channel) order, 0 for −1, 255 for 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    pub(super) shape: [usize; 3],
    pub(super) data: &'a [u8],
}

impl<'a> Image<'a> {
    /// Rows.
    pub const fn height(&self) -> usize {
        self.shape[0]
    }

    /// Columns.
    pub const fn width(&self) -> usize {
        self.shape[1]
    }

    /// Channels of a pixel.
    pub const fn channels(&self) -> usize {
        self.shape[2]
    }

    /// The bytes, row by row.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}
