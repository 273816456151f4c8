//! What Python's values do in templates, and those of the engine do not or do otherwise: methods,
//! and tests of what a value is.

use super::limits::pay;
use minijinja::value::{from_args, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Adds it all.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
}

/// Whether a value has a length and elements, as texts and dictionaries have too.
fn is_sequence(value: &Value) -> bool {
    is_iterable(value) && (value.is_undefined() || value.len().is_some())
}

/// Whether one can go through a value: texts, too, and what is not defined, which is empty; nothing
/// (`none`) is not.
fn is_iterable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String
            | ValueKind::Seq
            | ValueKind::Map
            | ValueKind::Iterable
            | ValueKind::Undefined
    )
}

/// Methods of texts, lists and dictionaries.
fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.kind(), value.as_str(), method) {
        (_, Some(between), "join") => {
            let (items,): (&Value,) = from_args(arguments)?;
            join(state, between, items)
        }
        (_, Some(text), "rsplit") => {
            let (at, most): (Option<&str>, Option<i64>) = from_args(arguments)?;
            rsplit(text, at, most)
        }
        (_, Some(text), "partition" | "rpartition") => {
            let (at,): (&str,) = from_args(arguments)?;
            let first = method == "partition";
            let found = if first { text.split_once(at) } else { text.rsplit_once(at) };
            Ok(Value::from_iter(match found {
                Some((before, behind)) => [before, at, behind],
                None if first => [text, "", ""],
                None => ["", "", text],
            }))
        }
        (_, Some(text), "removeprefix") => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        (_, Some(text), "removesuffix") => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        (_, Some(text), "index") => {
            let (part,): (&str,) = from_args(arguments)?;
            let at = text.find(part).ok_or_else(|| refused("index: the text has no such part"))?;
            Ok(text[..at].chars().count().into())
        }
        (ValueKind::Seq, _, "index") => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let at = value.try_iter()?.position(|item| item == *wanted);
            at.map(Value::from).ok_or_else(|| refused("index: the list has no such item"))
        }
        (ValueKind::Map, _, "copy") => {
            let () = from_args(arguments)?;
            Ok(value.clone())
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn refused(words: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, words.to_string())
}

/// `text.rsplit(at, most)`: at most so many cuts, from the end on.
fn rsplit(text: &str, at: Option<&str>, most: Option<i64>) -> Result<Value, Error> {
    let parts = usize::try_from(most.unwrap_or(-1)).unwrap_or(usize::MAX - 1) + 1;
    let mut found: Vec<&str> = match at {
        Some("") => return Err(refused("rsplit: the text between must not be empty")),
        Some(at) => text.rsplitn(parts, at).collect(),
        None => {
            let (mut found, mut rest) = (Vec::new(), text.trim());
            while found.len() + 1 < parts {
                let Some(space) = rest.rfind(char::is_whitespace) else { break };
                found.push(rest[space..].trim_start());
                rest = rest[..space].trim_end();
            }
            found.extend((!rest.is_empty()).then_some(rest));
            found
        }
    };
    found.reverse();
    Ok(Value::from_iter(found))
}

/// `between.join(items)`. The library's own takes memory for the items that nothing bounds: a short
/// list may name one long text a million times.
fn join(state: &State, between: &str, items: &Value) -> Result<Value, Error> {
    let mut text = String::new();
    for (place, item) in items.try_iter()?.enumerate() {
        let item = item.as_str().ok_or_else(|| {
            let problem = format!("join: the item {place} is of the kind {}, no text", item.kind());
            Error::new(ErrorKind::InvalidOperation, problem)
        })?;
        pay(state, between.len() + item.len())?;
        if place > 0 {
            text.push_str(between);
        }
        text.push_str(item);
    }
    Ok(Value::from(text))
}
