//! What attention and linear attention look at: learned keys and values, then those of the pixels.

use bytemuck::{Pod, Zeroable};
use waft::format::Element;

use crate::element::{Place, float};
use crate::memory::{Memory, Space};

/// Keys and values.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Keys {
    /// Those of the pixels: of each its key, then its value.
    pub(crate) pixels: Place,
    /// The number of those that are learned, and their place in the constants.
    pub(crate) learned: u32,
    pub(crate) learned_at: u32,
}

impl Keys {
    /// Learned ones and pixels; `None` beyond `u32`.
    pub(crate) fn checked_len(&self) -> Option<u32> {
        self.pixels.rows.checked_mul(self.pixels.columns)?.checked_add(self.learned)
    }

    /// The same.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.learned + self.pixels.rows * self.pixels.columns
    }

    /// A channel of a key, or of its value if `channel` is beyond the query's.
    #[inline(always)]
    pub(crate) fn integer<M: Memory>(&self, memory: M, arena: usize, key: u32, channel: u32) -> i32 {
        if key < self.learned {
            let at = self.learned_at + key * self.pixels.channels + channel;
            return memory.load::<i8>(Space::Constants, at as usize).into();
        }
        self.pixels.integer(memory, arena, (key - self.learned) * self.pixels.channels + channel)
    }

    /// The same in single precision.
    #[inline(always)]
    pub(crate) fn float<M: Memory>(&self, memory: M, arena: usize, key: u32, channel: u32) -> f32 {
        if key < self.learned {
            let half = self.pixels.element == Element::F16 as u32;
            return float(
                memory,
                Space::Constants,
                self.learned_at as usize,
                half,
                key * self.pixels.channels + channel,
            );
        }
        self.pixels.float(memory, arena, (key - self.learned) * self.pixels.channels + channel)
    }
}
