//! YAML as a flat list of settings, each with its path of keys, its value and its place.

use super::problem::{Problem, SourceSpan, SourceText, COMMAND_LINE};
use super::yaml::{self, KeyValue, Node};
use serde_json::Value;
use serde_saphyr::Location;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// One value under its path of keys.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The keys from the root.
    pub path: Vec<String>,
    /// Where each of the keys stands.
    pub keys: Vec<SourceSpan>,
    /// The value: anything but a mapping with keys in it.
    pub value: Value,
    /// Where the value stands.
    pub span: SourceSpan,
}

impl Setting {
    /// The setting below `key`, with that key taken off; `None` if it stands elsewhere.
    pub fn below(&self, key: &str) -> Option<Setting> {
        let (first, path) = self.path.split_first()?;
        if first != key || path.is_empty() {
            return None;
        }
        Some(Setting { path: path.to_vec(), keys: self.keys[1..].to_vec(), ..self.clone() })
    }

    /// The path with dots.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// The most bytes of a YAML file: a hundred times the longest here.
const MOST: u64 = 1 << 20;

/// Reads a YAML file; what is wrong with it goes to `problems`.
///
/// `None` if it cannot be read or is no YAML at all.
pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<Vec<Setting>> {
    let name = path.display().to_string();
    match aflora_files::read_text_at_most(path, MOST) {
        Ok(text) => read_text(name, text, problems),
        Err(error) => {
            problems.push(Problem::at(None, format!("cannot read {name}: {error}")));
            None
        }
    }
}

/// [`read`] of a text that is at hand.
pub fn read_text(name: String, text: String, problems: &mut Vec<Problem>) -> Option<Vec<Setting>> {
    let source = Arc::new(SourceText { name, text });
    Reader { source: &source, from: 0, problems, settings: Vec::new() }.read(&[])
}

/// Reads an override as typed: `key.path=value`, the value in YAML.
pub fn read_override(typed: &str, problems: &mut Vec<Problem>) -> Option<Vec<Setting>> {
    let source = Arc::new(SourceText { name: COMMAND_LINE.into(), text: typed.to_string() });
    let Some((keys, _)) = typed.split_once('=') else {
        let problem = Problem::at(SourceSpan::new(&source, 0..typed.len()), "this sets nothing");
        problems.push(problem.help("write `key=value`, such as `epochs=3`"));
        return None;
    };
    let mut path = Vec::new();
    let mut start = 0;
    for key in keys.split('.') {
        path.push((key.trim().to_string(), SourceSpan::new(&source, start..start + key.len())));
        start += key.len() + 1;
    }
    if path.iter().any(|(key, _)| key.is_empty()) {
        let problem = Problem::at(SourceSpan::new(&source, 0..keys.len()), "a key is empty");
        problems.push(problem.help("write `key=value` or `block.key=value`"));
        return None;
    }
    let mut reader = Reader { source: &source, from: start, problems, settings: Vec::new() };
    match sign(&typed[start..]) {
        Some(sign) => {
            let span = SourceSpan::new(&source, start..typed.len());
            reader.setting(path, span, Node::Value(sign.into()));
            Some(reader.settings)
        }
        None => reader.read(&path),
    }
}

/// A value that is one character and neither letter, digit nor YAML's null: meant as it stands,
/// whatever YAML begins with it (`|`, `#`, `-`).
fn sign(typed: &str) -> Option<&str> {
    let mut characters = typed.chars();
    let one = characters.next().filter(|c| !c.is_alphanumeric() && *c != '~')?;
    (characters.next().is_none() && one != '\n').then_some(typed)
}

/// A key of a setting's path, with where it stands.
type PathKey = (String, SourceSpan);

struct Reader<'a> {
    source: &'a Arc<SourceText>,
    /// Where the YAML starts in the source.
    from: usize,
    problems: &'a mut Vec<Problem>,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    /// The settings of the source, all below `path`.
    fn read(mut self, path: &[PathKey]) -> Option<Vec<Setting>> {
        let end = SourceSpan::new(self.source, self.from..self.source.text.len());
        let (node, span) = match yaml::parse(&self.source.text[self.from..]) {
            Ok(None) => (Node::Value(Value::Null), end),
            Ok(Some(root)) => (root.value, self.span(&root.referenced)),
            Err(error) => {
                let span = error.location().map_or(end, |at| self.span(&at));
                let message = format!("this cannot be read as YAML: {}", yaml::cause(&error));
                let problem = Problem::at(span, message);
                self.problems.push(problem.help("nothing else in this text was checked"));
                return None;
            }
        };
        match node {
            Node::Map(entries) if path.is_empty() => self.entries(path, entries),
            Node::Value(Value::Null) if path.is_empty() => {}
            _ if path.is_empty() => {
                let problem = Problem::at(span, "the file holds no settings");
                self.problems.push(problem.help("write a line `key: value` for each"));
            }
            node => self.setting(path.to_vec(), span, node),
        }
        Some(self.settings)
    }

    fn span(&self, at: &Location) -> SourceSpan {
        let yaml = &self.source.text[self.from..];
        let start = match at.span().byte_offset() {
            Some(offset) => offset as usize,
            // The scanner's own errors tell lines and columns alone.
            None => {
                let before = (at.line() as usize).saturating_sub(1);
                let line: usize = yaml.split_inclusive('\n').take(before).map(str::len).sum();
                let column = (at.column() as usize).saturating_sub(1);
                let chars = yaml.get(line..).unwrap_or_default().chars();
                line + chars.take(column).map(char::len_utf8).sum::<usize>()
            }
        };
        let length = at.span().byte_len().unwrap_or(0) as usize;
        let line = yaml.get(start..).and_then(|rest| rest.lines().next());
        let start = self.from + start;
        // A list or mapping over several lines is shown by its first.
        SourceSpan::new(self.source, start..start + length.min(line.map_or(0, str::len)).max(1))
    }

    fn entries(&mut self, path: &[PathKey], entries: Vec<KeyValue>) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (key, node) in entries {
            let (key_span, span) = (self.span(&key.referenced), self.span(&node.referenced));
            let name = key.value;
            let (line, _) = key_span.line_column();
            if let Some(first) = seen.insert(name.clone(), line) {
                let problem = Problem::at(key_span, format!("`{name}` stands twice"));
                self.problems.push(problem.help(format!("it was set in line {first} already")));
                continue;
            }
            let path = path.iter().cloned().chain([(name, key_span)]).collect();
            self.setting(path, span, node.value);
        }
    }

    fn setting(&mut self, path: Vec<PathKey>, span: SourceSpan, node: Node) {
        match node {
            Node::Map(entries) if !entries.is_empty() => self.entries(&path, entries),
            node => match node.into_value() {
                Ok(value) => {
                    let (path, keys) = path.into_iter().unzip();
                    self.settings.push(Setting { path, keys, value, span });
                }
                Err(why) => self.problems.push(Problem::at(span, why)),
            },
        }
    }
}
