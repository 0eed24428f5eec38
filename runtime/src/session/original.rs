//! A picture that a run starts from, or keeps in parts.

use super::{Request, path};
use crate::error::RequestError;
use crate::format::{NONE, Schedule};
use crate::model::Model;

/// A picture that exists, for image-to-image (Meng et al., 2022, SDEdit, arXiv:2108.01073) and inpainting.
///
/// A run from it adds the noise of the request's seed, draw 0, up to the level of the request's
/// [first step](Request::start), and takes the steps from there; with a mask and from the first step of the list on it starts
/// from noise alone. With a mask, after each step the elements that are to be
/// kept become those of this picture again, with the same noise at the level that the step led to; at the end they are the
/// picture's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original<'i> {
    pub(super) image: &'i [u8],
    pub(super) mask: Option<&'i [u8]>,
    pub(super) resampling: Option<[u32; 2]>,
}

impl<'i> Original<'i> {
    /// Bytes in (row, column, channel) order, 0 for −1, 255 for 1.
    pub const fn new(image: &'i [u8]) -> Self {
        Self { image, mask: None, resampling: None }
    }

    /// Draws only where the mask is 128 or more and keeps the rest: a byte a pixel, row by row.
    #[must_use]
    pub const fn mask(self, mask: &'i [u8]) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Takes each part of `jump` steps `times` times, so that what is drawn comes to fit what a mask keeps: after the part, noise
    /// leads back to where it began (Lugmayr et al., 2022, RePaint, arXiv:2201.09865, algorithm 1). diffusers'
    /// `RePaintPipeline` has 10 and 10. The noise of the k-th way back, k from 0, is draw 2³² − 1 − k; the draws of steps count
    /// network calls then. It needs a mask and a sampler that does not look back on earlier steps.
    #[must_use]
    pub const fn resample(self, jump: u32, times: u32) -> Self {
        Self { resampling: Some([jump, times]), ..self }
    }

    /// Whether a model can start from it as the request says.
    pub(super) fn check(&self, model: &Model<'_>, request: &Request, schedule: &Schedule) -> Result<(), RequestError> {
        if !cfg!(feature = "original") {
            return Err(RequestError::OriginalDisabled);
        }
        if schedule.levels == 0 {
            return Err(RequestError::OriginalUnavailable);
        }
        let [rows, columns, channels] = model.image_shape();
        let found = [self.image.len(), self.mask.map_or(rows * columns, <[u8]>::len)];
        let expected = [rows * columns * channels, rows * columns];
        if found != expected {
            return Err(RequestError::OriginalSize { found, expected });
        }
        if let Some(resampling) = self.resampling
            && !(self.mask.is_some() && path::is_valid(resampling) && model.header().history[0] == NONE)
        {
            return Err(RequestError::ResampleUnavailable);
        }
        request.check_start(model, schedule)
    }

    /// The byte of an element; `None` outside of the picture.
    pub(super) fn byte(&self, index: usize) -> Option<u8> {
        self.image.get(index).copied()
    }

    /// Whether an element is kept.
    pub(super) fn keeps(&self, index: usize, channels: usize) -> bool {
        let pixel = index.checked_div(channels).unwrap_or(0);
        self.mask.and_then(|mask| mask.get(pixel)).is_some_and(|&mask| mask < 128)
    }
}
