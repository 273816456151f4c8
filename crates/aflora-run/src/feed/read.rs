//! The rows of a file, whatever its form: those that its source leaves out are left out, and the
//! columns that it names are there.

use super::draw::Lot;
use super::notes::{fingerprint, EmptyTexts, Labelled};
use super::row::Row;
use super::source::{is_parquet, HoldOut, Source};
use super::table::{Format, TableReader};
use super::{parquet, unpack, DataError};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

/// The share of broken rows that is passed over: one in so many. Of the published QQP, 1 in
/// 17,000 is broken.
const FORGIVEN: usize = 100;

/// What a file held.
#[derive(Debug)]
pub struct Part<T> {
    /// The rows that are not held out, in file order.
    pub rows: Vec<T>,
    /// The rows that the source holds out to evaluate on, in file order.
    pub held_out: Vec<T>,
    /// Those that it holds out to judge at the end, in file order, once they are drawn.
    pub(super) tested: Vec<T>,
    /// Broken rows that were passed over.
    pub skipped: usize,
    /// The parts of `rows` in the draw, where the source draws those that it holds out.
    pub(super) lots: Vec<Lot>,
    /// Numbers that tell the texts of `rows` from others, those of `held_out`, and of `tested`.
    pub(super) fingerprints: [Vec<u64>; 3],
    /// What is right for each text.
    pub(super) labelled: Vec<Labelled>,
    /// Rows without a text.
    pub(super) empty: EmptyTexts,
}

/// Reads a file of `source`; `parse` makes an example of a row, or says what is wrong with it.
///
/// # Errors
/// The file is unreadable, empty, of another form than its name says, lacks a column, or a row is
/// broken; in a source whose published files hold broken rows, more than one in a hundred, or one
/// that `parse` refuses.
pub fn read<T>(
    path: &Path,
    source: &Source,
    parse: impl Fn(&Row) -> Result<T, String>,
) -> Result<Part<T>, DataError> {
    let mut found = Part {
        rows: Vec::new(),
        held_out: Vec::new(),
        tested: Vec::new(),
        skipped: 0,
        lots: Vec::new(),
        fingerprints: Default::default(),
        labelled: Vec::new(),
        empty: EmptyTexts::default(),
    };
    let draws = source.hold_out.is_drawn();
    let mut seen = HashSet::new();
    let mut take = |row: &Row| {
        for (column, values) in &source.skip {
            if values.contains(&row.text(column)?) {
                return Ok(());
            }
        }
        if let Some(column) = &source.unique {
            if !seen.insert(row.text(column)?) {
                return Ok(());
            }
        }
        let [of_rows, of_held_out, _] = &mut found.fingerprints;
        let (side, fingerprints) = match is_held_out(&source.hold_out, row)? {
            true => (&mut found.held_out, of_held_out),
            false => (&mut found.rows, of_rows),
        };
        side.push(parse(row)?);
        fingerprints.push(fingerprint(source, row));
        found.labelled.extend(Labelled::of(source, row));
        found.empty.look_at(source, row);
        if draws {
            found.lots.push(Lot::of(source, row)?);
        }
        Ok(())
    };
    if is_parquet(path) {
        parquet::each(path, &mut take)?;
    } else {
        found.skipped = each_of_table(path, source, &mut take)?;
    }
    if found.rows.is_empty() || (source.hold_out.by.is_some() && found.held_out.is_empty()) {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok(found)
}

/// The first row of a file of `source`.
///
/// # Errors
/// The file is unreadable, or has no row.
pub fn first(path: &Path, source: &Source) -> Result<Row, DataError> {
    let none = || DataError::Empty { place: path.display().to_string() };
    if is_parquet(path) {
        return parquet::first(path)?.ok_or_else(none);
    }
    table(path, source)?.1.read_of_any_width()?.ok_or_else(none)
}

/// The names of classes that a file tells of its columns, in the order of their numbers; none of a
/// form that tells none.
///
/// # Errors
/// The file is unreadable.
pub fn classes(path: &Path) -> Result<BTreeMap<String, Vec<String>>, DataError> {
    match is_parquet(path) {
        true => parquet::classes(path),
        false => Ok(BTreeMap::new()),
    }
}

/// All rows of a parquet file.
///
/// # Errors
/// The file is no parquet.
pub fn of_parquet(path: &Path) -> Result<Vec<Row>, DataError> {
    let mut rows = Vec::new();
    parquet::each(path, &mut |row| {
        rows.push(row.clone());
        Ok(())
    })?;
    Ok(rows)
}

/// The form of a file that is not parquet, and its rows.
fn table(
    path: &Path,
    source: &Source,
) -> Result<(Format, TableReader<Box<dyn Read + Send>>), DataError> {
    let format = match source.delimiter {
        Some(_) => Format::Csv,
        None => Format::of(path),
    };
    // What stands in the cells of a first row says little of what stands between them.
    let delimiter = source.delimiter.or((!source.header).then_some(','));
    let from = unpack::open(path)?;
    let table = TableReader::delimited(from, path, format, delimiter, |_| source.header)?;
    Ok((format, table))
}

/// Gives every row of a CSV, TSV or JSONL file to `take`; counts those that were passed over.
fn each_of_table(
    path: &Path,
    source: &Source,
    take: &mut dyn FnMut(&Row) -> Result<(), String>,
) -> Result<usize, DataError> {
    let (format, mut table) = table(path, source)?;
    if format.has_header() {
        source.read_columns().try_for_each(|name| table.check_column(name))?;
    }
    let (mut all, mut skipped, mut first_broken) = (0, 0, None);
    while let Some(row) = table.read_of_any_width()? {
        // An empty line of a plain text is no text to learn from.
        if format == Format::Lines && row.is_blank() {
            continue;
        }
        all += 1;
        // A row of another width may have anything in the label's column; one of the right width
        // with a label that is none tells of another file than this task's.
        match row.whole() {
            Ok(()) => take(&row).map_err(|problem| table.problem(row.line, problem))?,
            Err(problem) if source.forgive_broken_rows => {
                skipped += 1;
                first_broken.get_or_insert((row.line, problem));
            }
            Err(problem) => return Err(table.problem(row.line, problem)),
        }
    }
    match first_broken {
        Some((line, problem)) if skipped * FORGIVEN > all => {
            let problem = format!(
                "{problem}; {skipped} of {all} rows are broken like that, and at most 1 in \
                 {FORGIVEN} is passed over"
            );
            Err(table.problem(line, problem))
        }
        _ => Ok(skipped),
    }
}

fn is_held_out(hold_out: &HoldOut, row: &Row) -> Result<bool, String> {
    let Some(column) = &hold_out.by else { return Ok(false) };
    let digest = Sha256::digest(row.text(column)?.as_bytes());
    let number = digest.iter().take(8).fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    Ok(number % 100 < hold_out.percent)
}
