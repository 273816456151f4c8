//! What is odd about rows that are read all the same: texts that are empty, rows of one split whose
//! texts another has, and texts that have one label here and another there. They are counted and
//! told; none is left out.

use super::draw::RIGHT;
use super::row::{CellValue, Row};
use super::source::Source;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Lines that a message names; of further ones it gives the count.
const TOLD: usize = 10;

/// The rows of a file whose texts are empty.
#[derive(Debug, Default)]
pub(super) struct EmptyTexts {
    first: Vec<usize>,
    count: usize,
}

impl EmptyTexts {
    /// Looks at a row.
    pub fn look_at(&mut self, source: &Source, row: &Row) {
        let blank = |cell: &CellValue| match cell {
            CellValue::Text(text) => text.trim().is_empty(),
            CellValue::Json(json) => {
                let inner = json.get().trim_matches('"');
                inner.trim().is_empty()
            }
        };
        if texts(source, row).any(blank) {
            self.count += 1;
            if self.count <= TOLD {
                self.first.push(row.line);
            }
        }
    }

    /// Says so.
    pub fn tell(&self, path: &Path) {
        let lines: Vec<String> = self.first.iter().map(usize::to_string).collect();
        let (path, lines) = (path.display(), lines.join(", "));
        match (self.count, self.count - self.first.len()) {
            (0, _) => {}
            (1, _) => tracing::warn!("{path}: 1 text is empty: line {lines}"),
            (n, 0) => tracing::warn!("{path}: {n} texts are empty: lines {lines}"),
            (n, more) => {
                tracing::warn!("{path}: {n} texts are empty: lines {lines} and {more} more");
            }
        }
    }
}

/// The cells with the texts of a row: all that the source names but what is right.
fn texts<'a>(source: &'a Source, row: &'a Row) -> impl Iterator<Item = &'a CellValue> {
    let columns = source.columns.iter().filter(|(role, _)| !RIGHT.contains(&role.as_str()));
    columns.filter_map(|(_, column)| row.cell(column))
}

/// A number that rows of the same texts share, and hardly any others.
pub(super) fn fingerprint(source: &Source, row: &Row) -> u64 {
    let mut hasher = DefaultHasher::new();
    for cell in texts(source, row) {
        match cell {
            CellValue::Text(text) => text.trim().hash(&mut hasher),
            CellValue::Json(json) => match serde_json::from_str::<String>(json.get()) {
                Ok(text) => text.trim().hash(&mut hasher),
                Err(_) => json.get().hash(&mut hasher),
            },
        }
    }
    hasher.finish()
}

/// A row's text and label, as numbers that tell them from others.
#[derive(Debug)]
pub(super) struct Labelled {
    text: u64,
    label: u64,
    line: usize,
}

impl Labelled {
    /// Those of a row, where it has a label: of texts to be written, many may be right.
    pub fn of(source: &Source, row: &Row) -> Option<Labelled> {
        let column = source.columns.get("label").or(source.columns.get("tags"))?;
        let mut hasher = DefaultHasher::new();
        match (row.label(column), row.cell(column)?) {
            (Ok(label), _) => label.hash(&mut hasher),
            (Err(_), CellValue::Json(json)) => json.get().hash(&mut hasher),
            (Err(_), CellValue::Text(text)) => text.hash(&mut hasher),
        }
        Some(Labelled { text: fingerprint(source, row), label: hasher.finish(), line: row.line })
    }
}

/// Says how many rows of files have the text of a row with another label.
pub(super) fn tell_contradictory(files: &[(&Path, &[Labelled])]) {
    let rows = || files.iter().flat_map(|(path, rows)| rows.iter().map(move |row| (*path, row)));
    let mut labels: HashMap<u64, Option<u64>> = HashMap::new();
    for (_, row) in rows() {
        let label = labels.entry(row.text).or_insert(Some(row.label));
        *label = label.filter(|label| *label == row.label);
    }
    let mut odd = rows().filter(|(_, row)| labels[&row.text].is_none());
    let Some((path, first)) = odd.next() else { return };
    let (odd, all) = (1 + odd.count(), rows().count());
    tracing::warn!(
        "{odd} of {all} rows have the text of a row with another label: first {}, line {}",
        path.display(),
        first.line
    );
}

/// Says how many rows of a drawn split there are where texts come more than once: those of one text
/// go together, so that the share may not be met.
pub(super) fn tell_drawn(split: &str, drawn: usize, of: (usize, u64), shared: usize) {
    let (all, percent) = of;
    let met = drawn.abs_diff(all * percent as usize / 100) * 100 <= all;
    let words = format!(
        "{shared} of {all} rows have the text of another; rows of one text and label are held out \
         together: {drawn} for {split}, where {percent}% were asked for"
    );
    match met {
        true => tracing::info!("{words}"),
        false => tracing::warn!("{words}"),
    }
}

/// Says how many rows of a split have the texts of a training row.
pub(super) fn tell_repeated(split: &str, rows: &[u64], training: &HashSet<u64>) {
    let n = rows.iter().filter(|row| training.contains(row)).count();
    let all = rows.len();
    match n {
        0 => {}
        1 => tracing::warn!("1 of {all} rows of {split} has the text of a training row"),
        n => tracing::warn!("{n} of {all} rows of {split} have the texts of training rows"),
    }
}
