//! What Git LFS leaves in the place of a file that was not downloaded.

/// How such a file begins.
const BEGINNING: &[u8] = b"version https://git-lfs";

/// Whether a file with these bytes is one.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGINNING)
}
