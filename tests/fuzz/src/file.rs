//! An input as a model file with its streamed weights behind it.

use std::mem::offset_of;

use waft::format::{Header, Op};
use waft::{Model, ModelError};

/// Where the file's length and its checksum stand.
const LENGTH: usize = offset_of!(Header, file_bytes);
const CHECKSUM: usize = offset_of!(Header, checksum);

/// A model file in aligned memory, as a session wants it; kept from one input to the next.
#[derive(Default)]
pub struct File {
    words: Vec<u128>,
    len: usize,
}

impl File {
    /// The model at the beginning of an input, with mended length and checksums; nearly nothing would validate otherwise. And the
    /// streamed weights that follow it.
    ///
    /// # Errors
    /// What validation says.
    pub fn read<'a>(&'a mut self, data: &'a [u8]) -> Result<(Model<'a>, &'a [u8]), ModelError> {
        let named = Header::read(data, 0).file_bytes as usize;
        let inside = (size_of::<Header>()..=data.len()).contains(&named);
        let (model, weights) = data.split_at(if inside { named } else { data.len() });
        self.len = model.len();
        self.words.resize(model.len().div_ceil(16).max(self.words.len()), 0);
        self.bytes_mut().copy_from_slice(model);
        self.seal();
        if Header::read(self.bytes(), 0).weights_bytes != 0 {
            let sums = chunks(&Model::from_bytes(self.bytes())?, weights);
            for (at, sum) in sums {
                self.bytes_mut()[at..at + 4].copy_from_slice(&sum.to_le_bytes());
            }
            // They may lie where something else does.
            self.seal();
        }
        Ok((Model::from_bytes(self.bytes())?, weights))
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Writes its length and its checksum.
    fn seal(&mut self) {
        let len = (self.len as u32).to_le_bytes();
        let bytes = self.bytes_mut();
        if bytes.len() < size_of::<Header>() {
            return;
        }
        bytes[LENGTH..LENGTH + 4].copy_from_slice(&len);
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[..CHECKSUM]);
        sum.update(&bytes[CHECKSUM + 4..]);
        bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.finalize().to_le_bytes());
    }
}

/// Where the checksums of the chunks of streamed weights stand, and what they are.
fn chunks(model: &Model<'_>, weights: &[u8]) -> Vec<(usize, u32)> {
    let mut sums = vec![];
    if model.header().weights_bytes == 0 {
        return sums;
    }
    for op in (0..model.ops()).filter_map(|index| model.op(index)) {
        let Op::Conv2d(op) = op else { continue };
        let [outputs, inputs] = [op.output, op.scratch].map(|id| model.tensor(id));
        let (Some(outputs), Some(inputs)) = (outputs, inputs) else { continue };
        let outputs = op.computed(outputs).channels;
        let Some(chunks) = op.chunks(outputs.into(), inputs.channels.into()) else { continue };
        for chunk in 0..chunks.count.min(64) {
            let size = if chunk + 1 == chunks.count { chunks.last_bytes } else { chunks.bytes };
            let start = u64::from(op.weights) + chunk * chunks.bytes;
            if let Some(bytes) = weights.get(start as usize..(start + size) as usize) {
                sums.push((op.checks as usize + 4 * chunk as usize, crc32fast::hash(bytes)));
            }
        }
    }
    sums
}
