//! When each matrix froze: `freeze.csv`, and what `aflora replay` says in the same form.
//!
//! Columns are found by their names, so that a later version may add some.

use crate::error::{Error, Result};
use crate::names::FREEZES;
use aflora_files::printable;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// The most bytes of the file: a hundred times those of the largest model here.
const MOST: u64 = 16 << 20;

/// A projection matrix that trained at the start, or a component of one where a method freezes by
/// components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// Its full name, such as `bert.encoder.layer.0.intermediate.dense.lora_A`.
    pub name: String,
    /// `attention` or `ffn`; empty where that is not known.
    pub block: String,
    /// How many elements it has.
    pub elements: i64,
    /// The step at which it froze, if it did.
    pub frozen_at: Option<u64>,
}

/// A row of the file.
#[derive(Deserialize)]
struct FreezeRow {
    matrix: String,
    #[serde(default)]
    block: String,
    elements: i64,
    #[serde(deserialize_with = "there")]
    frozen_at_step: Option<u64>,
}

/// An optional value whose column is there: without it, none would seem to have frozen.
fn there<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    Option::deserialize(from)
}

/// The file's text.
pub fn to_csv(matrices: &[Matrix]) -> String {
    let mut out = String::from("matrix,block,elements,frozen_at_step\n");
    for Matrix { name, block, elements, frozen_at } in matrices {
        let step = frozen_at.map_or(String::new(), |step| step.to_string());
        out += &format!("{},{},{elements},{step}\n", field(name), field(block));
    }
    out
}

/// A field as CSV has it, which no spreadsheet takes for a formula.
fn field(text: &str) -> String {
    let text = harmless(text);
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// A cell of CSV that does nothing to a terminal, and that no spreadsheet takes for a formula: one
/// that begins like a formula, and is no number, gets an apostrophe before it.
pub fn harmless(cell: &str) -> String {
    let cell = printable(cell);
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let number = cell.chars().all(digits) && cell.parse::<f64>().is_ok();
    match cell.starts_with(['=', '+', '-', '@', '\t']) && !number {
        true => format!("'{cell}"),
        false => cell.into_owned(),
    }
}

/// Writes the table of the run in `folder`.
///
/// # Errors
/// It cannot be written.
pub fn write(folder: &Path, matrices: &[Matrix]) -> Result<()> {
    let path = folder.join(FREEZES);
    aflora_files::write(&path, to_csv(matrices).as_bytes()).map_err(Error::write(&path))
}

/// The table of the run in `folder`.
///
/// # Errors
/// There is none, or it is damaged.
pub fn read(folder: &Path) -> Result<Vec<Matrix>> {
    let path = folder.join(FREEZES);
    let text = aflora_files::read_text_at_most(&path, MOST).map_err(Error::read(&path))?;
    parse(&text).map_err(Error::content(&path, "table of freezes"))
}

/// The rows of a table.
///
/// # Errors
/// A column is missing, or a row is none; by its place.
pub fn parse(text: &str) -> std::result::Result<Vec<Matrix>, csv::Error> {
    let matrix = |row: std::result::Result<FreezeRow, csv::Error>| {
        let FreezeRow { matrix, block, elements, frozen_at_step } = row?;
        Ok(Matrix { name: matrix, block, elements, frozen_at: frozen_at_step })
    };
    csv::Reader::from_reader(text.as_bytes()).into_deserialize().map(matrix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(name: &str, frozen_at: Option<u64>) -> Matrix {
        Matrix { name: name.into(), block: "ffn".into(), elements: 6, frozen_at }
    }

    #[test]
    fn a_table_comes_back_whatever_its_names_are() {
        let all = [matrix("a.lora_A", None), matrix("b,\"c\"\nd", Some(7)), matrix("é", Some(0))];
        let text = to_csv(&all);
        assert!(text.starts_with("matrix,block,elements,frozen_at_step\na.lora_A,ffn,6,\n"));
        assert_eq!(parse(&text).unwrap(), all);
    }

    #[test]
    fn columns_are_found_by_name_and_a_damaged_row_is_told() {
        let later = "elements,later,matrix,frozen_at_step\n6,x,a,3\n";
        assert_eq!(parse(later).unwrap()[0], Matrix { block: "".into(), ..matrix("a", Some(3)) });
        let error = parse("matrix,block,elements,frozen_at_step\na,ffn,six,\n").unwrap_err();
        assert!(error.to_string().contains("line: 2"), "{error}");
        assert!(parse("matrix,block,elements\na,ffn,6\n").is_err(), "a cut table");
    }

    #[test]
    fn a_cell_is_no_formula_and_a_number_stays_one() {
        for cell in ["=1+1", "+1+1", "-2+cmd|'/c calc'!A0", "@SUM(A1)", "\t=1", "-", "-inf"] {
            assert_eq!(harmless(cell), format!("'{cell}"));
        }
        // What a spreadsheet passes over before a formula is written out, so that none begins.
        for (cell, written) in [("\r=1", "\\r=1"), ("\u{feff}=1", "\\u{feff}=1")] {
            assert_eq!(harmless(cell), written);
        }
        for plain in ["", "-1", "+0.5", "-1.5e-7", "a=b", "mrpc", "–"] {
            assert_eq!(harmless(plain), plain);
        }
    }
}
