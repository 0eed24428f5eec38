//! Signed models: Ed25519 (Bernstein et al., 2011; RFC 8032) over the whole file.
//!
//! A signed file is the model file followed by the 64 bytes of its signature. The signature is checked before anything
//! else is read. It covers the model file; a file of streamed weights is tied to it by a CRC-32 for each chunk, which
//! finds damage but not forgery: keep such weights where nobody else can write.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::error::ModelError;
use crate::model::Model;

/// Bytes that a signature adds at the end of a file.
pub const SIGNATURE_BYTES: usize = 64;

/// Why a signed model is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SignedModelError {
    /// The public key is not a point of the curve, or a weak one.
    Key,
    /// The file is shorter than a signature, was changed, or was signed with another key.
    Signature,
    /// The signature is right, the file is not a model.
    Model(ModelError),
}

impl core::fmt::Display for SignedModelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Key => f.write_str("not a usable Ed25519 public key"),
            Self::Signature => f.write_str("the model's signature does not match: changed, or signed with another key"),
            Self::Model(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SignedModelError {}

impl<'a> Model<'a> {
    /// Checks the signature over `bytes`, then the model in them as [`Model::from_bytes`] does.
    ///
    /// # Errors
    /// [`SignedModelError::Signature`] before anything of the model is looked at.
    pub fn from_signed_bytes(bytes: &'a [u8], public_key: &[u8; 32]) -> Result<Self, SignedModelError> {
        let (file, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(SignedModelError::Signature)?;
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| SignedModelError::Key)?;
        if key.is_weak() {
            return Err(SignedModelError::Key);
        }
        let signature = Signature::from_bytes(signature);
        key.verify_strict(file, &signature).map_err(|_| SignedModelError::Signature)?;
        Self::from_bytes(file).map_err(SignedModelError::Model)
    }
}
