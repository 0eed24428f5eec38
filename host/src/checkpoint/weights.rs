//! The tensors of a checkpoint, whatever kind of file holds them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::edm::Snapshot;
use super::entry::Entry;
use super::pickle::{Pickle, Storage, Tensor, persistent};
use super::torch::{self, TorchError};
use super::{CheckpointError, NamedTensor, Note};
use crate::pointer::is_pointer;

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// All tensors.
#[derive(Debug, Default)]
pub(super) struct Weights {
    files: Vec<Bytes>,
    index: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
    /// What a pickled network says beside its tensors.
    snapshot: Option<Snapshot>,
}

/// Names of wrappers: data parallelism, `torch.compile`, and the members that training scripts keep a network or its average in.
const WRAPPERS: [&str; 9] =
    ["module.", "_orig_mod.", "_forward_module.", "model.", "unet.", "net.", "network.", "ema.", "ema_model."];
/// `torch.compile` of a part leaves this inside of a key.
const COMPILED: &str = "._orig_mod.";

impl Weights {
    /// Maps files and reads what they hold.
    pub(super) fn open(paths: &[PathBuf], notes: &mut Vec<Note>) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        for path in paths {
            let io = |error| CheckpointError::Io { path: path.clone(), error };
            let file = File::open(path).map_err(io)?;
            // SAFETY: as with every memory-mapped file, it must not change while it is open; every access is bounded by
            // the map's length, so a change could at worst give other weights or end the process.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            weights.add(Bytes::Mapped(map), path, notes)?;
        }
        weights.unwrap(notes)
    }

    /// Reads what a file's bytes hold.
    pub(super) fn from_bytes(bytes: Vec<u8>, notes: &mut Vec<Note>) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        weights.add(Bytes::Owned(bytes), Path::new("weights"), notes)?;
        weights.unwrap(notes)
    }

    /// Keeps tensors as they are.
    pub(super) fn from_tensors(tensors: &[NamedTensor]) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        let mut bytes = vec![];
        for NamedTensor { key, shape, values } in tensors {
            let (start, shape) = (bytes.len(), shape.clone());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let entry = Entry { file: 0, dtype: Dtype::F32, shape, start, strides: None };
            if weights.index.insert(key.clone(), entry).is_some() {
                return Err(CheckpointError::Duplicate { key: key.clone() });
            }
        }
        weights.files.push(Bytes::Owned(bytes));
        Ok(weights)
    }

    fn add(&mut self, bytes: Bytes, path: &Path, notes: &mut Vec<Note>) -> Result<(), CheckpointError> {
        let file = self.files.len();
        for (key, entry) in parse(&bytes, path, notes, &mut self.snapshot)? {
            if self.index.insert(key.clone(), Entry { file, ..entry }).is_some() {
                return Err(CheckpointError::Duplicate { key });
            }
        }
        self.files.push(bytes);
        Ok(())
    }

    /// Takes the names of wrappers off the keys.
    fn unwrap(mut self, notes: &mut Vec<Note>) -> Result<Self, CheckpointError> {
        let mut taken = String::new();
        while let Some(wrapper) = self.wrapper() {
            taken += wrapper;
            let stripped = |(key, entry): (String, Entry)| (key[wrapper.len()..].to_string(), entry);
            self.index = std::mem::take(&mut self.index).into_iter().map(stripped).collect();
        }
        if !taken.is_empty() {
            notes.push(Note::Wrapper { prefix: taken });
        }
        if self.index.keys().any(|key| key.contains(COMPILED)) {
            notes.push(Note::Wrapper { prefix: COMPILED.into() });
            for (key, entry) in std::mem::take(&mut self.index) {
                let key = key.replace(COMPILED, ".");
                if self.index.insert(key.clone(), entry).is_some() {
                    return Err(CheckpointError::Duplicate { key });
                }
            }
        }
        Ok(self)
    }

    /// The wrapper that all keys begin with.
    fn wrapper(&self) -> Option<&'static str> {
        let all = |wrapper: &&&str| self.index.keys().all(|key| key.starts_with(**wrapper));
        if self.index.is_empty() { None } else { WRAPPERS.iter().find(all).copied() }
    }

    /// What a pickled network says beside its tensors.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    pub(super) fn params(&self) -> u64 {
        let count = |entry: &Entry| entry.shape.iter().map(|&n| n as u64).product::<u64>();
        self.index.values().map(count).sum()
    }

    pub(super) fn tensor(&self, key: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let missing = || CheckpointError::NoTensor { key: key.into(), near: self.similar(key) };
        let entry = self.index.get(key).ok_or_else(missing)?;
        if entry.shape != expected {
            let (expected, found) = (expected.to_vec(), entry.shape.clone());
            return Err(CheckpointError::Shape { key: key.into(), expected, found });
        }
        let data = &self.files[entry.file][entry.start..];
        let values = match entry.dtype {
            Dtype::F32 => entry.values(data, f32::from_le_bytes),
            Dtype::F16 => entry.values(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => entry.values(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            other => return Err(CheckpointError::Dtype { key: key.into(), dtype: format!("{other:?}") }),
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(CheckpointError::NotFinite { key: key.into() });
        }
        self.used.borrow_mut().insert(key.into());
        Ok(values)
    }

    pub(super) fn shape(&self, key: &str) -> Option<&[usize]> {
        Some(&self.index.get(key)?.shape)
    }

    /// Counts a tensor as used that says nothing of the network.
    pub(super) fn ignore(&self, key: &str) {
        self.used.borrow_mut().insert(key.into());
    }

    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.index.keys().filter(|key| !used.contains(*key)).cloned().collect()
    }

    /// The existing key that has something before this one, or that shares the longest beginning, if it shares at least half.
    fn similar(&self, key: &str) -> Option<String> {
        let is_member = |other: &&String| other.strip_suffix(key).is_some_and(|before| before.ends_with('.'));
        if let Some(member) = self.index.keys().find(is_member) {
            return Some(member.clone());
        }
        let common = |other: &str| key.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let best = self.index.keys().max_by_key(|other| common(other))?;
        (2 * common(best) >= key.len()).then(|| best.clone())
    }
}

/// The tensors of one file, by what its first bytes say it is.
fn parse(
    bytes: &[u8],
    path: &Path,
    notes: &mut Vec<Note>,
    snapshot: &mut Option<Snapshot>,
) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let refuse = |what: String| CheckpointError::Weights { path: path.into(), what };
    if is_pointer(bytes) {
        return Err(CheckpointError::LargeFilePointer { path: path.into() });
    }
    // The text of a safetensors header follows its length, whose own bytes may look like the beginning of anything.
    let has_header = bytes.get(8) == Some(&b'{');
    if !has_header && bytes.starts_with(b"PK\x03\x04") {
        return torch::read(bytes, notes).map_err(|error| match error {
            TorchError::Archive(what) => refuse(what),
            TorchError::Pickle(error) => CheckpointError::Pickle { path: path.into(), error },
        });
    }
    if !has_header && matches!(bytes, [0x80, 1..=5, ..]) {
        let failed = |error| CheckpointError::Pickle { path: path.into(), error };
        let pickle = Pickle::read(bytes).map_err(failed)?;
        if let Some(network) = persistent::network(&pickle) {
            *snapshot = Some(Snapshot::of(&network));
            let entry = |(key, tensor): &(String, &Tensor)| {
                let Storage { dtype, place, .. } = tensor.storage;
                let start = place + tensor.offset * (dtype.bitsize() / 8);
                let strides = (!torch::is_contiguous(tensor)).then(|| tensor.strides.clone());
                (key.clone(), Entry { file: 0, dtype, start, strides, shape: tensor.shape.clone() })
            };
            return Ok(network.tensors.iter().map(entry).collect());
        }
        let what = "a pickle without an archive, as PyTorch before 1.6 wrote: load it in PyTorch and save it again";
        return Err(refuse(what.into()));
    }
    if bytes.is_empty() {
        return Err(refuse("an empty file; download or save it again".into()));
    }
    let damaged = |error| {
        refuse(format!("neither safetensors ({error}) nor what torch.save writes; the file is damaged or incomplete"))
    };
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let start = |data: &[u8]| data.as_ptr() as usize - bytes.as_ptr() as usize;
    let entry = |(key, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        let (dtype, shape, start) = (tensor.dtype(), tensor.shape().to_vec(), start(tensor.data()));
        (key.to_string(), Entry { file: 0, dtype, shape, start, strides: None })
    };
    Ok(tensors.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file whose header has `len` bytes.
    fn with_header(len: usize) -> Vec<u8> {
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut bytes = (len as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes().chain(std::iter::repeat(b' ')).take(len));
        bytes.extend(1.5f32.to_le_bytes());
        bytes
    }

    #[test]
    fn headers_of_any_length_are_recognized() {
        // 0x0280 and 0x0380 begin as a pickle of protocol 2 and 3 does.
        for len in [0x80, 0x0180, 0x0280, 0x0380, 0x0480, 0x0580, 0x100] {
            let tensors = parse(&with_header(len), Path::new("w"), &mut vec![], &mut None).expect("safetensors");
            assert_eq!(tensors[0].0, "a", "{len}");
        }
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        let refusal =
            |bytes: &[u8]| parse(bytes, Path::new("w"), &mut vec![], &mut None).expect_err("refused").to_string();
        assert!(refusal(&[0x80, 2, b'}', b'.']).contains("before 1.6"));
        assert!(refusal(&[]).contains("empty"));
        assert!(refusal(b"garbage that is long enough").contains("neither safetensors"));
    }
}
