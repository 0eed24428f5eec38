//! Blocks of memory that stay where they are.

/// Zeroed bytes at a multiple of 16.
pub(crate) struct Block {
    words: *mut [u128],
    len: usize,
}

impl Block {
    pub(crate) fn new(len: usize) -> Self {
        Self { words: Box::into_raw(vec![0u128; len.div_ceil(16)].into_boxed_slice()), len }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.cast()
    }

    /// The bytes.
    ///
    /// # Safety
    /// The block outlives them, and nobody writes to it meanwhile.
    pub(crate) unsafe fn as_static(&self) -> &'static [u8] {
        // SAFETY: the words hold that many bytes; the caller's promise.
        unsafe { std::slice::from_raw_parts(self.words.cast(), self.len) }
    }

    /// The bytes, to write.
    ///
    /// # Safety
    /// The block outlives them, and nothing else uses it meanwhile.
    pub(crate) unsafe fn as_static_mut(&mut self) -> &'static mut [u8] {
        // SAFETY: the words hold that many bytes; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.words.cast(), self.len) }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`, given back once.
        drop(unsafe { Box::from_raw(self.words) });
    }
}
