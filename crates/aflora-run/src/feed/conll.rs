//! Sentences as CoNLL's files have them: a word a line, with what is said of it in further columns
//! between tabs or spaces, and an empty line behind each sentence. A sentence is a row, whose column
//! `1` is the list of its words, `2` the list of what stands behind them, and so on.

use super::lines::{split_end, Lines};
use super::row::{CellValue, Row};
use super::DataError;
use serde_json::value::to_raw_value;
use std::io::Read;

/// What stands alone where a document begins.
const DOCUMENT: &str = "-DOCSTART-";

/// The next sentence; none behind the last.
///
/// # Errors
/// The stream fails, or a line has fewer or more columns than the first of its sentence.
pub(super) fn sentence<R: Read>(lines: &mut Lines<R>) -> Result<Option<Row>, DataError> {
    let (mut begun, mut columns): (usize, Vec<Vec<String>>) = (0, Vec::new());
    while let Some(line) = lines.next()? {
        let content = split_end(&line).0;
        if content.trim().is_empty() || content.starts_with(DOCUMENT) {
            if columns.is_empty() {
                lines.end_row();
                continue;
            }
            break;
        }
        let cells: Vec<&str> = match content.contains('\t') {
            true => content.split('\t').map(str::trim).collect(),
            false => content.split_whitespace().collect(),
        };
        if columns.is_empty() {
            (begun, columns) = (lines.number(), vec![Vec::new(); cells.len()]);
        }
        if cells.len() != columns.len() {
            let (found, wanted) = (cells.len(), columns.len());
            let words = format!("{found} columns, but the sentence's first line has {wanted}");
            return Err(lines.problem(words));
        }
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.push(cell.to_string());
        }
    }
    lines.end_row();
    if columns.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = (1..=columns.len()).map(|n| n.to_string()).collect();
    let cells = columns.iter().map(|column| to_raw_value(column).map(CellValue::Json));
    let cells: Result<Vec<CellValue>, _> = cells.collect();
    let cells = cells.map_err(|error| lines.problem(error.to_string()))?;
    Ok(Some(Row::new(begun, names.into(), cells)))
}
