//! Parquet tables, as the hub has them and pandas writes them.

use super::row::{CellValue, Row};
use super::DataError;
use aflora_files as files;
use aflora_models::panics;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use serde_json::{json, value::to_raw_value, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The key of a file's metadata under which `datasets` tells what its columns hold.
const FEATURES: &str = "huggingface";

/// What a small file may come to: a run of equal rows takes a few bytes there.
const UNPACKED: usize = 1 << 28;

/// What a byte of a file may come to beyond that.
const RATIO: usize = 256;

/// Gives every row to `take`.
///
/// # Errors
/// The file is no parquet, `take` refuses a row, or the rows are out of all proportion to the
/// file.
pub(super) fn each(
    path: &Path,
    take: &mut dyn FnMut(&Row) -> Result<(), String>,
) -> Result<(), DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_or(0, |m| m.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut left = UNPACKED.saturating_add(length.saturating_mul(RATIO));
    let broken = |problem: String| {
        DataError::file(path, format!("not a readable parquet file ({problem}); get it again"))
    };
    let words = |error: ParquetError| match error {
        ParquetError::NYI(what) => {
            let words = format!("parquet of a form that is not read here ({what})");
            DataError::file(path, format!("{words}; write it anew, packed with zstd or snappy"))
        }
        error => broken(error.to_string()),
    };
    let read = panics::catch_reading(|| {
        let reader = SerializedFileReader::new(file).map_err(words)?;
        let mut names: Option<Arc<[String]>> = None;
        for (line, record) in (1..).zip(reader.get_row_iter(None).map_err(words)?) {
            let record = record.map_err(words)?;
            left = left.checked_sub(size(&record)).ok_or_else(|| {
                broken(format!("it is {length} bytes long and unpacks to far more than that"))
            })?;
            let names = names.get_or_insert_with(|| {
                record.get_column_iter().map(|(name, _)| name.clone()).collect()
            });
            let refused = |problem| DataError::Row { path: path.to_path_buf(), line, problem };
            let cells = record.get_column_iter().map(|(_, field)| cell(field));
            let cells: Result<_, String> = cells.collect();
            take(&Row::new(line, names.clone(), cells.map_err(refused)?)).map_err(refused)?;
        }
        Ok(())
    });
    read.unwrap_or_else(|problem| Err(broken(problem)))
}

/// The first row, if there is one.
///
/// # Errors
/// The file is no parquet.
pub(super) fn first(path: &Path) -> Result<Option<Row>, DataError> {
    let mut found = None;
    let read = each(path, &mut |row| match found.is_some() {
        // No further row is wanted.
        true => Err(String::new()),
        false => {
            found = Some(row.clone());
            Ok(())
        }
    });
    match found {
        None => read.map(|()| None),
        found => Ok(found),
    }
}

/// The names of the classes of the columns that have such, in the order of their numbers, as the
/// library `datasets` writes them into a file: of a value, or of each value of a list.
///
/// # Errors
/// The file is no parquet.
pub(super) fn classes(path: &Path) -> Result<BTreeMap<String, Vec<String>>, DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let read = panics::catch_reading(|| {
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let about = reader.metadata().file_metadata().key_value_metadata();
        let about = about.into_iter().flatten().find(|about| about.key == FEATURES);
        Ok(about.and_then(|about| about.value.clone()))
    });
    let read = read.unwrap_or_else(Err).map_err(|problem| {
        DataError::file(path, format!("not a readable parquet file ({problem}); get it again"))
    })?;
    let about: Value = read.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let features = about["info"]["features"].as_object();
    let names = |feature: &Value| {
        // Of a list, as different versions write it.
        let forms = [feature, &feature["feature"], &feature[0]];
        let label = forms.into_iter().find(|form| form["_type"] == "ClassLabel")?;
        serde_json::from_value::<Vec<String>>(label["names"].clone()).ok()
    };
    let of_columns = features.into_iter().flatten();
    Ok(of_columns.filter_map(|(name, about)| Some((name.clone(), names(about)?))).collect())
}

/// About what a row takes in memory.
fn size(row: &Record) -> usize {
    fn of(field: &Field) -> usize {
        32 + match field {
            Field::Str(text) => text.len(),
            Field::Bytes(bytes) => bytes.len(),
            Field::ListInternal(list) => list.elements().iter().map(of).sum(),
            Field::Group(group) => group.get_column_iter().map(|(_, field)| of(field)).sum(),
            _ => 0,
        }
    }
    64 + row.get_column_iter().map(|(_, field)| of(field)).sum::<usize>()
}

/// A field as a JSON file would hold it: bytes that are UTF-8 as a text.
fn cell(field: &Field) -> Result<CellValue, String> {
    match json(field) {
        Value::String(text) => Ok(CellValue::Text(text)),
        value => to_raw_value(&value).map(CellValue::Json).map_err(|error| error.to_string()),
    }
}

fn json(field: &Field) -> Value {
    match field {
        Field::Str(text) => text.clone().into(),
        Field::Null => Value::Null,
        Field::Bool(truth) => (*truth).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => f64::from(*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => text.into(),
            // Shown where it is asked for: no text, and no number.
            Err(_) => json!({"bytes that are no UTF-8": bytes.len()}),
        },
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::Group(group) => {
            group.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()
        }
        Field::Float16(x) => f32::from(*x).into(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            entries.map(|(key, value)| json!({"key": json(key), "value": json(value)})).collect()
        }
        // Dates, times and decimal numbers, as texts.
        other => other.to_string().into(),
    }
}
