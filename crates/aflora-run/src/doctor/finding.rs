//! What was found of one thing.

use aflora_files::printable_line;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// How well a thing serves runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Good,
    /// It is not, or not whole: runs work, but not all of them, or slower.
    Less,
    /// A run with default settings cannot work.
    Missing,
}

/// What was found of one thing.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Of what.
    pub of: &'static str,
    /// How well it serves.
    pub state: State,
    /// In words; one line, safe for a terminal.
    pub found: String,
    /// What to do where it does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The same in numbers and names; bytes where it is memory or a disk.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
}

impl Finding {
    fn new(of: &'static str, state: State, found: &str, remedy: Option<String>) -> Self {
        let found = printable_line(found).into_owned();
        Finding { of, state, found, remedy, values: Map::new() }
    }

    /// It is there.
    pub(super) fn good(of: &'static str, found: impl AsRef<str>) -> Self {
        Self::new(of, State::Good, found.as_ref(), None)
    }

    /// Runs work without it, and `remedy` says how to have it.
    pub(super) fn less(
        of: &'static str,
        found: impl AsRef<str>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(of, State::Less, found.as_ref(), Some(remedy.into()))
    }

    /// No run works without it, and `remedy` says how to have it.
    pub(super) fn missing(
        of: &'static str,
        found: impl AsRef<str>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(of, State::Missing, found.as_ref(), Some(remedy.into()))
    }

    /// The same, with a value.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }
}

/// A path as a value.
pub(super) fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// Bytes for people, in powers of 1000.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}
