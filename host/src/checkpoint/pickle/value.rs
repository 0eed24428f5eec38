//! The values of a pickle, and what it may import.

use std::ops::Range;

use safetensors::Dtype;

use super::PickleError;

/// Index of a value in its [`Pickle`].
pub(in super::super) type Id = usize;

/// A value.
#[derive(Clone, Debug)]
pub(in super::super) enum Value {
    /// A value that tensors do not need: `None`, a truth value, a set, a number of numpy's, or an integer of more than 64 bits.
    Plain,
    Int(i64),
    Float(f64),
    /// A string of bytes, as its place in the pickle.
    Bytes(Range<usize>),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Box<Tensor>),
    /// An object, as data: the name of its class, if it is a network's own, and its attributes.
    Object {
        class: Option<Id>,
        state: Option<Id>,
    },
}

/// What a pickle may import.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
    /// `torch.storage._load_from_bytes`: a storage in a string of bytes.
    LoadStorage,
    /// What NVIDIA's `persistence` writes of an object: its class's name and source, which nothing here looks at, and its attributes.
    Persistent,
    /// A class whose objects are attributes alone: a list of modules.
    Module,
    /// What makes a set or a number of numpy's, which tensors do not need.
    Unread,
}

/// The memory of tensors, in a file of its own beside the pickle.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Storage {
    pub(in super::super) dtype: Dtype,
    /// The text that names the file: an index, or many storages of a long name would need more memory than the pickle.
    pub(in super::super) key: Option<Id>,
    /// Where it is, if it lies in the pickle: its first byte.
    pub(in super::super) place: usize,
    /// Number of elements.
    pub(in super::super) len: usize,
}

/// A tensor over a storage.
#[derive(Clone, Debug)]
pub(in super::super) struct Tensor {
    pub(in super::super) storage: Storage,
    /// Index of the first element.
    pub(in super::super) offset: usize,
    pub(in super::super) shape: Vec<usize>,
    /// Elements from one index to the next, for each dimension.
    pub(in super::super) strides: Vec<usize>,
}

impl Tensor {
    /// Whether every element lies in the storage, and there are no more of them than the storage has: a tensor that
    /// repeats elements could be of any size.
    pub(super) fn is_inside(&self) -> bool {
        let rank = self.shape.len();
        if self.strides.len() != rank || self.len().is_none_or(|len| len > self.storage.len) {
            return false;
        }
        if self.shape.contains(&0) {
            return self.offset <= self.storage.len;
        }
        let steps = self.shape.iter().zip(&self.strides);
        let last = steps
            .map(|(&n, &stride)| (n - 1).checked_mul(stride))
            .try_fold(self.offset, |last, step| last.checked_add(step?));
        last.is_some_and(|last| last < self.storage.len)
    }

    fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n))
    }
}

pub(super) fn global(module: String, name: String) -> Result<Global, PickleError> {
    Ok(match (module.as_str(), name.as_str()) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch_utils.persistence", "_reconstruct_persistent_obj") => Global::Persistent,
        ("torch.nn.modules.container", "ModuleDict" | "ModuleList" | "Sequential") => Global::Module,
        ("torch.storage", "_load_from_bytes") => Global::LoadStorage,
        // A dictionary like any other.
        ("dnnlib.util", "EasyDict") => Global::OrderedDict,
        ("builtins" | "__builtin__", "set")
        | ("numpy", "dtype")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Unread,
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        _ => return Err(PickleError::Global { module, name }),
    })
}
