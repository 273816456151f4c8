//! One row of a file, whatever its form.

use super::error::short;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What pandas reads as a missing value where it reads a table, and other programs write for one.
const MISSING: [&str; 20] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "NAN",
];

/// A value of a row.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum CellValue {
    /// A text.
    Text(String),
    /// JSON as it stood in the file: digits that a number type would round are kept.
    Json(Box<RawValue>),
}

impl CellValue {
    fn is_list(&self) -> bool {
        matches!(self, CellValue::Json(value) if value.get().starts_with('['))
    }
}

/// One row: a value for each name.
#[derive(Debug, Clone)]
pub struct Row {
    /// The line that it begins in, from 1.
    pub line: usize,
    names: Arc<[String]>,
    cells: Vec<CellValue>,
}

impl Row {
    /// A row of a table with these names.
    pub(super) fn new(line: usize, names: Arc<[String]>, cells: Vec<CellValue>) -> Self {
        Row { line, names, cells }
    }

    /// The names and values, in the file's order.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &CellValue)> {
        self.names.iter().map(String::as_str).zip(&self.cells)
    }

    /// The names of the values that each row should have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.trim())
    }

    /// Whether there is a value of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    /// The value of that name, if there is one.
    pub fn cell(&self, name: &str) -> Option<&CellValue> {
        self.cells.get(self.names.iter().position(|n| n.trim() == name)?)
    }

    /// Whether there is nothing in it.
    pub fn is_blank(&self) -> bool {
        let blank = |cell: &CellValue| matches!(cell, CellValue::Text(t) if t.trim().is_empty());
        self.cells.iter().all(blank)
    }

    /// Whether the value of that name is a list.
    pub fn is_list(&self, name: &str) -> bool {
        self.cell(name).is_some_and(CellValue::is_list)
    }

    /// The text of that name, if there is one.
    ///
    /// # Errors
    /// There is a value, but no text.
    pub fn find(&self, name: &str) -> Result<Option<String>, String> {
        match self.cell(name) {
            None => Ok(None),
            Some(CellValue::Text(text)) => Ok(Some(text.clone())),
            Some(CellValue::Json(value)) => match serde_json::from_str(value.get()) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(format!("`{name}` is {}, but must be a text", short(value.get()))),
            },
        }
    }

    /// The text of that name.
    ///
    /// # Errors
    /// There is none; the names that there are are told.
    pub fn text(&self, name: &str) -> Result<String, String> {
        let missing = || format!("there is no `{name}`, only {}", self.shown());
        self.find(name)?.ok_or_else(missing)
    }

    /// The text of that name, or its number as it stood in the file.
    ///
    /// # Errors
    /// There is none, or it is neither.
    pub fn label(&self, name: &str) -> Result<String, String> {
        match self.cell(name) {
            Some(CellValue::Json(value)) if value.get().starts_with(plain_json) => {
                Ok(value.get().to_string())
            }
            _ => Ok(self.text(name)?.trim().to_string()),
        }
    }

    /// What stands for a missing value under that name, if such a thing does: nothing, null, or a
    /// text that programs write for it.
    pub fn missing(&self, name: &str) -> Option<&str> {
        match self.cell(name)? {
            CellValue::Text(text) => Some(text.trim()).filter(|text| MISSING.contains(text)),
            CellValue::Json(value) => Some(value.get()).filter(|json| *json == "null"),
        }
    }

    /// The texts or numbers of that name: a list's, or of a text what stands between `separator`s.
    ///
    /// # Errors
    /// There is no value of that name, or it is neither.
    pub fn list(&self, name: &str, separator: char) -> Result<Vec<String>, String> {
        let cell = self.names.iter().zip(&self.cells).find(|(n, _)| n.trim() == name);
        let Some((_, CellValue::Json(value))) = cell.filter(|(_, cell)| cell.is_list()) else {
            let text = self.label(name)?;
            let parts = text.split(separator).map(str::trim).filter(|part| !part.is_empty());
            return Ok(parts.map(String::from).collect());
        };
        let wrong = || format!("`{name}` is {}, but must be a list of texts", short(value.get()));
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
        let text = |item: &RawValue| match item.get().starts_with(plain_json) {
            true => Ok(item.get().to_string()),
            false => serde_json::from_str::<String>(item.get()).map_err(|_| wrong()),
        };
        items.into_iter().map(text).collect()
    }

    /// The names, for a message.
    pub fn shown(&self) -> String {
        short(&format!("{:?}", self.names))
    }

    /// Whether there is a value for each name.
    ///
    /// # Errors
    /// There are fewer or more.
    pub(super) fn whole(&self) -> Result<(), String> {
        match (self.cells.len(), self.names.len()) {
            (found, wanted) if found == wanted => Ok(()),
            (found, wanted) => Err(format!("{found} columns, but the first line has {wanted}")),
        }
    }
}

/// How a number, `true` or `false` begins.
fn plain_json(first: char) -> bool {
    first.is_ascii_digit() || matches!(first, '-' | 't' | 'f')
}
