//! Whole networks in a pickle, as NVIDIA's EDM (`network-snapshot-*.pkl`) writes them: objects of classes whose source is in the
//! pickle as well. That is not looked at. An object is its class's name and its attributes: among them PyTorch's `_parameters`,
//! `_buffers` and `_modules`. The storage of a tensor is a string of bytes that holds what PyTorch before 1.6 wrote.

use std::ops::Range;

use super::{Id, Pickle, PickleError, Storage, Tensor, Value};

/// Most items of what is written of an object: its class's name and source, its attributes and a few more.
pub(super) const META: usize = 16;
/// Most modules inside of each other.
const DEPTH: usize = 16;
/// Longest name of a tensor, the modules that it is in included.
const NAME: usize = 512;
/// Pickles before a storage's data: a magic number, the version, the machine, the storage, the keys of the data.
const PARTS: usize = 5;

/// The storage in a string of bytes.
pub(super) fn storage(bytes: &[u8], place: Range<usize>) -> Result<Storage, PickleError> {
    let refuse = |what| PickleError::Malformed { at: place.start, what };
    let inside = bytes.get(..place.end).ok_or(PickleError::Truncated)?;
    let (mut at, mut found) = (place.start, None);
    for part in 0..PARTS {
        let (pickle, end) = Pickle::read_from(inside, at, true)?;
        if let (3, Value::Storage(storage)) = (part, pickle.root()) {
            found = Some(*storage);
        }
        at = end;
    }
    let storage = found.ok_or_else(|| refuse("has a storage that PyTorch does not write"))?;
    let header = inside.get(at..).and_then(|rest| rest.first_chunk()).ok_or(PickleError::Truncated)?;
    let (len, place) = (u64::from_le_bytes(*header), at + 8);
    let size = storage.dtype.bitsize() / 8;
    let fits = storage.len.checked_mul(size).is_some_and(|bytes| bytes <= inside.len() - place);
    if len != storage.len as u64 || !fits {
        return Err(refuse("has a storage whose data is incomplete"));
    }
    Ok(Storage { key: None, place, ..storage })
}

/// A network in a pickle.
pub(in super::super) struct Network<'p> {
    /// Names of the classes of the network and of its member `model`.
    pub(in super::super) classes: [Option<&'p str>; 2],
    /// Numbers among the attributes of both.
    pub(in super::super) numbers: [Vec<(&'p str, f64)>; 2],
    /// Parameters and buffers by their places in the modules.
    pub(in super::super) tensors: Vec<(String, &'p Tensor)>,
}

/// The network that a pickle holds, its average first; `None` if there is none.
pub(in super::super) fn network(pickle: &Pickle) -> Option<Network<'_>> {
    let root = match pickle.root() {
        Value::Dict(_) => ["ema", "net"].iter().find_map(|name| item(pickle, pickle.root, name))?,
        _ => pickle.root,
    };
    let Value::Object { class: Some(_), state: Some(state) } = *pickle.get(root) else { return None };
    let model = item(pickle, state, "_modules").and_then(|modules| item(pickle, modules, "model"));
    let tensors = collect(pickle, root)?;
    let inner = model.and_then(|model| match *pickle.get(model) {
        Value::Object { state, .. } => state,
        _ => None,
    });
    let numbers = [Some(state), inner].map(|of| of.map_or(vec![], |state| numbers(pickle, state)));
    Some(Network { classes: [class(pickle, Some(root)), class(pickle, model)], numbers, tensors })
}

/// The numbers among an object's attributes.
fn numbers(pickle: &Pickle, state: Id) -> Vec<(&str, f64)> {
    let number = |(name, value): (_, Id)| match *pickle.get(value) {
        Value::Float(number) => Some((name, number)),
        Value::Int(number) => Some((name, number as f64)),
        _ => None,
    };
    items(pickle, state).filter_map(number).collect()
}

fn class(pickle: &Pickle, object: Option<Id>) -> Option<&str> {
    match pickle.get(object?) {
        Value::Object { class: Some(class), .. } => match pickle.get(*class) {
            Value::Text(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The items of a dictionary that have a name.
fn items(pickle: &Pickle, dict: Id) -> impl Iterator<Item = (&str, Id)> {
    let pairs = match pickle.get(dict) {
        Value::Dict(pairs) => pairs.as_slice(),
        _ => &[],
    };
    pairs.iter().filter_map(|&(key, value)| match pickle.get(key) {
        Value::Text(name) => Some((name.as_str(), value)),
        _ => None,
    })
}

fn item(pickle: &Pickle, dict: Id, name: &str) -> Option<Id> {
    items(pickle, dict).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The tensors of a module and of those inside of it; `None` if they are too many, or too deep.
fn collect(pickle: &Pickle, root: Id) -> Option<Vec<(String, &Tensor)>> {
    let (mut found, mut waiting) = (vec![], vec![(root, String::new(), 0)]);
    // A module that is a member of many, or of itself, would be any number of tensors.
    let mut left = pickle.values.len();
    while let Some((module, path, depth)) = waiting.pop() {
        let Value::Object { state: Some(state), .. } = *pickle.get(module) else { continue };
        left = left.checked_sub(items(pickle, state).count())?;
        for list in ["_parameters", "_buffers"] {
            for (name, value) in item(pickle, state, list).into_iter().flat_map(|list| items(pickle, list)) {
                left = left.checked_sub(1).filter(|_| path.len() + name.len() <= NAME)?;
                if let Value::Tensor(tensor) = pickle.get(value) {
                    found.push((format!("{path}{name}"), &**tensor));
                }
            }
        }
        for (name, value) in item(pickle, state, "_modules").into_iter().flat_map(|list| items(pickle, list)) {
            left = left.checked_sub(1).filter(|_| depth < DEPTH && path.len() + name.len() < NAME)?;
            waiting.push((value, format!("{path}{name}."), depth + 1));
        }
    }
    Some(found)
}
