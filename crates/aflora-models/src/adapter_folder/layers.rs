//! Which layers an `adapter_config.json` means, as PEFT decides it.
//!
//! The tensors in the folder say by themselves which layers have an adapter. But PEFT drops those
//! of a layer that the configuration leaves out, so a folder whose two files contradict each other
//! would compute something else there than here.

use regex::Regex;
use serde_json::{Map, Value};

/// The configuration's choice of layers.
#[derive(Debug)]
pub(super) struct Layers {
    targets: NamedLayers,
    excluded: NamedLayers,
    /// Numbers of the blocks that count, if not all do.
    numbers: Option<Vec<i64>>,
    /// What the blocks' list may be called, such as `layers` or `h`; anything if empty.
    lists: Vec<String>,
}

/// Names, or a regular expression.
#[derive(Debug)]
enum NamedLayers {
    /// Whole names, or endings after a dot.
    Names(Vec<String>),
    /// A regular expression that must match the whole name.
    Pattern(Regex),
    /// Not given; or a regular expression that only Python reads, such as one that looks ahead.
    Unknown,
}

impl NamedLayers {
    fn of(value: Option<&Value>) -> Self {
        match value {
            // PEFT's word for every layer; it writes their names.
            Some(Value::String(text)) if text == "all-linear" => NamedLayers::Unknown,
            Some(Value::String(text)) => {
                let regex = Regex::new(&format!("^(?:{text})$"));
                regex.map_or(NamedLayers::Unknown, NamedLayers::Pattern)
            }
            Some(value @ Value::Array(_)) => NamedLayers::Names(texts(value)),
            _ => NamedLayers::Unknown,
        }
    }

    /// Whether it holds a layer; `None` where nobody can say.
    fn holds(&self, layer: &str) -> Option<bool> {
        match self {
            NamedLayers::Names(names) => Some(names.iter().any(|name| ends(layer, name))),
            NamedLayers::Pattern(regex) => Some(regex.is_match(layer)),
            NamedLayers::Unknown => None,
        }
    }

    fn names_whole(&self, layer: &str) -> bool {
        matches!(self, NamedLayers::Names(names) if names.iter().any(|name| name == layer))
    }
}

impl Layers {
    pub(super) fn of(keys: &Map<String, Value>) -> Self {
        let numbers = match keys.get("layers_to_transform") {
            Some(Value::Number(number)) => number.as_i64().map(|number| vec![number]),
            Some(Value::Array(list)) if !list.is_empty() => {
                Some(list.iter().filter_map(Value::as_i64).collect())
            }
            _ => None,
        };
        let lists = match keys.get("layers_pattern") {
            Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
            Some(list @ Value::Array(_)) => texts(list),
            _ => Vec::new(),
        };
        Layers {
            targets: NamedLayers::of(keys.get("target_modules")),
            excluded: NamedLayers::of(keys.get("exclude_modules")),
            numbers,
            lists,
        }
    }

    /// The key that leaves `layer` out, if one does.
    pub(super) fn leave_out(&self, layer: &str) -> Option<&'static str> {
        if self.excluded.holds(layer) == Some(true) {
            return Some("exclude_modules");
        }
        if self.targets.holds(layer) == Some(false) {
            return Some("target_modules");
        }
        let numbers = self.numbers.as_ref().filter(|_| !self.targets.names_whole(layer))?;
        match self.number(layer).is_some_and(|number| numbers.contains(&number)) {
            true => None,
            false => Some("layers_to_transform"),
        }
    }

    /// The number of a layer's block: the first in its name that stands behind a list of blocks.
    fn number(&self, layer: &str) -> Option<i64> {
        let behind = |list: Option<&String>| {
            let mut dots = layer.match_indices('.').map(|(at, _)| at);
            dots.find_map(|dot| {
                let (before, number) = (&layer[..dot], layer[dot + 1..].split_once('.')?.0);
                let listed = match list {
                    // PEFT wants something before the list's own name.
                    None => before.contains('.'),
                    Some(list) => ends(before, list),
                };
                number.parse().ok().filter(|_| listed)
            })
        };
        match self.lists.is_empty() {
            true => behind(None),
            false => self.lists.iter().find_map(|list| behind(Some(list))),
        }
    }
}

/// Whether a name is, or ends after a dot in, `end`.
fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(String::from).collect()
}
