//! The hub's files: parquet tables with the task's texts and a numeric label.

use super::task::{Columns, TaskSpec};
use super::{DataError, Example};
use aflora_files as files;
use aflora_models::foreign;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::path::Path;

/// Reads one split.
///
/// # Errors
/// The file is no parquet, lacks a column, or holds a label that the task has not.
pub fn read(path: &Path, spec: &TaskSpec) -> Result<Vec<Example>, DataError> {
    let examples = rows(path, |row| example(row, spec))?;
    if examples.is_empty() {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok(examples)
}

/// What a small file may come to: a run of equal rows takes a few bytes there.
const UNPACKED: usize = 1 << 28;

/// What a byte of a file may come to beyond that.
const RATIO: usize = 256;

/// What `parse` makes of each row.
///
/// # Errors
/// The file is no parquet, `parse` refuses a row, or the rows are out of all proportion to the
/// file.
pub(super) fn rows<T>(
    path: &Path,
    mut parse: impl FnMut(&Row) -> Result<T, String>,
) -> Result<Vec<T>, DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_or(0, |m| m.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut left = UNPACKED.saturating_add(length.saturating_mul(RATIO));
    let broken = |problem: String| {
        DataError::file(path, format!("not a readable parquet file ({problem}); get it again"))
    };
    let read = foreign::held(|| {
        let words = |e: parquet::errors::ParquetError| broken(e.to_string());
        let reader = SerializedFileReader::new(file).map_err(words)?;
        let mut all = Vec::new();
        for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(words)?) {
            let row = row.map_err(words)?;
            left = left.checked_sub(size(&row)).ok_or_else(|| {
                broken(format!("it is {length} bytes long and unpacks to far more than that"))
            })?;
            let refused = |problem| DataError::Row { path: path.to_path_buf(), line, problem };
            all.push(parse(&row).map_err(refused)?);
        }
        Ok(all)
    });
    read.unwrap_or_else(|problem| Err(broken(problem)))
}

/// About what a row takes in memory.
fn size(row: &Row) -> usize {
    let text = |field: &Field| match field {
        Field::Str(text) => text.len(),
        _ => 0,
    };
    64 + row.get_column_iter().map(|(_, field)| 32 + text(field)).sum::<usize>()
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
