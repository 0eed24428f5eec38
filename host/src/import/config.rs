//! Reading `config.json` field by field.

use serde_json::{Map, Value};

use super::ImportError;
use crate::graph::Activation;

/// diffusers' names of activations, in lower case; the first is the default.
pub(super) const ACTIVATIONS: [(&str, Activation); 5] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("mish", Activation::Mish),
    ("gelu", Activation::Gelu),
    ("relu", Activation::Relu),
];

pub(super) fn refuse(field: &str, value: impl ToString, expected: impl Into<String>) -> ImportError {
    ImportError::Field { field: field.into(), value: value.to_string(), expected: expected.into() }
}

/// Takes fields out of the configuration, so that what is left over is what nobody has looked at.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a configuration but those that begin with `_`, which describe how it was written.
    pub(super) fn new(config: &Map<String, Value>) -> Self {
        let mut fields = config.clone();
        fields.retain(|name, _| !name.starts_with('_'));
        Self(fields)
    }

    /// A field that is null where nobody states it; absent or null being `None`.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.take_stated(field).filter(|value| !value.is_null())
    }

    /// A field that is something else than null where nobody states it: with null most networks do not run.
    pub(super) fn take_stated(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field)
    }

    pub(super) fn int(&mut self, field: &str, max: usize) -> Result<Option<usize>, ImportError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
            _ => Err(refuse(field, value, format!("an integer from 1 to {max}"))),
        }
    }

    /// An integer that is `default` where nobody states it.
    pub(super) fn count(&mut self, field: &str, default: usize, max: usize) -> Result<usize, ImportError> {
        if !self.0.contains_key(field) {
            return Ok(default);
        }
        self.int(field, max)?.ok_or_else(|| refuse(field, "null", format!("an integer from 1 to {max}")))
    }

    pub(super) fn float(&mut self, field: &str, default: f64) -> Result<f64, ImportError> {
        let Some(value) = self.take_stated(field) else { return Ok(default) };
        match value.as_f64() {
            Some(x) if x.is_finite() && x.abs() <= 1e6 => Ok(x),
            _ => Err(refuse(field, value, "a number of at most a million")),
        }
    }

    /// A truth value; null is false, as in Python.
    pub(super) fn flag(&mut self, field: &str, default: bool) -> Result<bool, ImportError> {
        match self.take_stated(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => Err(refuse(field, value, "true or false")),
        }
    }

    /// A field that names one of a few choices; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Result<T, ImportError> {
        let Some(value) = self.take_stated(field) else { return Ok(choices[0].1) };
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
            refuse(field, value, format!("supported: {}", names.join(", ")))
        })
    }

    /// The same for a field whose null is the default too.
    pub(super) fn choice_or_null<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Result<T, ImportError> {
        self.0.retain(|name, value| name != field || !value.is_null());
        self.choice(field, choices)
    }

    /// The same for a field that diffusers reads in lower case.
    pub(super) fn choice_in_any_case<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Result<T, ImportError> {
        if let Some(Value::String(name)) = self.0.get_mut(field) {
            name.make_ascii_lowercase();
        }
        self.choice(field, choices)
    }

    /// A list of choices; `None` if it is absent. `of` says what would be accepted in the place of a name.
    pub(super) fn choices<T: Copy>(
        &mut self,
        field: &str,
        of: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, ImportError> {
        let Some(value) = self.take_stated(field) else { return Ok(None) };
        let names: Vec<String> =
            serde_json::from_value(value.clone()).map_err(|_| refuse(field, value, "a list of names"))?;
        let choice = |name: &String| of(name).map_err(|expected| refuse(field, format!("{name:?}"), expected));
        names.iter().map(choice).collect::<Result<_, _>>().map(Some)
    }

    /// Refuses the first field that nobody has taken.
    pub(super) fn finish(self) -> Result<(), ImportError> {
        match self.0.into_iter().next() {
            Some((field, value)) => Err(refuse(&field, value, "waft does not know this field")),
            None => Ok(()),
        }
    }
}
