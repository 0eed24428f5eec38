//! A reader of the pickles that `torch.save` writes: tensors, dictionaries and plain values; and of those of whole networks that
//! `persistent` takes apart.
//!
//! A pickle is a program for a machine with a stack. This machine executes the opcodes that build data, calls nothing,
//! and refuses every other opcode and every other name that a pickle may import. Values refer to each other by index, so
//! that time and memory are proportional to the pickle whatever it does, and nothing recurses.

mod opcodes;
pub(super) mod persistent;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;

use thiserror::Error;

use value::global;
pub(super) use value::{Global, Id, Storage, Tensor, Value};

/// Longest pickle, without the tensors' data, which lies beside it or in strings of bytes.
const BYTES: usize = 8 << 20;
/// Most values that it may build.
const VALUES: usize = 1 << 20;
/// Most dimensions of a tensor.
const DIMENSIONS: usize = 8;

/// Why a pickle is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// An opcode that does not build plain data.
    #[error("opcode {name} at byte {at} is not executed")]
    Opcode {
        /// As Python's `pickletools` names it.
        name: String,
        /// Where it is.
        at: usize,
    },
    /// Something to import that is neither a tensor nor an ordered dictionary.
    #[error("{module}.{name} is not imported")]
    Global {
        /// The Python module.
        module: String,
        /// The name in it.
        name: String,
    },
    /// It ends before its end.
    #[error("it ends in the middle")]
    Truncated,
    /// Longer, or with more values, than a state dictionary has.
    #[error("more than {limit} {what}")]
    Large {
        /// The limit.
        limit: usize,
        /// Of what.
        what: &'static str,
    },
    /// An instruction that does not fit what was built before.
    #[error("byte {at}: {what}")]
    Malformed {
        /// Where it is.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// The value that was pickled.
    pub(super) fn root(&self) -> &Value {
        self.get(self.root)
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// Executes a pickle.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        Self::read_from(bytes, 0, false).map(|(pickle, _)| pickle)
    }

    /// Executes a pickle that begins at a byte, and says where it ends; one that lies in another holds none.
    fn read_from(bytes: &[u8], start: usize, is_inner: bool) -> Result<(Self, usize), PickleError> {
        let (values, stack, marks, memo) = (vec![], vec![], vec![], HashMap::new());
        let mut machine = Machine { bytes, at: start, data: 0, is_inner, values, stack, marks, memo };
        loop {
            machine.at += 1;
            if machine.at - start - machine.data > BYTES {
                return Err(PickleError::Large { limit: BYTES, what: "bytes" });
            }
            match *bytes.get(machine.at - 1).ok_or(PickleError::Truncated)? {
                opcodes::STOP => break,
                opcode => machine.execute(opcode)?,
            }
        }
        let root = machine.pop()?;
        Ok((Self { values: machine.values, root }, machine.at))
    }
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Bytes of strings of bytes, which were skipped.
    data: usize,
    is_inner: bool,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where marks stand.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl Machine<'_> {
    fn execute(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            opcodes::PROTO => self.take(1).map(drop)?,
            opcodes::FRAME => self.take(8).map(drop)?,
            opcodes::MARK => self.marks.push(self.stack.len()),
            opcodes::POP => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            opcodes::POP_MARK => self.since_mark().map(drop)?,
            opcodes::DUP => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
            }
            opcodes::NONE | opcodes::NEWTRUE | opcodes::NEWFALSE | opcodes::EMPTY_SET => self.push(Value::Plain)?,
            opcodes::BININT => {
                let bytes = self.array()?;
                self.push(Value::Int(i32::from_le_bytes(bytes).into()))?;
            }
            opcodes::BININT1 => {
                let n = self.length(1)?;
                self.push(Value::Int(n as i64))?;
            }
            opcodes::BININT2 => {
                let n = self.length(2)?;
                self.push(Value::Int(n as i64))?;
            }
            opcodes::LONG1 => {
                let len = self.length(1)?;
                let long = long(self.take(len)?);
                self.push(long)?;
            }
            opcodes::BINFLOAT => {
                let float = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(float))?;
            }
            opcodes::BINUNICODE | opcodes::BINSTRING => self.text(4)?,
            opcodes::SHORT_BINUNICODE | opcodes::SHORT_BINSTRING => self.text(1)?,
            opcodes::BINBYTES => self.skip_bytes(4)?,
            opcodes::BINBYTES8 => self.skip_bytes(8)?,
            opcodes::SHORT_BINBYTES => self.skip_bytes(1)?,
            opcodes::EMPTY_TUPLE => self.push(Value::Tuple(vec![]))?,
            opcodes::TUPLE => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            opcodes::TUPLE1 | opcodes::TUPLE2 | opcodes::TUPLE3 => {
                let items = self.pop_many(usize::from(opcode - opcodes::TUPLE1) + 1)?;
                self.push(Value::Tuple(items))?;
            }
            opcodes::EMPTY_LIST => self.push(Value::List(vec![]))?,
            opcodes::APPEND => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            opcodes::APPENDS => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            opcodes::EMPTY_DICT => self.push(Value::Dict(vec![]))?,
            opcodes::SETITEM => {
                let pair = self.pop_many(2)?;
                self.set(&pair)?;
            }
            opcodes::SETITEMS => {
                let pairs = self.since_mark()?;
                self.set(&pairs)?;
            }
            opcodes::ADDITEMS => self.since_mark().map(drop)?,
            opcodes::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(global(module, name)?))?;
            }
            opcodes::STACK_GLOBAL => {
                let names = self.pop_many(2)?;
                let (Value::Text(module), Value::Text(name)) = (&self.values[names[0]], &self.values[names[1]]) else {
                    return self.refuse("imports what is not a name");
                };
                let global = global(module.clone(), name.clone())?;
                self.push(Value::Global(global))?;
            }
            opcodes::REDUCE => self.call()?,
            opcodes::NEWOBJ => {
                let ids = self.pop_many(2)?;
                match self.values[ids[0]] {
                    Value::Global(Global::Module) => self.push(Value::Object { class: None, state: None })?,
                    Value::Global(Global::OrderedDict) => self.push(Value::Dict(vec![]))?,
                    _ => return self.refuse("makes an object of what is no class that is known"),
                }
            }
            opcodes::BUILD => {
                // An ordered dictionary's attributes: `_metadata`, the versions of modules. Or an object's.
                let state = self.pop()?;
                if let Some(Value::Object { state: attributes, .. }) = self.stack.last().map(|&id| &mut self.values[id])
                {
                    *attributes = Some(state);
                    return Ok(());
                }
                let is_dict = |id: &Id| matches!(self.values[*id], Value::Dict(_));
                if !is_dict(&state) || !self.stack.last().is_some_and(is_dict) {
                    return self.refuse("gives attributes to what is not an ordered dictionary");
                }
            }
            opcodes::BINPERSID => self.storage()?,
            opcodes::BINPUT => self.put(1)?,
            opcodes::LONG_BINPUT => self.put(4)?,
            opcodes::MEMOIZE => self.memoize(self.memo.len())?,
            opcodes::BINGET => self.recall(1)?,
            opcodes::LONG_BINGET => self.recall(4)?,
            other => return Err(PickleError::Opcode { name: opcodes::name(other), at: self.at - 1 }),
        }
        Ok(())
    }

    fn refuse<T>(&self, what: &'static str) -> Result<T, PickleError> {
        Err(PickleError::Malformed { at: self.at - 1, what })
    }

    fn take(&mut self, len: usize) -> Result<&[u8], PickleError> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(PickleError::Truncated)?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned integer of at most eight bytes.
    fn length(&mut self, bytes: usize) -> Result<usize, PickleError> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated)?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let len = self.length(length)?;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Value::Text(text))
    }

    fn skip_bytes(&mut self, length: usize) -> Result<(), PickleError> {
        let len = self.length(length)?;
        let start = self.at;
        self.take(len)?;
        self.data += len;
        self.push(Value::Bytes(start..start + len))
    }

    fn push(&mut self, value: Value) -> Result<(), PickleError> {
        if self.values.len() == VALUES {
            return Err(PickleError::Large { limit: VALUES, what: "values" });
        }
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => self.refuse("takes from an empty stack"),
        }
    }

    /// The last few values, in the order in which they were pushed.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, PickleError> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.refuse("closes what was not opened"),
        }
    }

    fn top(&mut self) -> Result<&mut Value, PickleError> {
        match self.stack.last() {
            Some(&id) => Ok(&mut self.values[id]),
            None => self.refuse("changes what is not there"),
        }
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            _ => return self.refuse("appends to what is not a list"),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[Id]) -> Result<(), PickleError> {
        let (pairs, rest) = pairs.as_chunks();
        if !rest.is_empty() {
            return self.refuse("has a key without a value");
        }
        match self.top()? {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return self.refuse("sets an item of what is not a dictionary"),
        }
        Ok(())
    }

    fn put(&mut self, length: usize) -> Result<(), PickleError> {
        let index = self.length(length)?;
        self.memoize(index)
    }

    fn memoize(&mut self, index: usize) -> Result<(), PickleError> {
        match self.stack.last() {
            Some(&id) => self.memo.insert(index, id),
            None => return self.refuse("remembers what is not there"),
        };
        Ok(())
    }

    fn recall(&mut self, length: usize) -> Result<(), PickleError> {
        let index = self.length(length)?;
        match self.memo.get(&index) {
            Some(&id) => self.stack.push(id),
            None => return self.refuse("recalls what was not remembered"),
        }
        Ok(())
    }

    /// A persistent identifier: `("storage", type, key, device, number of elements)`.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        if let Value::Tuple(items) = &self.values[id]
            // Old archives say of which storage one is a part: none.
            && let &[kind, dtype, key, device, len] | &[kind, dtype, key, device, len, _] = &items[..]
            && let (Value::Text(kind), Value::Global(Global::Storage(dtype))) =
                (&self.values[kind], &self.values[dtype])
            && kind == "storage"
            && let (Value::Text(_), Value::Text(_), Value::Int(len)) =
                (&self.values[key], &self.values[device], &self.values[len])
            && let Ok(len) = usize::try_from(*len)
        {
            let storage = Storage { dtype: *dtype, key: Some(key), place: 0, len };
            return self.push(Value::Storage(storage));
        }
        self.refuse("refers to what is not a storage")
    }

    fn call(&mut self) -> Result<(), PickleError> {
        let ids = self.pop_many(2)?;
        let (Value::Global(callable), Value::Tuple(arguments)) = (&self.values[ids[0]], &self.values[ids[1]]) else {
            return self.refuse("calls what is not imported");
        };
        // No callable takes more; a tuple may be long, and be passed often.
        let items: Vec<&Value> = arguments.iter().take(8).map(|&id| &self.values[id]).collect();
        match (callable, &items[..]) {
            (Global::OrderedDict, []) => self.push(Value::Dict(vec![])),
            (Global::Unread, _) => self.push(Value::Object { class: None, state: None }),
            (Global::LoadStorage, [Value::Bytes(place)]) if !self.is_inner => {
                let (storage, string) = (persistent::storage(self.bytes, place.clone())?, arguments[0]);
                // Once: time is proportional to the pickle.
                self.values[string] = Value::Plain;
                self.push(Value::Storage(storage))
            }
            (Global::Persistent, [Value::Dict(meta)]) if meta.len() <= persistent::META => {
                let named = |name: &str| {
                    let is = |key: &Id| matches!(&self.values[*key], Value::Text(text) if text == name);
                    meta.iter().rev().find(|(key, _)| is(key)).map(|&(_, value)| value)
                };
                let (class, state) = (named("class_name"), named("state"));
                self.push(Value::Object { class, state })
            }
            (Global::RebuildParameter, [Value::Tensor(_), ..]) => {
                self.stack.push(arguments[0]);
                Ok(())
            }
            (
                Global::RebuildTensor,
                [Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), ..],
            ) => {
                let tensor = usize::try_from(*offset).ok().zip(self.sizes(shape)).zip(self.sizes(strides));
                let tensor =
                    tensor.map(|((offset, shape), strides)| Tensor { storage: *storage, offset, shape, strides });
                match tensor {
                    Some(tensor) if tensor.is_inside() => self.push(Value::Tensor(Box::new(tensor))),
                    _ => self.refuse("has a tensor that does not fit its storage"),
                }
            }
            _ => self.refuse("calls with arguments that torch.save does not write"),
        }
    }

    fn sizes(&self, ids: &[Id]) -> Option<Vec<usize>> {
        let size = |id: &Id| match self.values[*id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        (ids.len() <= DIMENSIONS).then(|| ids.iter().map(size).collect())?
    }
}

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Plain;
    }
    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
