//! JSON as Python reads and writes it, which has three numbers more: `NaN`, `Infinity` and
//! `-Infinity`.
//!
//! [`Value`] has no place for them, so each stands as a text that no file holds otherwise, and is
//! written as the number again. A byte order mark before a file is skipped, as editors on Windows
//! leave one.

use crate::{foreign_file, model_file, Error, Result};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::Path;

const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// What begins the text that stands for one of [`NUMBERS`].
const MARK: char = '\0';

/// The keys of the JSON object in a file, such as a model's config.json.
///
/// # Errors
/// The file cannot be read, or holds something else; what it is is said where it is known.
pub(crate) fn read_object(path: &Path, what: &str) -> Result<Map<String, Value>> {
    let problem = |problem: String| Error::Config { path: path.to_path_buf(), problem };
    let bytes = model_file::read(path)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let foreign = foreign_file::what(error.as_bytes());
            return Err(problem(format!("not {what}: {}", foreign.unwrap_or("it is no UTF-8"))));
        }
    };
    serde_json::from_str(&plain(&text)).map_err(|e| {
        let reason = match foreign_file::what(text.as_bytes()) {
            Some(foreign) => foreign.to_string(),
            None => e.to_string(),
        };
        problem(format!("not {what}: {reason}"))
    })
}

/// [`read_object`], [tidied](tidy).
///
/// # Errors
/// Those of [`read_object`].
pub(crate) fn read_tidy(path: &Path, what: &str) -> Result<Map<String, Value>> {
    let mut keys = read_object(path, what)?;
    keys.values_mut().for_each(tidy);
    Ok(keys)
}

/// [`read_tidy`] of a file that need not be there; no keys without it.
///
/// # Errors
/// As there: a file that cannot be read is not taken for none.
pub(crate) fn read_if_any(path: &Path, what: &str) -> Result<Map<String, Value>> {
    match read_tidy(path, what) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Map::new()),
        read => read,
    }
}

/// Text for a file, on several lines.
pub(crate) fn to_text(keys: &Map<String, Value>) -> String {
    let mut text = serde_json::to_string_pretty(keys).unwrap_or_default();
    for number in NUMBERS {
        text = text.replace(&format!("\"\\u0000{number}\""), number);
    }
    text
}

/// `text` with its further numbers as texts.
fn plain(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let upto = rest.find(['"', '-', 'I', 'N']).unwrap_or(rest.len());
        plain.push_str(&rest[..upto]);
        rest = &rest[upto..];
        if rest.is_empty() {
            return plain;
        }
        if let Some(number) = NUMBERS.iter().find(|number| rest.starts_with(**number)) {
            plain.push_str(&format!("\"\\u0000{number}\""));
            rest = &rest[number.len()..];
        } else {
            let end = if rest.starts_with('"') { end_of_text(rest) } else { 1 };
            plain.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
}

/// Bytes of the quoted text that `rest` begins with.
fn end_of_text(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// Makes a value easier to take for readers of single keys: a whole number that was written with a
/// point (`64.0`) is one, and the further numbers bear their names.
pub(crate) fn tidy(value: &mut Value) {
    /// Up to here, every whole number is a float of its own.
    const EXACT: f64 = (1_i64 << 53) as f64;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= EXACT);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        Value::String(text) if text.starts_with(MARK) => {
            text.remove(0);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Object(keys) => keys.values_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Map<String, Value>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, bytes).unwrap();
        read_object(&path, "a Hugging Face config.json")
    }

    #[test]
    fn pythons_further_numbers_and_a_byte_order_mark_are_read_and_written_again() {
        let text = "\u{feff}{\"a\":[NaN,-Infinity,Infinity,-1.5],\"b\":\"NaN \\\"Infinity\",\"c\":\"\\\\\"}";
        let keys = read(text.as_bytes()).unwrap();
        assert_eq!(keys["b"], "NaN \"Infinity");
        assert_eq!(keys["c"], "\\");
        assert_eq!(keys["a"][3], -1.5);
        let again: String = to_text(&keys).split_whitespace().collect();
        assert!(again.contains("\"a\":[NaN,-Infinity,Infinity,-1.5]"), "{again}");
        let mut tidied = Value::from(keys);
        tidy(&mut tidied);
        assert_eq!(tidied["a"][1], "-Infinity");
    }

    #[test]
    fn a_whole_number_with_a_point_is_whole() {
        let mut value = serde_json::json!({ "a": 64.0, "b": [1e30, 0.5, -1.0], "c": 7 });
        tidy(&mut value);
        assert_eq!(value, serde_json::json!({ "a": 64, "b": [1e30, 0.5, -1], "c": 7 }));
    }

    #[test]
    fn a_file_that_is_something_else_is_called_what_it_is() {
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 570\n";
        for (bytes, expected) in [
            (&lfs[..], "it is a Git-LFS pointer"),
            (b"  <!DOCTYPE html><title>Sign in</title>", "it is a web page (HTML)"),
            (b"", "it is empty"),
            (b"\x1f\x8b\x08\xff\xff", "it is compressed with gzip"),
            (b"\xff\xfe{", "it is no UTF-8"),
            (b"{\"a\": nan}", "expected"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains("not a Hugging Face config.json: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
