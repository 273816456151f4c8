//! The filter `tojson` as transformers has it: Python's `json.dumps`, without escapes for HTML.

use super::limits::pay;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// How deep lists and objects may lie in each other.
const DEPTH: usize = 128;

/// How JSON is laid out.
struct Layout {
    ensure_ascii: bool,
    /// What a level of nesting is indented by; none: all on one line.
    indent: Option<String>,
    /// What stands between items, and between a key and its value.
    separators: [String; 2],
    sort_keys: bool,
}

/// `value` as JSON, by the arguments that Python's function has.
pub(super) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => match (usize::try_from(indent.clone()), indent.as_str()) {
            (Ok(spaces), _) => Some(" ".repeat(spaces.min(64))),
            (_, Some(text)) => Some(text.to_string()),
            _ => return Err(refused("`indent` is a number or a text")),
        },
    };
    let separators: Option<Value> = options.get("separators")?;
    let separators = match separators.filter(|separators| !separators.is_none()) {
        None if indent.is_some() => [",".into(), ": ".into()],
        None => [", ".into(), ": ".into()],
        Some(given) => {
            let given: Vec<Value> = given.try_iter()?.take(3).collect();
            match &given[..] {
                [items, keys] => [items.to_string(), keys.to_string()],
                _ => return Err(refused("`separators` are two texts")),
            }
        }
    };
    let flag = |name| options.get::<Option<bool>>(name).map(|flag| flag.unwrap_or(false));
    let (ensure_ascii, sort_keys) = (flag("ensure_ascii")?, flag("sort_keys")?);
    options.assert_all_used()?;
    let mut writer = Writer {
        state,
        layout: Layout { ensure_ascii, indent, separators, sort_keys },
        text: String::new(),
        paid: 0,
    };
    writer.value(value, 0)?;
    Ok(writer.text)
}

fn refused(words: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {words}"))
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    layout: Layout,
    text: String,
    /// Bytes of the text that are paid for.
    paid: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(refused("the value is nested too deeply"));
        }
        pay(self.state, self.text.len() - self.paid)?;
        self.paid = self.text.len();
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                self.list(['[', ']'], items, depth, |writer, item| writer.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.layout.sort_keys {
                    keys.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                }
                self.list(['{', '}'], keys.into_iter(), depth, |writer, key| {
                    match key.kind() {
                        ValueKind::String => writer.string(key.as_str().unwrap_or_default()),
                        ValueKind::Bool | ValueKind::None => {
                            let word = key.to_string().to_lowercase();
                            writer.string(if word == "none" { "null" } else { &word });
                        }
                        ValueKind::Number => writer.string(&number(&key)),
                        kind => return Err(refused(&format!("a key is of the kind {kind}"))),
                    }
                    let between = writer.layout.separators[1].clone();
                    writer.text.push_str(&between);
                    writer.value(&value.get_item(&key)?, depth + 1)
                })?;
            }
            kind => return Err(refused(&format!("a value of the kind {kind} is no JSON"))),
        }
        Ok(())
    }

    fn list<T>(
        &mut self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = T>,
        depth: usize,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        let mut empty = true;
        for item in items {
            if !empty {
                let between = self.layout.separators[0].clone();
                self.text.push_str(&between);
            }
            empty = false;
            self.line(depth + 1);
            write(self, item)?;
        }
        if !empty {
            self.line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    /// Goes on in a new line, where there are several.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.layout.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || (self.layout.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// A number as Python writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// A float as Python's JSON writes it.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    finite(number)
}

/// A finite float as Python writes it: with an exponent from 1e16 on and below 1e-4.
pub(super) fn finite(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let golden = include_str!("../../tests/fixtures/chat.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        for case in golden["numbers"].as_array().unwrap() {
            assert_eq!(float(case[0].as_f64().unwrap()), case[1].as_str().unwrap());
        }
    }
}
