//! YAML of any shape, as it stands in a text.
//!
//! serde-saphyr reads text into whatever asks for it, and tells places to [`Spanned`]. [`Node`]
//! asks for anything, and keeps what would otherwise end the reading at the first mistake: keys
//! that stand twice, numbers that are none.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};
use std::fmt;

/// Reads one YAML document; `None` if the text is empty.
///
/// # Errors
/// The text is no YAML, holds a second document, or is nested too deeply.
pub fn parse(text: &str) -> Result<Option<Spanned<Node>>, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
        // Deeper than any configuration, and shallow enough for any thread's stack.
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 100_000 },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The error in words, without the place, which is shown beside them.
pub fn cause(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document begins here".into(),
        serde_saphyr::Error::NullIntoString { .. } => "a key is null".into(),
        other => other.to_string().split(" at line ").next().unwrap_or_default().to_string(),
    }
}

/// A key and its value, each with where it stands in the text.
pub type KeyValue = (Spanned<String>, Spanned<Node>);

/// Any YAML.
pub enum Node {
    /// A mapping; keys may stand twice.
    Map(Vec<KeyValue>),
    /// A list.
    List(Vec<Node>),
    /// Anything else.
    Value(Value),
    /// A value that no setting can have, and why.
    Refused(&'static str),
}

impl Node {
    /// The value, without where it stands in the text.
    ///
    /// # Errors
    /// A value in it is one that no setting can have; the error says why.
    pub fn into_value(self) -> Result<Value, &'static str> {
        match self {
            Node::Value(value) => Ok(value),
            Node::Refused(why) => Err(why),
            Node::List(items) => items.into_iter().map(Node::into_value).collect(),
            Node::Map(entries) => {
                entries.into_iter().map(|(k, v)| Ok((k.value, v.value.into_value()?))).collect()
            }
        }
    }
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
        Ok(Node::List(items))
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(v);
        let refused = Node::Refused("NaN and infinite numbers have no place in a configuration");
        Ok(number.map_or(refused, |n| Node::Value(Value::Number(n))))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Value(Value::Null))
    }
}
