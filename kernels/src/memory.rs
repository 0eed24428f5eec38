//! The four memories that kernels see, on a GPU or on the host.

use core::cell::Cell;

use bytemuck::Pod;

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The model file, repacked weights and kernel parameters: never written.
    Constants,
    /// One arena for each picture, as the plan lays it out.
    Arenas,
    /// What one operation's kernels hand to the next, for each picture.
    Scratch,
    /// A [`State`](crate::State), the pictures' classes, and their bytes at the end.
    State,
}

/// Access to the four memories. Addresses are bytes from the start of a memory and multiples of the value's alignment.
pub trait Memory: Copy {
    /// The value at an address.
    fn load<T: Pod>(self, space: Space, at: usize) -> T;

    /// Replaces the value at an address. Of one launch, no two threads may store to the same byte, and none may load what
    /// another stores.
    fn store<T: Pod>(self, space: Space, at: usize, value: T);
}

/// The host's own memory: every access is checked, and panics outside.
#[derive(Clone, Copy, Debug)]
pub struct HostMemory<'a> {
    constants: &'a [u8],
    arenas: &'a [Cell<u8>],
    scratch: &'a [Cell<u8>],
    state: &'a [Cell<u8>],
}

impl<'a> HostMemory<'a> {
    /// The memories of one launch.
    pub fn new(constants: &'a [u8], arenas: &'a mut [u8], scratch: &'a mut [u8], state: &'a mut [u8]) -> Self {
        let [arenas, scratch, state] = [arenas, scratch, state].map(|bytes| Cell::from_mut(bytes).as_slice_of_cells());
        Self { constants, arenas, scratch, state }
    }

    fn cells(self, space: Space) -> &'a [Cell<u8>] {
        match space {
            Space::Constants => panic!("constants are not written"),
            Space::Arenas => self.arenas,
            Space::Scratch => self.scratch,
            Space::State => self.state,
        }
    }
}

impl Memory for HostMemory<'_> {
    fn load<T: Pod>(self, space: Space, at: usize) -> T {
        assert!(at.is_multiple_of(align_of::<T>()), "{at} in {space:?} is misaligned");
        if space == Space::Constants {
            return bytemuck::pod_read_unaligned(&self.constants[at..at + size_of::<T>()]);
        }
        let mut value = T::zeroed();
        for (byte, cell) in
            bytemuck::bytes_of_mut(&mut value).iter_mut().zip(&self.cells(space)[at..at + size_of::<T>()])
        {
            *byte = cell.get();
        }
        value
    }

    fn store<T: Pod>(self, space: Space, at: usize, value: T) {
        assert!(at.is_multiple_of(align_of::<T>()), "{at} in {space:?} is misaligned");
        let cells = &self.cells(space)[at..at + size_of::<T>()];
        for (&byte, cell) in bytemuck::bytes_of(&value).iter().zip(cells) {
            cell.set(byte);
        }
    }
}
