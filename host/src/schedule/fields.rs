//! The fields of a configuration, read one by one as Python's `json` and diffusers read them.
//!
//! A field that is absent has the default of the class that reads it. `null` is Python's `None`, which is not the
//! default: it is false where diffusers asks for a truth value, and an error where it computes with it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::ScheduleError;

/// A JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Self, ScheduleError> {
        Ok(Self(serde_json::from_str(&quote_non_finite(text))?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether a field is present and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.is_null())
    }

    /// A truth value; null is false.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ScheduleError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => Err(ScheduleError::field(name, value, "true or false")),
        }
    }

    /// A number, infinities included.
    pub(super) fn number(&self, name: &str, default: f64) -> Result<f64, ScheduleError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => number(value).ok_or_else(|| ScheduleError::field(name, value, "a number")),
        }
    }

    /// An integer from `range`.
    pub(super) fn count(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ScheduleError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count));
        count.ok_or_else(|| ScheduleError::field(name, value, format!("{} to {}", range.start(), range.end())))
    }

    /// One of several texts, each with what it stands for. `None` if the field is absent.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ScheduleError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let chosen = choices.iter().find(|(text, _)| value.as_str() == Some(text));
        let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
        let expected = || ScheduleError::field(name, value, format!("use one of {}", texts.join(", ")));
        chosen.map(|(_, choice)| Some(*choice)).ok_or_else(expected)
    }

    /// A list of numbers as `f32`; `None` if it is absent or null.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f32>>, ScheduleError> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| match number(value) {
                    Some(number) => Ok(number as f32),
                    None => Err(ScheduleError::field(name, value, "a list of numbers")),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(value) => Err(ScheduleError::field(name, value, "a list of numbers")),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

/// Python writes numbers that JSON does not have, as in `"lambda_min_clipped": -Infinity`; they become texts.
fn quote_non_finite(text: &str) -> Cow<'_, str> {
    let mut quoted = String::new();
    let (mut copied, mut at) = (0, 0);
    let mut in_string = false;
    while let Some(&byte) = text.as_bytes().get(at) {
        if in_string {
            in_string = byte != b'"';
            at += 1 + usize::from(byte == b'\\');
            continue;
        }
        in_string = byte == b'"';
        let rest = &text.as_bytes()[at..];
        let words = ["-Infinity", "Infinity", "NaN"];
        if let Some(word) = words.into_iter().find(|word| rest.starts_with(word.as_bytes())) {
            quoted += &format!("{}\"{word}\"", &text[copied..at]);
            at += word.len();
            copied = at;
        } else {
            at += 1;
        }
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(quoted + &text[copied..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_only_python_has_are_read_outside_of_texts() {
        let fields = Fields::parse(r#"{"a": -Infinity, "b": [Infinity, 1e-3], "c": "NaN \" -Infinity", "d": NaN}"#);
        let fields = fields.expect("Python's JSON");
        assert_eq!(fields.number("a", 0.0).expect("a number"), f64::NEG_INFINITY);
        assert_eq!(fields.numbers("b").expect("numbers"), Some(vec![f32::INFINITY, 1e-3]));
        assert_eq!(fields.get("c"), Some(&Value::from("NaN \" -Infinity")));
        assert!(fields.number("d", 0.0).is_err(), "not a number is not a number");
    }

    #[test]
    fn texts_that_are_cut_short_are_refused() {
        for text in ["", "{", "{\"a", "{\"a\\", "[1]", "-Infinity", "{\"é\": -Inf"] {
            assert!(matches!(Fields::parse(text), Err(ScheduleError::Json(_))), "{text}");
        }
    }

    #[test]
    fn null_is_none_and_not_the_default() {
        let fields = Fields::parse(r#"{"null": null, "text": "1", "minus": -1, "half": 0.5}"#).expect("JSON");
        assert!(!fields.flag("null", true).expect("false"));
        assert!(fields.flag("absent", true).expect("the default"));
        assert!(fields.flag("minus", true).is_err());
        for name in ["null", "text"] {
            assert!(fields.number(name, 1.0).is_err(), "{name}");
            assert!(fields.count(name, 1, 0..=9).is_err(), "{name}");
        }
        for name in ["minus", "half"] {
            assert!(fields.count(name, 1, 0..=9).is_err(), "{name}");
        }
        assert!(fields.choice("null", &[("linear", 1)]).is_err());
        assert_eq!(fields.choice("absent", &[("linear", 1)]).expect("absent"), None);
    }
}
