//! Weights that a function of the caller reads, if the library was built for that.

use core::ffi::c_void;

/// Reads streamed weights: copies at most `len` bytes, from `offset` of the weights' file on, to `into` and answers how many;
/// fewer or none if they have not arrived yet, in which case the next `waft_step` asks for the rest; or a negative number if
/// they cannot be read. Offsets ascend from 0 in each network call.
pub type WaftRead = Option<unsafe extern "C" fn(user: *mut c_void, offset: u32, into: *mut u8, len: usize) -> i32>;

/// Where a context's weights come from.
#[cfg(feature = "stream")]
pub(crate) struct Weights {
    read: WaftRead,
    user: *mut c_void,
}

#[cfg(feature = "stream")]
impl Weights {
    /// None yet.
    pub(crate) const NONE: Self = Self { read: None, user: core::ptr::null_mut() };

    /// Whether there is a function to ask.
    pub(crate) const fn are_missing(&self) -> bool {
        self.read.is_none()
    }

    /// Takes a function; whether the library was built for it.
    pub(crate) const fn set(&mut self, read: WaftRead, user: *mut c_void) -> bool {
        (self.read, self.user) = (read, user);
        true
    }
}

#[cfg(feature = "stream")]
impl waft_core::WeightSource for Weights {
    type Error = ();

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
        let function = self.read.ok_or(())?;
        // SAFETY: the caller of `waft_set_weights` promised a function that can be called with these.
        let read = unsafe { function(self.user, offset, into.as_mut_ptr(), into.len()) };
        usize::try_from(read).ok().filter(|&read| read <= into.len()).ok_or(())
    }
}

/// The model file carries them.
#[cfg(not(feature = "stream"))]
pub(crate) struct Weights;

#[cfg(not(feature = "stream"))]
impl Weights {
    pub(crate) const NONE: Self = Self;

    pub(crate) const fn are_missing(&self) -> bool {
        false
    }

    pub(crate) const fn set(&mut self, _: WaftRead, _: *mut c_void) -> bool {
        false
    }
}

#[cfg(not(feature = "stream"))]
impl waft_core::WeightSource for Weights {
    type Error = ();

    fn read(&mut self, _: u32, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }

    const STREAMS: bool = false;
}
