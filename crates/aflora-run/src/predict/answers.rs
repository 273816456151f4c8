//! What is added to a row, under names that the row has not.

use crate::feed::table::Row;
use crate::task::{Kind, TaskSpec};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The names of what is added.
#[derive(Debug)]
pub struct Names(&'static [&'static str]);

impl Names {
    /// Those that stand free in `row`: the short ones, or with `predicted_` before each.
    pub fn beside(task: &TaskSpec, row: &Row) -> Names {
        let (short, long): (&[&str], &[&str]) = match task.kind {
            Kind::Score => (&["score"], &["predicted_score"]),
            Kind::Classify => (&["label", "scores"], &["predicted_label", "predicted_scores"]),
            Kind::Write => (&["prediction"], &["predicted_text"]),
        };
        let taken = short.iter().any(|name| row.has(name));
        Names(if taken { long } else { short })
    }

    /// Whether they are free in a further row.
    ///
    /// # Errors
    /// One is taken.
    pub fn check(&self, row: &Row) -> Result<(), String> {
        match self.0.iter().find(|name| row.has(name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "the row has a `{name}` of its own, where the prediction's would stand; rename it, \
                 or let the first row have it too"
            )),
        }
    }

    /// All of them.
    pub fn all(&self) -> &'static [&'static str] {
        self.0
    }
}

/// A row with what is added to it.
pub struct Output<'a> {
    pub row: &'a Row,
    pub names: &'a [&'a str],
    pub answers: &'a [Value],
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, cell) in self.row.cells() {
            map.serialize_entry(name, cell)?;
        }
        for (name, answer) in self.names.iter().zip(self.answers) {
            map.serialize_entry(name, answer)?;
        }
        map.end()
    }
}
