//! The keys of an experiment file and of its entries, each tried alone, so that a mistake is told
//! where it stands and hides no other.

use crate::config::problem::{instead, Problem, SourceSpan};
use crate::config::tree::{self, Setting};
use crate::config::words::explain;
use aflora_record::results::twice;
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// A key with its value.
pub struct Field {
    key: String,
    value: Value,
    /// Where the key and the value stand; unknown within a list.
    spans: Option<(SourceSpan, SourceSpan)>,
}

impl Field {
    /// Whether this is the key.
    pub fn is(&self, key: &str) -> bool {
        self.key == key
    }
}

/// The keys of a file; what is wrong with it as YAML goes to `problems`.
pub fn of_file(path: &Path, problems: &mut Vec<Problem>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for setting in tree::read(path, problems).unwrap_or_default() {
        let Setting { path, keys, value, span } = setting;
        let (Some((key, below)), Some(key_span)) = (path.split_first(), keys.first()) else {
            continue;
        };
        // Settings of one group stand one behind the other.
        if fields.last().is_none_or(|last| last.key != *key) {
            let spans = Some((key_span.clone(), span));
            fields.push(Field { key: key.clone(), value: Value::Null, spans });
        }
        if let Some(last) = fields.last_mut() {
            put(&mut last.value, below, value);
        }
    }
    fields
}

/// What to say of those of `lists` in which a value stands twice: its cells would count twice.
pub fn repeated(fields: &[Field], lists: &[&str]) -> Vec<Problem> {
    let lists = fields.iter().filter(|field| lists.contains(&field.key.as_str()));
    let say = |field: &Field| {
        let items = field.value.as_array()?.iter().map(said);
        let message = format!("`{}`: {} stands twice", field.key, twice(items)?);
        let span = field.spans.as_ref().map(|(_, value)| value.clone());
        Some(Problem::at(span, message))
    };
    lists.filter_map(say).collect()
}

/// A value as it is written on the command line.
pub fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            // 0.0005 reads better as 5e-4.
            Some(x) if x != 0.0 && x.abs() < 0.01 => format!("{x:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn put(at: &mut Value, path: &[String], value: Value) {
    match path.split_first() {
        None => *at = value,
        Some((key, below)) => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(map) = at {
                put(map.entry(key.clone()).or_insert(Value::Null), below, value);
            }
        }
    }
}

/// Takes `key` out of `fields`, as a list whose items have keys themselves; each becomes a `T`.
pub fn items<T: Serialize + DeserializeOwned + Default>(
    fields: &mut Vec<Field>,
    key: &str,
    required: &[&str],
    file: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let Some(at) = fields.iter().position(|field| field.key == key) else { return Vec::new() };
    let Field { value, spans, .. } = fields.remove(at);
    let Value::Array(items) = value else {
        let message = format!("`{key}` must be a list of groups of keys");
        problems.push(Problem::at(spans.map(|(key, _)| key), message));
        return Vec::new();
    };
    let mut read = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        let mut found = Vec::new();
        match item {
            Value::Object(map) => {
                let fields = map.into_iter().map(|(key, value)| Field { key, value, spans: None });
                read.push(overlay(fields.collect(), required, &mut found));
            }
            _ => found.push(Problem::at(None, "it must be a group of keys")),
        }
        problems.extend(found.into_iter().map(|problem| Problem {
            message: format!("{}: `{key}`, item {}: {}", file.display(), i + 1, problem.message),
            ..problem
        }));
    }
    read
}

/// Overlays fields on the defaults of `T`; those that are wrong, or missing, go to `problems`.
pub fn overlay<T: Serialize + DeserializeOwned + Default>(
    fields: Vec<Field>,
    required: &[&str],
    problems: &mut Vec<Problem>,
) -> T {
    let mut laid = serde_json::to_value(T::default()).unwrap_or_default();
    let known: Vec<String> =
        laid.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for key in required {
        if !fields.iter().any(|field| field.key == *key) {
            problems.push(Problem::at(None, format!("`{key}` is missing")));
        }
    }
    for Field { key, value, spans } in fields {
        let (key_span, span) = spans.unzip();
        if !known.contains(&key.as_str()) {
            let problem = Problem::at(key_span, format!("there is no key `{key}`"));
            problems.push(problem.help(instead(&key, &known)));
            continue;
        }
        match alone::<T>(&laid, &key, value) {
            Ok(with) => laid = with,
            Err((error, is_list)) => problems.push(explain(&key, &error, is_list, span)),
        }
    }
    serde_json::from_value(laid).unwrap_or_default()
}

/// The fields so far with one more, or what is wrong with it, and whether it is a list.
fn alone<T: DeserializeOwned>(
    laid: &Value,
    key: &str,
    value: Value,
) -> Result<Value, (String, bool)> {
    let attempt = |value: Value| -> Result<Value, serde_json::Error> {
        let mut with = laid.clone();
        put(&mut with, &[key.to_string()], value);
        T::deserialize(&with).map(|_| with)
    };
    // A label such as `8` is a text that looks like a number.
    let as_text = (value.is_number() || value.is_boolean()).then(|| value.to_string());
    let is_list = value.is_array();
    attempt(value).or_else(|error| match as_text.map(Value::String).map(attempt) {
        Some(Ok(with)) => Ok(with),
        _ => Err((error.to_string(), is_list)),
    })
}
