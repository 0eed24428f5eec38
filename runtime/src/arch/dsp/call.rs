//! What the loops of a convolution in assembly read.

use crate::arch::patches::Group;

/// The places and numbers of a call, which the loops change as they go.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Call {
    pub(super) patches: *const Group,
    pub(super) end: *const Group,
    pub(super) requant: *const [i32; 2],
    pub(super) output: *mut u8,
    pub(super) bias: *const i32,
    pub(super) bias_end: *const i32,
    pub(super) constant: i32,
    /// −1 and the fractional bits of the residual, less the shift, are the shift to the right.
    pub(super) base: i32,
    /// What a shift to the right is not above.
    pub(super) most: u32,
    /// Bytes from the first pixel's element to the others'.
    pub(super) offsets: [usize; 3],
    /// Weights from the end of a channel's to the next one's.
    pub(super) behind: usize,
    pub(super) residual: *const u8,
    pub(super) kept: [i32; 5],
    pub(super) weights: *const i8,
    /// Weights from one row to the next.
    pub(super) stride: usize,
    /// 1: elements of 16 bits, 2: a residual, 4: weights are aligned to words, 8: sums of each channel instead of patches.
    pub(super) mode: usize,
    /// Places in the code that the function notes: where a channel begins, its pairs of groups, and its results.
    pub(super) entry: usize,
    pub(super) pairs: usize,
    pub(super) finish: usize,
}

impl Call {
    /// Moves on by some channels and computes as many as a loop can of `count`; how many.
    ///
    /// # Safety
    /// Pointers lead to what the loop reads and writes for as many channels.
    #[inline(never)]
    pub(super) unsafe fn part(
        &mut self,
        by: isize,
        count: usize,
        bytes: usize,
        multiply: unsafe extern "C" fn(Self) -> *const i32,
    ) -> usize {
        self.requant = self.requant.wrapping_offset(by);
        self.output = self.output.wrapping_offset(by * bytes as isize);
        self.residual = self.residual.wrapping_offset(by * bytes as isize);
        self.weights = self.weights.wrapping_offset(by * self.stride as isize);
        self.bias = self.bias.wrapping_offset(by);
        self.bias_end = self.bias.wrapping_add(count);
        // SAFETY: as of the loop.
        (unsafe { multiply(*self) }.addr() - self.bias.addr()) / size_of::<i32>()
    }
}

/// Where a field of [`Call`] is from the stack pointer on, behind the registers that are saved.
macro_rules! field {
    ($field:ident) => {
        36 + core::mem::offset_of!($crate::arch::dsp::call::Call, $field)
    };
}
pub(super) use field;
