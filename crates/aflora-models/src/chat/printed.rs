//! Values as texts where a template writes them: as Python's `str` does where the engine does not,
//! which gives floats no exponent.

use super::json::finite;
use super::limits::{pay, LONGEST_CHAT};
use minijinja::value::ValueKind;
use minijinja::{escape_formatter, Error, ErrorKind, Output, State, Value};
use std::fmt::Write;

/// How deep lists and dictionaries may lie in each other.
const DEPTH: usize = 128;
/// How many values a written one may be of: those of some thousand messages with their tools. A list
/// that holds another twice, and that one a third twice, has more than there is time for.
const VALUES: usize = 1 << 19;

/// Writes what stands between `{{` and `}}`.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match with_floats(value)? {
        Some(text) => {
            pay(state, text.len())?;
            out.write_str(&text).map_err(Error::from)
        }
        None => escape_formatter(out, state, value),
    }
}

/// The filter `string`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value.clone());
    }
    let text = with_floats(value)?.unwrap_or_else(|| value.to_string());
    pay(state, text.len())?;
    Ok(text.into())
}

/// The text of a value that is or holds a float; none of another.
fn with_floats(value: &Value) -> Result<Option<String>, Error> {
    if !matches!(value.kind(), ValueKind::Number | ValueKind::Seq | ValueKind::Map) {
        return Ok(None);
    }
    let mut printed = Printed { text: String::new(), floats: false, values: 0 };
    printed.value(value, 0)?;
    Ok(printed.floats.then_some(printed.text))
}

struct Printed {
    text: String,
    /// Whether there was a float.
    floats: bool,
    values: usize,
}

impl Printed {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.values += 1;
        let problem = match () {
            () if depth > DEPTH => Some("a value that is written is nested too deeply"),
            () if self.values > VALUES => Some("a value that is written is of too many others"),
            () if self.text.len() > LONGEST_CHAT => Some("a value that is written is too long"),
            () => None,
        };
        if let Some(problem) = problem {
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        match value.kind() {
            ValueKind::Number if !value.is_integer() => {
                self.floats = true;
                self.text.push_str(&float(value));
            }
            ValueKind::Seq => {
                let tuple = value.is_tuple();
                self.text.push(if tuple { '(' } else { '[' });
                let mut count = 0;
                for item in value.try_iter()? {
                    self.text.push_str(if count > 0 { ", " } else { "" });
                    self.value(&item, depth + 1)?;
                    count += 1;
                }
                self.text.push_str(match (tuple, count) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                });
            }
            ValueKind::Map => {
                self.text.push('{');
                for (i, key) in value.try_iter()?.enumerate() {
                    self.text.push_str(if i > 0 { ", " } else { "" });
                    self.value(&key, depth + 1)?;
                    self.text.push_str(": ");
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.text.push('}');
            }
            // As it stands in a list.
            _ => drop(write!(self.text, "{value:?}")),
        }
        Ok(())
    }
}

fn float(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "nan".into(),
        Ok(number) if number.is_infinite() => if number > 0.0 { "inf" } else { "-inf" }.into(),
        Ok(number) => finite(number),
        Err(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::chat::environment;
    use minijinja::value::Serde;
    use serde_json::json;

    #[test]
    fn floats_are_written_as_python_writes_them_wherever_they_stand() {
        // jinja2.Environment().from_string(…).render(x=1e22, …)
        for (template, expected) in [
            (
                "{{ x }} {{ 0.00001 }} {{ 1.5 }} {{ 3.0 }} {{ 123456789.25 }}",
                "1e+22 1e-05 1.5 3.0 123456789.25",
            ),
            ("{{ y }}", "[1e+22, 1e-05, 1.5, \"it's\", None, True]"),
            ("{{ z }}", "{'a': {'b': [1e+16, 2]}, 'c': 'é'}"),
            ("{{ z.items() | list }}", "[('a', {'b': [1e+16, 2]}), ('c', 'é')]"),
            ("{{ (x,) }} {{ [] }} {{ [1, 'a'] }}", "(1e+22,) [] [1, 'a']"),
            ("{{ x | string | length }} {{ (y | string)[:6] }}", "5 [1e+22"),
            (
                "{{ 'a' | string }} {{ none | string }} {{ none }} {{ [x] | string }}",
                "a None None [1e+22]",
            ),
        ] {
            let environment = environment::new();
            let given = json!({
                "x": 1e22,
                "y": [1e22, 1e-5, 1.5, "it's", null, true],
                "z": { "a": { "b": [1e16, 2] }, "c": "é" },
            });
            assert_eq!(
                environment.render_str(template, Serde(given)).unwrap(),
                expected,
                "{template}"
            );
        }
    }
}
