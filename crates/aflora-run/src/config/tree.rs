//! YAML as a flat list of settings, each with its path of keys, its value and its place.

use super::problem::{Place, Problem};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One value under its path of keys.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The keys from the root.
    pub path: Vec<String>,
    /// The value: anything but a mapping with keys in it.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

impl Setting {
    /// The setting below `key`, with that key taken off; `None` if it stands elsewhere.
    pub fn below(&self, key: &str) -> Option<Setting> {
        let (first, rest) = self.path.split_first()?;
        let inside = first == key && !rest.is_empty();
        inside.then(|| Setting { path: rest.to_vec(), ..self.clone() })
    }

    /// The path with dots.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// Reads a YAML file.
pub fn read(path: &Path) -> Result<Vec<Setting>, Problem> {
    let text = std::fs::read_to_string(path).map_err(|e| Problem::file(path, e))?;
    parse(path, text)
}

/// The settings of a YAML text that came from `path`.
pub fn parse(path: &Path, text: String) -> Result<Vec<Setting>, Problem> {
    let parsed = serde_saphyr::from_str::<Spanned<Node>>(&text);
    let file = (Arc::new(path.to_path_buf()), Arc::new(text));
    let root = parsed.map_err(|e| Problem {
        place: e.location().map_or(Place::Nowhere, |at| place(&file, &at)),
        message: format!("not YAML: {}", e.without_snippet()),
    })?;
    let mut settings = Vec::new();
    match root.value {
        Node::Map(entries) => flatten(&file, &[], entries, &mut settings),
        Node::Leaf(Value::Null) => {}
        Node::Leaf(_) => {
            let message = "expected `key: value` lines at the top level".to_string();
            let place = place(&file, &root.referenced);
            return Err(Problem { place, message });
        }
    }
    Ok(settings)
}

/// An override as typed: `key.path=value`, the value in YAML.
pub fn parse_override(typed: &str) -> Result<Setting, Problem> {
    let place = Place::CommandLine(typed.to_string());
    let problem = |message: String| Problem { place: place.clone(), message };
    let Some((key, value)) = typed.split_once('=') else {
        return Err(problem("expected `key=value`, such as `epochs=3`".into()));
    };
    let path: Vec<String> = key.split('.').map(str::to_string).collect();
    if path.iter().any(String::is_empty) {
        return Err(problem("the key has an empty part".into()));
    }
    let value = serde_saphyr::from_str(value)
        .map_err(|e| problem(format!("the value is no YAML: {}", e.without_snippet())))?;
    Ok(Setting { path, value, place })
}

type SourceFile = (Arc<PathBuf>, Arc<String>);

fn place((path, text): &SourceFile, at: &serde_saphyr::Location) -> Place {
    let (line, column) = (at.line() as usize, at.column() as usize);
    Place::File { path: path.clone(), text: text.clone(), line, column }
}

fn flatten(file: &SourceFile, path: &[String], entries: Vec<Entry>, out: &mut Vec<Setting>) {
    for (key, node) in entries {
        let path: Vec<String> = path.iter().cloned().chain([key]).collect();
        let place = place(file, &node.referenced);
        match node.value {
            Node::Map(entries) if !entries.is_empty() => flatten(file, &path, entries, out),
            Node::Map(_) => {
                out.push(Setting { path, value: Value::Object(Default::default()), place })
            }
            Node::Leaf(value) => out.push(Setting { path, value, place }),
        }
    }
}

type Entry = (String, Spanned<Node>);

enum Node {
    Map(Vec<Entry>),
    Leaf(Value),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Leaf(Value::Array(items)))
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Leaf(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Leaf(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Leaf(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(v);
        number
            .map(|n| Node::Leaf(Value::Number(n)))
            .ok_or_else(|| E::custom("infinite numbers and NaN have no place in a configuration"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Leaf(v.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }
}
