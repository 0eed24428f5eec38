//! An input as a model file with its streamed weights behind it.

use std::mem::offset_of;

use waft::Model;
use waft::format::{Header, Op, chunk_checksum};

/// The model file in aligned memory, as a session wants it, with mended length and checksums; nearly nothing would validate
/// otherwise.
pub struct File {
    words: Vec<u128>,
    len: usize,
}

impl File {
    /// The model at the beginning of an input, and the weights that follow it.
    pub fn split(data: &[u8]) -> (Self, &[u8]) {
        let named = Header::read(data, 0).file_bytes as usize;
        let inside = (size_of::<Header>()..=data.len()).contains(&named);
        let (model, weights) = data.split_at(if inside { named } else { data.len() });
        let mut file = Self { words: vec![0; model.len().div_ceil(16)], len: model.len() };
        file.bytes_mut().copy_from_slice(model);
        file.seal();
        if !weights.is_empty() {
            file.mend_chunks(weights);
        }
        (file, weights)
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Writes its length and its checksum.
    fn seal(&mut self) {
        let len = (self.len as u32).to_le_bytes();
        let bytes = self.bytes_mut();
        if let Some(field) = bytes.get_mut(offset_of!(Header, file_bytes)..).and_then(|tail| tail.first_chunk_mut()) {
            *field = len;
        }
        waft::format::seal(bytes);
    }

    /// Writes the checksums of the chunks of streamed weights, where the file is valid otherwise.
    fn mend_chunks(&mut self, weights: &[u8]) {
        let Ok(model) = Model::from_bytes(self.bytes()) else { return };
        let mut mended = vec![];
        for op in (0..model.ops()).filter_map(|index| model.op(index)) {
            let Op::Conv2d(op) = op else { continue };
            let channels = |id| model.tensor(id).map_or(1, |tensor| u64::from(tensor.channels));
            let Some(chunks) = op.chunks(channels(op.output), channels(op.scratch)) else { continue };
            for chunk in 0..chunks.count.min(64) {
                let size = if chunk + 1 == chunks.count { chunks.last_bytes } else { chunks.bytes };
                let start = u64::from(op.weights) + chunk * chunks.bytes;
                if let Some(bytes) = weights.get(start as usize..(start + size) as usize) {
                    mended.push((op.checks as usize + 4 * chunk as usize, chunk_checksum(bytes)));
                }
            }
        }
        if mended.is_empty() {
            return;
        }
        for (at, sum) in mended {
            self.bytes_mut()[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        self.seal();
    }
}
