//! The hub's files: parquet tables with the task's texts and a numeric label.

use super::task::{Columns, TaskSpec};
use super::{DataError, Example};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::fs::File;
use std::path::Path;

/// Reads one split.
///
/// # Errors
/// The file is no parquet, lacks a column, or holds a label that the task has not.
pub fn read(path: &Path, spec: &TaskSpec) -> Result<Vec<Example>, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let broken = |e: parquet::errors::ParquetError| {
        DataError::file(path, format!("not a readable parquet file ({e}); get it again"))
    };
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let mut examples = Vec::new();
    for (index, row) in reader.get_row_iter(None).map_err(broken)?.enumerate() {
        let row = row.map_err(broken)?;
        let example = example(&row, spec).map_err(|problem| DataError::Row {
            path: path.to_path_buf(),
            line: index + 1,
            problem,
        })?;
        examples.push(example);
    }
    if examples.is_empty() {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok(examples)
}

fn example(row: &Row, spec: &TaskSpec) -> Result<Example, String> {
    let field = |name: &str| {
        let found = row.get_column_iter().find(|(column, _)| *column == name);
        found.map(|(_, field)| field).ok_or_else(|| format!("there is no column `{name}`"))
    };
    let text = |name: &str| match field(name)? {
        Field::Str(text) => Ok(text.clone()),
        other => Err(format!("column `{name}` holds {other}, but must hold text")),
    };
    let Columns { text_a, text_b, label } = spec.hub;
    let number = match field(label)? {
        Field::Long(n) => *n as f64,
        Field::Int(n) => f64::from(*n),
        Field::Float(x) => f64::from(*x),
        Field::Double(x) => *x,
        other => return Err(format!("column `{label}` holds {other}, but must hold a number")),
    };
    Ok(Example {
        text_a: text(text_a)?,
        text_b: text_b.map(text).transpose()?,
        label: spec.labels.number(number)?,
    })
}
