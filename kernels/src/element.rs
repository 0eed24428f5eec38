//! Reading and writing tensors whose element type is known at run time only.

use half::f16;
use waft::arithmetic::Float;
use waft::fixed::{saturate_i8, saturate_i16};
use waft::format::{Element, Tensor};

use crate::memory::{Memory, Space};

/// A tensor's place in the arena, for kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Place {
    /// First byte in the arena.
    pub at: u32,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// Channels.
    pub channels: u32,
    /// [`Element`] as a number.
    pub element: u32,
}

impl Place {
    /// Of a tensor; all zeros, which no kernel reads, if there is none.
    pub(crate) fn of(tensor: Option<Tensor>) -> Self {
        tensor.map_or(bytemuck::Zeroable::zeroed(), |tensor| Self {
            at: tensor.offset,
            rows: tensor.rows.into(),
            columns: tensor.columns.into(),
            channels: tensor.channels.into(),
            element: tensor.element.into(),
        })
    }

    /// Number of elements.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.rows * self.columns * self.channels
    }

    /// Element `index` as an integer, in an arena that starts at `arena`.
    #[inline(always)]
    pub(crate) fn integer<M: Memory>(&self, memory: M, arena: usize, index: u32) -> i32 {
        let (start, index) = (arena + self.at as usize, index as usize);
        if self.element == Element::I8 as u32 {
            memory.load::<i8>(Space::Arenas, start + index).into()
        } else if self.element == Element::I16 as u32 {
            memory.load::<i16>(Space::Arenas, start + 2 * index).into()
        } else {
            memory.load(Space::Arenas, start + 4 * index)
        }
    }

    /// Writes element `index`, saturated.
    #[inline(always)]
    pub(crate) fn set_integer<M: Memory>(&self, memory: M, arena: usize, index: u32, value: i32) {
        let (start, index) = (arena + self.at as usize, index as usize);
        if self.element == Element::I8 as u32 {
            memory.store(Space::Arenas, start + index, saturate_i8(value));
        } else if self.element == Element::I16 as u32 {
            memory.store(Space::Arenas, start + 2 * index, saturate_i16(value));
        } else {
            memory.store(Space::Arenas, start + 4 * index, value);
        }
    }

    /// Element `index` in single precision.
    #[inline(always)]
    pub(crate) fn float<M: Memory>(&self, memory: M, arena: usize, index: u32) -> f32 {
        float(memory, Space::Arenas, arena + self.at as usize, self.element == Element::F16 as u32, index)
    }

    /// Writes element `index`, rounded.
    #[inline(always)]
    pub(crate) fn set_float<M: Memory>(&self, memory: M, arena: usize, index: u32, value: f32) {
        let (start, index) = (arena + self.at as usize, index as usize);
        if self.element == Element::F16 as u32 {
            memory.store(Space::Arenas, start + 2 * index, <f16 as Float>::from_f32(value));
        } else {
            memory.store(Space::Arenas, start + 4 * index, value);
        }
    }
}

/// Value `index` of an array of half or single precision.
#[inline(always)]
pub(crate) fn float<M: Memory>(memory: M, space: Space, start: usize, half: bool, index: u32) -> f32 {
    if half {
        Float::to_f32(memory.load::<f16>(space, start + 2 * index as usize))
    } else {
        memory.load(space, start + 4 * index as usize)
    }
}
