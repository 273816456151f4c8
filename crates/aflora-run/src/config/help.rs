//! The texts that follow from the [keys](super::keys): the table of `aflora keys`, and the
//! commented run file.

use super::keys::KEYS;
use super::schema::Key;
use serde_json::Value;
use std::fmt::Write;

/// The widest line.
const WIDTH: usize = 98;
/// Where the run file's comments begin.
const COMMENTS: usize = 30;

/// Every key with its values and default, and on the next line what it does.
///
/// Keys of blocks stand as they are typed; a heading names the method that knows them.
pub fn table() -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS.iter() {
        let heading = heading(&key.name);
        if heading != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{heading}");
            section = heading;
        }
        let default = default_of(key).map_or(String::new(), |d| format!(" [{d}]"));
        let _ = writeln!(out, "  {}: {}{default}", key.typed(), key.takes);
        for line in wrap(&key.about, WIDTH - 6) {
            let _ = writeln!(out, "      {line}");
        }
    }
    out
}

/// The group that a key belongs to, as the table heads it.
fn heading(name: &str) -> &str {
    match name.split('.').collect::<Vec<_>>()[..] {
        ["method", method, ..] => method,
        [block @ ("task" | "model"), _, ..] => block,
        _ => "every run",
    }
}

/// The default of a key in words, if it has one.
fn default_of(key: &Key) -> Option<String> {
    match &key.default {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(group) if group.is_empty() => None,
        other => Some(other.to_string()),
    }
}

/// The run file that ships, with every key of a run as a comment: `configs/experiment.yaml`.
pub fn run_file() -> String {
    let mut out = include_str!("run_file.yaml").to_string();
    let own = KEYS.iter().filter(|key| heading(&key.name) == "every run");
    let own: Vec<&Key> = own.skip_while(|key| key.section.is_none()).collect();
    let group = |key: &Key| key.name.split_once('.').map(|(group, _)| group.to_string());
    for keys in own.chunk_by(|a, b| group(a).is_some() && group(a) == group(b)) {
        if let Some(section) = &keys[0].section {
            let head = format!("# --- {section} ");
            let _ = writeln!(out, "\n{head:-<WIDTH$}\n");
        }
        let value = |key: &Key| default_of(key).unwrap_or_else(|| "null".into());
        let (line, about) = match (group(keys[0]), keys) {
            (Some(group), _) => {
                let last = |key: &Key| key.name[group.len() + 1..].to_string();
                let values = keys.iter().map(|key| format!("{}: {}", last(key), value(key)));
                let abouts = keys.iter().map(|key| format!("{}: {}", last(key), key.about));
                let values = values.collect::<Vec<_>>().join(", ");
                (format!("{group}: {{{values}}}"), abouts.collect::<Vec<_>>().join("; "))
            }
            (None, [key, ..]) => (format!("{}: {}", key.name, value(key)), key.about.clone()),
            (None, []) => continue,
        };
        // What makes a run another one stands there as a value, all else as a comment.
        let mark = if keys[0].name == "seed" { "" } else { "# " };
        let line = format!("{mark}{line}");
        let mut words = wrap(&about, WIDTH - COMMENTS - 3).into_iter();
        // A long value has its words below.
        let beside = if line.len() < COMMENTS { words.next() } else { None };
        let _ = match beside {
            Some(words) => writeln!(out, "{line:COMMENTS$} # {words}"),
            None => writeln!(out, "{line}"),
        };
        for rest in words {
            let _ = writeln!(out, "{:COMMENTS$} # {rest}", "#");
        }
    }
    out
}

/// `text` in lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_keys_as_they_are_typed_with_their_defaults() {
        let text = table();
        for part in [
            "\naflora\n",
            "  method.freeze.rule: ",
            " [element_quantile]\n",
            "  seed: number [42]\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_shipped_run_file_says_what_the_settings_declare() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/experiment.yaml");
        let shipped = std::fs::read_to_string(path).unwrap();
        let right = "write it anew: aflora keys --run-file > configs/experiment.yaml";
        assert_eq!(shipped, run_file(), "{right}");
    }
}
