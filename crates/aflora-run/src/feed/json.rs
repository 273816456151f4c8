//! JSON objects as rows: one a line, or all of them in an array.

use super::lines::Lines;
use super::row::CellValue;
use super::DataError;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;
use std::io::Read;

/// The objects of an array of JSON, one after another.
#[derive(Debug, Default)]
pub(super) struct Elements {
    /// The rest of the line that came last.
    rest: String,
    /// What was read last.
    last: Last,
}

/// What of an array came last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Its beginning.
    #[default]
    Bracket,
    /// An object.
    Object,
    /// A comma.
    Comma,
    /// Its end.
    End,
}

impl Elements {
    /// The elements of an array that begins in `line`; none if it holds no array's beginning.
    pub fn begun_by(line: &str) -> Option<Elements> {
        let rest = line.trim_start().strip_prefix('[')?;
        Some(Elements { rest: rest.to_string(), last: Last::default() })
    }

    /// The next object's text and the line that it begins in; none behind the last.
    ///
    /// # Errors
    /// Something else stands there, the file ends within the array, or goes on behind it.
    pub fn next<R: Read>(
        &mut self,
        lines: &mut Lines<R>,
    ) -> Result<Option<(usize, String)>, DataError> {
        loop {
            let rest = self.rest.trim_start();
            let at = lines.number();
            let Some(first) = rest.chars().next() else {
                lines.end_row();
                match (lines.next()?, self.last) {
                    (Some(line), _) => self.rest = line,
                    (None, Last::End) => return Ok(None),
                    (None, _) => return Err(lines.problem("the array has no end".into())),
                }
                continue;
            };
            self.last = match (first, self.last) {
                (',', Last::Object) => Last::Comma,
                (']', Last::Object | Last::Bracket) => Last::End,
                ('{', Last::Bracket | Last::Comma) => {
                    self.rest = rest.to_string();
                    self.last = Last::Object;
                    return self.object(lines).map(|text| Some((at, text)));
                }
                (_, Last::End) => {
                    return Err(lines.problem("something stands behind the array's end".into()))
                }
                (_, Last::Object) => {
                    return Err(lines.problem("no comma behind an object of the array".into()))
                }
                _ => {
                    let words = "the array holds something other than objects, such as \
                                 {\"text\": \"…\", \"label\": \"…\"}";
                    return Err(lines.problem(words.into()));
                }
            };
            self.rest = rest[first.len_utf8()..].to_string();
        }
    }

    /// The text of the object that the rest begins with.
    fn object<R: Read>(&mut self, lines: &mut Lines<R>) -> Result<String, DataError> {
        let begun = lines.number();
        let mut text = String::new();
        let (mut depth, mut quoted, mut escaped) = (0, false, false);
        loop {
            for (at, c) in self.rest.char_indices() {
                match (quoted, c) {
                    (true, _) if escaped => escaped = false,
                    (true, '\\') => escaped = true,
                    (_, '"') => quoted = !quoted,
                    (false, '{' | '[') => depth += 1,
                    (false, '}' | ']') => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    let end = at + c.len_utf8();
                    text.push_str(&self.rest[..end]);
                    self.rest.drain(..end);
                    return Ok(text);
                }
            }
            text.push_str(&self.rest);
            self.rest = lines.next()?.ok_or_else(|| {
                lines.problem_at(begun, "an object begins here and never ends".into())
            })?;
        }
    }
}

/// The names and values of an object's text; or its line, counted from 0, and what is wrong there.
pub(super) fn fields(text: &str) -> Result<Fields, (usize, String)> {
    let parsed = serde_json::from_str(text);
    // What is wrong is told of the text as it stands.
    let parsed = parsed.or_else(|error| serde_json::from_str(&standard(text)).or(Err(error)));
    parsed.map_err(|error| {
        let words = error.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        let column = error.column();
        let words = super::short(words);
        (error.line().saturating_sub(1), format!("no JSON object, column {column}: {words}"))
    })
}

/// JSON without the numbers that Python writes and JSON has not: null in place of each.
fn standard(json: &str) -> String {
    const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let mut out = String::with_capacity(json.len());
    let (mut rest, mut quoted) = (json, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !quoted && rest.starts_with(**word));
        let length = match (word, c) {
            (Some(word), _) => word.len(),
            // An escape and the character that it is of.
            (None, '\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, c) => c.len_utf8(),
        };
        quoted ^= c == '"';
        out.push_str(if word.is_some() { "null" } else { &rest[..length] });
        rest = &rest[length..];
    }
    out
}

/// The names and values of a JSON object, in its order.
pub(super) struct Fields(pub Vec<String>, pub Vec<CellValue>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut names, mut cells) = (Vec::new(), Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    names.push(name);
                    cells.push(CellValue::Json(value));
                }
                Ok(Fields(names, cells))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
