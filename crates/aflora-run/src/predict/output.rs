//! Rows with their answers, as lines of JSON or as a table.

use crate::feed::row::{CellValue, Row};
use crate::usage;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::io::Write;

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Comma-separated values under a header.
    Csv,
    /// Tab-separated values under a header, without quotes.
    Tsv,
    /// JSON objects, one a line.
    Jsonl,
}

/// What rows with their answers are written to.
pub struct Writer<'a> {
    to: &'a mut dyn Write,
    format: OutputFormat,
    /// Whether somebody looks at it: then it does nothing to their terminal.
    terminal: bool,
    /// Of a table, which the first row decides.
    columns: Option<Vec<String>>,
    /// What a table has columns for beside those of its first row.
    further: Vec<String>,
}

impl<'a> Writer<'a> {
    /// Nothing is written yet.
    pub fn new(to: &'a mut dyn Write, format: OutputFormat, terminal: bool) -> Self {
        Writer { to, format, terminal, columns: None, further: Vec::new() }
    }

    /// Has a table have these columns, too, where its first row has them not.
    pub fn make_room(&mut self, names: Vec<String>) {
        self.further = names;
    }

    /// Writes a row and its answers, under these names.
    ///
    /// # Errors
    /// It cannot be written, or has no place in a table.
    pub fn row(&mut self, row: &Row, names: &[String], answers: &[Value]) -> Result<()> {
        if self.format == OutputFormat::Jsonl {
            let line = serde_json::to_string(&Answered { row, names, answers })?;
            return self.line(&aflora_files::printable_json(&line));
        }
        let mut cells: Vec<(&str, String)> =
            row.cells().map(|(name, cell)| (name, text_of_cell(cell))).collect();
        cells.extend(names.iter().map(String::as_str).zip(answers.iter().map(text)));
        let columns = match self.columns.take() {
            Some(columns) => columns,
            None => {
                let mut columns: Vec<String> =
                    cells.iter().map(|(name, _)| name.to_string()).collect();
                for name in std::mem::take(&mut self.further) {
                    if !columns.contains(&name) {
                        columns.push(name);
                    }
                }
                self.record(row.line, columns.iter().map(String::as_str))?;
                columns
            }
        };
        let has_column = |name: &str| columns.iter().any(|column| column == name);
        if let Some((name, _)) = cells.iter().find(|(name, _)| !has_column(name)) {
            usage!(
                "line {}: the first row has no `{name}`, so that the table has no column for it; \
                 ask for --output-format jsonl",
                row.line
            );
        }
        let cell = |column: &String| {
            let found = cells.iter().find(|(name, _)| *name == column.as_str());
            found.map_or("", |(_, text)| text.as_str())
        };
        self.record(row.line, columns.iter().map(cell))?;
        self.columns = Some(columns);
        Ok(())
    }

    /// Hands on what was written so far, for whoever waits for it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.to.flush().context("the predictions cannot be written")
    }

    fn record<'c>(&mut self, line: usize, cells: impl Iterator<Item = &'c str>) -> Result<()> {
        let cells: Vec<String> = match self.format {
            OutputFormat::Tsv => {
                let cells: Vec<String> = cells.map(String::from).collect();
                if cells.iter().any(|cell| cell.contains(['\t', '\n', '\r'])) {
                    usage!(
                        "line {line}: a tab or an end of line in a cell, which no .tsv file holds; \
                         ask for --output-format csv or jsonl"
                    );
                }
                cells
            }
            _ => cells.map(quoted).collect(),
        };
        let separator = if self.format == OutputFormat::Tsv { "\t" } else { "," };
        let record = cells.join(separator);
        match self.terminal {
            true => self.line(&aflora_files::printable(&record)),
            false => self.line(&record),
        }
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}").context("the predictions cannot be written")
    }
}

/// A cell of a CSV file, in quotes where it needs them (RFC 4180).
fn quoted(cell: &str) -> String {
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_string(),
    }
}

/// A row's own value in a table: a text as it is, all else as JSON.
fn text_of_cell(cell: &CellValue) -> String {
    match cell {
        CellValue::Text(text) => text.clone(),
        CellValue::Json(value) => match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => text,
            Ok(Value::Null) => String::new(),
            // Its digits as they stand.
            _ => value.get().to_string(),
        },
    }
}

/// An answer in a table: a text as it is, all else as JSON.
fn text(answer: &Value) -> String {
    match answer {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A row with what is added to it.
struct Answered<'a> {
    row: &'a Row,
    names: &'a [String],
    answers: &'a [Value],
}

impl Serialize for Answered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
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
