//! Keys as their types declare them.
//!
//! A key is a field of a settings type: its type and attributes say what it takes, `Default` what
//! it is unless set, and the first paragraph of its documentation what it does. This module reads
//! them off the type's [schema](schemars), and checks ranges by it.

use schemars::generate::SchemaSettings;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Display;

/// The most of anything that is counted: keeps products of two counts far from overflow.
pub(super) const MOST: usize = 1_000_000_000;

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its path with dots, as on the command line; `method.aflora.rank` is `method.rank` where
    /// the method is `aflora`.
    pub name: String,
    /// The values that it takes, in words.
    pub takes: String,
    /// What it does.
    pub about: String,
    /// What it is unless set; null where it has no value then.
    pub default: Value,
    /// The heading under which it and the next keys stand, where it is the first.
    pub section: Option<String>,
    /// Values in range.
    pub range: Range,
}

/// Numbers that a key takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Range {
    at_least: Option<f64>,
    at_most: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
}

impl Range {
    /// What is wrong with `value`: what it must be. `null` where the key takes null, too.
    fn refuse(self, value: f64, null: &str) -> Option<String> {
        let Range { at_least, at_most, above, below } = self;
        if let Some(least) = at_least.filter(|least| value < *least) {
            return Some(format!("at least {least}{null}"));
        }
        if let Some(most) = at_most.filter(|most| value > *most) {
            return Some(format!("at most {most}{null}"));
        }
        let out =
            above.is_some_and(|bound| value <= bound) || below.is_some_and(|bound| value >= bound);
        out.then(|| match (above, below) {
            (Some(above), Some(below)) => format!("above {above} and below {below}{null}"),
            (Some(above), None) => format!("above {above}{null}"),
            (None, Some(below)) => format!("below {below}{null}"),
            (None, None) => String::new(),
        })
    }
}

impl Key {
    /// As it is typed: without the method's name, which the chosen method settles.
    pub fn typed(&self) -> String {
        match self.name.split('.').collect::<Vec<_>>()[..] {
            ["method", _, ref rest @ ..] => format!("method.{}", rest.join(".")),
            _ => self.name.clone(),
        }
    }

    /// The key of a property with that schema.
    fn new(name: String, schema: &Map<String, Value>, default: Value) -> Key {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let about = text("description").unwrap_or_default();
        let about = about.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        Key {
            takes: takes(schema),
            about: about.trim_end_matches('.').to_string(),
            section: text("section").map(str::to_string),
            range: Range {
                at_least: number("minimum"),
                at_most: number("maximum"),
                above: number("exclusiveMinimum"),
                below: number("exclusiveMaximum"),
            },
            name,
            default,
        }
    }
}

/// The values that a schema allows, in words.
fn takes(schema: &Map<String, Value>) -> String {
    let strings = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array);
        let item = |item: &Value| item.as_str().map(str::to_string);
        items.map(|items| items.iter().filter_map(item).collect()).unwrap_or_default()
    };
    if let Some(takes) = schema.get("takes").and_then(Value::as_str) {
        return takes.to_string();
    }
    let types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        many => strings(many),
    };
    let mut words = strings(schema.get("examples"));
    words.extend(strings(schema.get("enum")));
    // An enum whose variants are documented is one of several constants; an optional one is
    // that or null.
    for key in ["oneOf", "anyOf"] {
        for variant in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            match (variant.get("const").and_then(Value::as_str), variant.as_object()) {
                (Some(name), _) => words.push(name.to_string()),
                (None, Some(inner)) => words.push(takes(inner)),
                _ => {}
            }
        }
    }
    if words.is_empty() {
        for kind in &types {
            words.push(match kind.as_str() {
                "boolean" => "true, false".into(),
                "integer" | "number" => "number".into(),
                "string" => "text".into(),
                "array" => {
                    let items = schema.get("items").and_then(Value::as_object);
                    format!("[{}]", items.map(takes).unwrap_or_default())
                }
                other => other.into(),
            });
        }
    } else if types.iter().any(|kind| kind == "null") {
        words.push("null".into());
    }
    words.join(", ")
}

/// The keys of a settings type, those of its groups with dots.
pub fn of<T: JsonSchema + Serialize + Default>() -> Vec<Key> {
    let mut keys = Vec::new();
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    collect("", schema_of::<T>().get("properties"), &defaults, &mut keys);
    keys
}

/// The schema with every type written out where it stands.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn collect(prefix: &str, properties: Option<&Value>, defaults: &Value, keys: &mut Vec<Key>) {
    for (name, schema) in properties.and_then(Value::as_object).into_iter().flatten() {
        let (path, default) = (format!("{prefix}{name}"), &defaults[name]);
        match (schema.get("properties"), schema.as_object()) {
            (Some(group), _) => collect(&format!("{path}."), Some(group), default, keys),
            (None, Some(schema)) => keys.push(Key::new(path, schema, default.clone())),
            (None, None) => {}
        }
    }
}

/// The keys of each variant of an enum that is told apart by its key `tag`, below the variant's
/// name; `default` gives a variant as it is unless set.
pub fn of_variants<T: JsonSchema>(tag: &str, default: impl Fn(&str) -> Value) -> Vec<Key> {
    let schema = schema_of::<T>();
    let mut keys = Vec::new();
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let Some(name) = variant["properties"][tag]["const"].as_str() else { continue };
        let prefix = format!("{name}.");
        collect(&prefix, variant.get("properties"), &default(name), &mut keys);
        keys.retain(|key| key.name != format!("{prefix}{tag}"));
    }
    keys
}

/// Every value of `settings` that is out of its key's range: the key, and what is wrong.
pub fn out_of_range(keys: &[Key], settings: &impl Serialize) -> Vec<(String, String)> {
    let values = serde_json::to_value(settings).unwrap_or_default();
    let problem = |key: &Key| {
        let at = format!("/{}", key.name.replace('.', "/"));
        let value = values.pointer(&at)?;
        let null = if key.takes.ends_with("null") { ", or null" } else { "" };
        let right = key.range.refuse(value.as_f64()?, null)?;
        Some((key.name.clone(), out_of_range_words(&key.name, value, &right)))
    };
    keys.iter().filter_map(problem).collect()
}

/// What a value out of range is told by.
pub fn out_of_range_words(key: &str, value: &dyn Display, right: &str) -> String {
    format!("`{key}` is {value}, but must be {right}")
}
