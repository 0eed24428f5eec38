//! Tensors of the plan.

use super::record::{coded_fields, codes, record};

codes! {
    /// Type of a tensor's elements.
    pub enum Element {
        /// 8-bit integer with a zero point.
        I8 = 0,
        /// 16-bit integer, symmetric.
        I16 = 1,
        /// 32-bit integer.
        I32 = 2,
        /// IEEE 754 half precision.
        F16 = 3,
        /// IEEE 754 single precision.
        F32 = 4,
    }
}

impl Element {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Element::I8 => 1,
            Element::I16 | Element::F16 => 2,
            Element::I32 | Element::F32 => 4,
        }
    }

    /// `==` in a `const fn`.
    pub(crate) const fn is(self, other: Self) -> bool {
        self as u8 == other as u8
    }
}

record! {
    /// A tensor's place, shape and lifetime; elements are dense in (row, column, channel) order.
    pub struct Tensor {
        /// first byte in the arena, a multiple of 16
        pub offset: u32,
        /// bytes
        pub bytes: u32,
        /// rows
        pub rows: u16,
        /// columns
        pub columns: u16,
        /// channels, the innermost dimension
        pub channels: u16,
        /// [`Element`]
        pub element: u8,
        /// zeros
        pub reserved: u8,
        /// first operation during which it holds data, the one that writes it
        pub first: u16,
        /// last operation during which it holds data; the number of operations stands for the sampler
        pub last: u16,
        /// real value of one unit, for reports: the device does not read it
        pub scale: f32,
        /// integer that means zero, for reports
        pub zero_point: i32,
        /// zeros
        pub reserved_end: [u8; 4],
    }
}

coded_fields! {
    Tensor {
        /// Type of its elements.
        element: Element or I8,
    }
}

impl Tensor {
    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.rows as usize * self.columns as usize * self.channels as usize
    }

    /// Whether it has no elements; never true in a valid model.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the arena.
    pub const fn range(&self) -> core::ops::Range<usize> {
        let start = self.offset as usize;
        start..start + self.bytes as usize
    }

    pub(crate) const fn row_bytes(&self) -> u64 {
        self.columns as u64 * self.channels as u64 * self.element().bytes() as u64
    }

    pub(crate) const fn has_shape_of(&self, other: &Self) -> bool {
        self.rows == other.rows && self.columns == other.columns && self.channels == other.channels
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn tensors_have_as_many_elements_as_their_dimensions_say() {
        let of = |[rows, columns, channels]: [u16; 3]| Tensor { rows, columns, channels, ..Tensor::zeroed() };
        assert_eq!([of([2, 3, 5]).len(), of([1, 1, 1]).len(), of([7, 1, 65_535]).len()], [30, 1, 458_745]);
        assert!(!of([1, 1, 1]).is_empty() && !of([2, 3, 5]).is_empty());
        assert!([[0, 3, 5], [2, 0, 5], [2, 3, 0]].iter().all(|&shape| of(shape).is_empty()));
    }
}
