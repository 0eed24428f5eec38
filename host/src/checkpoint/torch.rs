//! What `torch.save` writes: a zip archive of one pickle and the storages that its tensors refer to.

use std::collections::HashMap;
use std::io::{Cursor, sink};
use std::ops::Range;

use zip::ZipArchive;

use super::Note;
use super::entry::Entry;
use super::pickle::{Pickle, PickleError, Tensor, Value};

/// Why an archive is refused.
pub(super) enum TorchError {
    Archive(String),
    Pickle(PickleError),
}

impl From<PickleError> for TorchError {
    fn from(error: PickleError) -> Self {
        Self::Pickle(error)
    }
}

fn refuse<T>(what: impl Into<String>) -> Result<T, TorchError> {
    Err(TorchError::Archive(what.into()))
}

/// Where training scripts keep a state dictionary, those first that draw best.
const NESTED: [&str; 7] =
    ["ema", "ema_state_dict", "ema_model", "state_dict", "state_dicts", "model_state_dict", "model"];
/// How deep.
const DEPTH: usize = 3;

/// The tensors of an archive, by key, with the places of their bytes in it.
pub(super) fn read(bytes: &[u8], notes: &mut Vec<Note>) -> Result<Vec<(String, Entry)>, TorchError> {
    let mut archive = Archive::open(bytes)?;
    let pickle = archive.file("data.pkl")?;
    let pickle = Pickle::read(&bytes[pickle])?;
    let mut found = vec![];
    for (key, tensor) in state_dict(&pickle, notes)? {
        let Some(Value::Text(storage)) = tensor.storage.key.map(|key| pickle.get(key)) else {
            return refuse("a storage has no name");
        };
        let place = archive.storage(storage)?;
        let size = tensor.storage.dtype.bitsize() / 8;
        if tensor.storage.len.checked_mul(size).is_none_or(|len| len > place.len()) {
            return refuse(format!("the storage of tensor {key:?} is incomplete; the file is damaged"));
        }
        let entry = Entry {
            file: 0,
            dtype: tensor.storage.dtype,
            start: place.start + tensor.offset * size,
            strides: (!is_contiguous(tensor)).then(|| tensor.strides.clone()),
            shape: tensor.shape.clone(),
        };
        found.push((key.to_string(), entry));
    }
    Ok(found)
}

/// The dictionary of tensors in a pickle: its root, or what lies in it under a name that is known.
fn state_dict<'p>(pickle: &'p Pickle, notes: &mut Vec<Note>) -> Result<Vec<(&'p str, &'p Tensor)>, TorchError> {
    let mut at = pickle.root();
    for _ in 0..=DEPTH {
        let Value::Dict(items) = at else { break };
        let named: Vec<(&str, &Value)> = items
            .iter()
            .filter_map(|&(key, value)| match pickle.get(key) {
                Value::Text(key) => Some((key.as_str(), pickle.get(value))),
                _ => None,
            })
            .collect();
        let is_tensor = |value: &Value| matches!(value, Value::Tensor(_));
        if named.iter().any(|(_, value)| is_tensor(value)) {
            let mut keys: Vec<String> =
                named.iter().filter(|(_, value)| !is_tensor(value)).map(|(key, _)| (*key).into()).collect();
            keys.truncate(8);
            if !keys.is_empty() {
                notes.push(Note::NotTensors { keys });
            }
            let tensor = |(key, value): (&'p str, &'p Value)| match value {
                Value::Tensor(tensor) => Some((key, &**tensor)),
                _ => None,
            };
            return Ok(named.into_iter().filter_map(tensor).collect());
        }
        let inner = |name: &str| {
            let found = named.iter().find(|(key, value)| *key == name && matches!(value, Value::Dict(_)));
            found.map(|(key, value)| ((*key).to_string(), *value))
        };
        let mut inside = NESTED.iter().filter_map(|name| inner(name));
        let Some((key, value)) = inside.next() else {
            let keys: Vec<&str> = named.iter().map(|(key, _)| *key).take(8).collect();
            return refuse(format!(
                "no tensors, and no state dictionary under {}; its keys are {keys:?}",
                NESTED.join(", ")
            ));
        };
        notes.push(Note::Nested { key, others: inside.map(|(key, _)| key).collect() });
        at = value;
    }
    refuse("holds no dictionary of tensors; save the weights with torch.save(model.state_dict(), …)")
}

struct Archive<'b> {
    zip: ZipArchive<Cursor<&'b [u8]>>,
    len: usize,
    /// The folder that everything lies in.
    root: String,
    places: HashMap<String, Range<usize>>,
}

impl<'b> Archive<'b> {
    fn open(bytes: &'b [u8]) -> Result<Self, TorchError> {
        let damaged =
            |error| TorchError::Archive(format!("not a zip archive: {error}; the file is damaged or incomplete"));
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        let names: Vec<String> = zip.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if names.iter().any(|name| name.ends_with("/constants.pkl")) {
            return refuse("a TorchScript program, not a state dictionary; save model.state_dict() instead");
        }
        let Some(root) = names.iter().find_map(|name| name.strip_suffix("data.pkl")) else {
            return refuse("a zip archive that torch.save did not write; it has no data.pkl");
        };
        let mut archive = Self { zip, len: bytes.len(), root: root.into(), places: HashMap::new() };
        if names.contains(&format!("{root}byteorder")) {
            let place = archive.file("byteorder")?;
            if &bytes[place] != b"little" {
                return refuse("written on a big-endian machine; save it again on a little-endian one");
            }
        }
        Ok(archive)
    }

    /// The bytes of a file, whose checksum is right.
    fn file(&mut self, name: &str) -> Result<Range<usize>, TorchError> {
        let path = format!("{}{name}", self.root);
        let fail = |what: String| TorchError::Archive(format!("{path}: {what}; the file is damaged or incomplete"));
        // By index: what is found by its raw name is read without a look at its checksum.
        let index = self.zip.index_for_name_raw(path.as_bytes()).ok_or_else(|| fail("is missing".into()))?;
        let mut file = self.zip.by_index(index).map_err(|error| fail(error.to_string()))?;
        if file.compression() != zip::CompressionMethod::Stored || file.encrypted() {
            return refuse(format!("{path} is compressed or encrypted, which torch.save does not do"));
        }
        let read = std::io::copy(&mut file, &mut sink()).map_err(|error| fail(error.to_string()))?;
        let start = file.data_start().unwrap_or(u64::MAX);
        match (usize::try_from(start), usize::try_from(read)) {
            (Ok(start), Ok(len)) if start.checked_add(len).is_some_and(|end| end <= self.len) => Ok(start..start + len),
            _ => Err(fail("it lies outside of the archive".into())),
        }
    }

    fn storage(&mut self, key: &str) -> Result<Range<usize>, TorchError> {
        if let Some(place) = self.places.get(key) {
            return Ok(place.clone());
        }
        let place = self.file(&format!("data/{key}"))?;
        self.places.insert(key.into(), place.clone());
        Ok(place)
    }
}

/// Whether the elements lie one after the other in row-major order.
pub(super) fn is_contiguous(tensor: &Tensor) -> bool {
    let mut expected = 1usize;
    tensor.shape.iter().zip(&tensor.strides).rev().all(|(&n, &stride)| {
        let fits = n <= 1 || stride == expected;
        expected = expected.saturating_mul(n.max(1));
        fits
    })
}
