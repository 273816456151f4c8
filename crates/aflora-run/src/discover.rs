//! What files of rows ask for, found from what stands in them: conversations, classes or scores.
//!
//! Rows with a list in `messages` or `conversations`, or with `instruction` and `output`, are
//! conversations. Of others:
//!
//! | what the label column holds | what is asked for |
//! |---|---|
//! | a value that is no number | classes, in the order of letters |
//! | whole numbers, 20 different ones at most and each twice on average | classes, in the order of numbers |
//! | other numbers | a score |
//!
//! Whole numbers count as such with zeros behind a point, too: pandas writes `1.0` for 1 in a column
//! with gaps. Texts of which hardly one comes twice are no classes.

use crate::feed::read::{read, Part};
use crate::feed::{short, DataError, Source};
use crate::task::conversation::columns_of;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most different whole numbers that are taken for classes.
const MOST_NUMBERS: usize = 20;

/// The most different texts that are classes however seldom each comes.
const MOST_SELDOM: usize = 20;

/// The column with what is right, by what it is for.
const LABEL: &str = "label";

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The classes, in the order of their numbers; none where a score is asked for.
    pub classes: Option<Vec<String>>,
    /// What decided, in words.
    pub why: String,
}

/// What the columns are for, where the first row has a conversation: none else.
pub fn conversations(source: &Source, files: &[PathBuf]) -> Option<Vec<(String, String)>> {
    let bare = Source { columns: BTreeMap::new(), ..source.clone() };
    let found = Cell::new(None);
    // Of a file that cannot be read the reason is told by whoever reads all of it.
    let first: Result<Part<()>, DataError> = read(files.first()?, &bare, |row| {
        found.set(columns_of(row));
        Err("one row is enough".into())
    });
    drop(first);
    let owned = |(role, name): (&str, &str)| (role.to_string(), name.to_string());
    found.into_inner().map(|columns| columns.into_iter().map(owned).collect())
}

/// What the label column of the files of a source asks for; classes for certain if `classes`.
///
/// # Errors
/// A file cannot be read, lacks a column, or a row has no label; or there is no telling.
pub fn answers(source: &Source, files: &[PathBuf], classes: bool) -> Result<Found, DataError> {
    let column = source.columns.get(LABEL).map_or(LABEL, String::as_str);
    let others = || source.columns.iter().filter(|(role, _)| *role != LABEL);
    let mut values: BTreeMap<String, usize> = BTreeMap::new();
    for path in files {
        let part = read(path, source, |row| {
            others().try_for_each(|(_, column)| row.text(column).map(drop))?;
            match row.label(column)? {
                label if label.is_empty() => {
                    Err(format!("there is no label in `{column}`; leave the row out, or label it"))
                }
                label => Ok(label),
            }
        })?;
        for value in part.rows {
            *values.entry(value).or_default() += 1;
        }
    }
    let first = files.first().map_or(Path::new(""), PathBuf::as_path);
    judge(column, values, classes).map_err(|problem| DataError::file(first, problem))
}

/// What a column with these values, each so often, asks for.
fn judge(column: &str, values: BTreeMap<String, usize>, classes: bool) -> Result<Found, String> {
    let rows: usize = values.values().sum();
    let numbers = values.keys().map(|value| number(value)).collect::<Option<Vec<f64>>>();
    let whole = |numbers: &[f64]| numbers.iter().all(|n| n.fract() == 0.0 && n.abs() < 1e15);
    let classes_of = |labels: Vec<String>, what: &str, else_: &str| {
        let n = labels.len();
        let why = format!("`{column}` holds {n} different {what}: {}{else_}", listed(&labels));
        Found { classes: Some(labels), why }
    };
    Ok(match numbers {
        Some(numbers) if whole(&numbers) => {
            let mut distinct: Vec<i64> = numbers.iter().map(|n| *n as i64).collect();
            distinct.sort_unstable();
            distinct.dedup();
            let n = distinct.len();
            let labels = distinct.iter().map(i64::to_string).collect();
            if classes {
                classes_of(labels, "whole numbers, each a class", "")
            } else if n <= MOST_NUMBERS && 2 * n <= rows {
                let what = "whole numbers, few enough for classes";
                classes_of(labels, what, " (kind=score asks for a number)")
            } else {
                let why = format!(
                    "`{column}` holds {n} different whole numbers in {rows} rows, too many for \
                     classes: a score (kind=classify asks for one of them)"
                );
                Found { classes: None, why }
            }
        }
        Some(_) if !classes => {
            let why = format!("`{column}` holds numbers with fractions: a score");
            Found { classes: None, why: format!("{why} (kind=classify asks for one of them)") }
        }
        _ => {
            let labels: Vec<String> = values.into_keys().collect();
            if !classes && labels.len() > MOST_SELDOM && 2 * labels.len() > rows {
                return Err(format!(
                    "`{column}` holds {} different texts in {rows} rows, too many for classes; \
                     write kind=classify if they are, or input=COLUMN target={column} to learn to \
                     write them",
                    labels.len()
                ));
            }
            let python = |label: &String| {
                label.len() > 2
                    && label.starts_with(['b', 'B'])
                    && label[1..].starts_with(['\'', '"'])
            };
            if let Some(label) = labels.iter().find(|label| python(label)) {
                return Err(format!(
                    "`{column}` holds {}, Python's way to show bytes; decode them before the file \
                     is written (`.str.decode(\"utf-8\")` of pandas)",
                    short(label)
                ));
            }
            classes_of(labels, "values, each a class", "")
        }
    })
}

/// The number that a label is.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The first labels, for a message.
fn listed(labels: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = labels.iter().take(SHOWN).map(|label| short(label)).collect();
    match labels.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[(&str, usize)], classes: bool) -> Result<Found, String> {
        judge("c", values.iter().map(|(v, n)| (v.to_string(), *n)).collect(), classes)
    }

    fn classes(values: &[(&str, usize)]) -> Option<Vec<String>> {
        found(values, false).unwrap().classes
    }

    fn owned(labels: &[&str]) -> Option<Vec<String>> {
        Some(labels.iter().map(|label| label.to_string()).collect())
    }

    #[test]
    fn few_whole_numbers_are_classes_and_other_numbers_scores() {
        assert_eq!(classes(&[("10", 4), ("2", 4), ("1", 4)]), owned(&["1", "2", "10"]));
        assert_eq!(classes(&[("1.0", 4), ("0", 2), ("0.0", 2)]), owned(&["0", "1"]));
        assert_eq!(classes(&[("-1", 4), ("1", 4)]), owned(&["-1", "1"]));
        assert_eq!(classes(&[("1", 4), ("2.5", 4)]), None);
        let years: Vec<String> = (1950..1990).map(|year| year.to_string()).collect();
        let years: Vec<(&str, usize)> = years.iter().map(|year| (year.as_str(), 3)).collect();
        assert_eq!(classes(&years), None);
        assert_eq!(classes(&years[..20]).unwrap().len(), 20);
        assert_eq!(classes(&[("1", 1), ("7", 1), ("9", 1)]), None, "none comes twice");
    }

    #[test]
    fn anything_else_is_a_class_unless_hardly_one_comes_twice() {
        assert_eq!(classes(&[("b", 1), ("a", 2), ("3", 1)]), owned(&["3", "a", "b"]));
        assert_eq!(classes(&[("true", 1), ("false", 2)]), owned(&["false", "true"]));
        let texts: Vec<String> = (0..30).map(|n| format!("text {n}")).collect();
        let texts: Vec<(&str, usize)> = texts.iter().map(|text| (text.as_str(), 1)).collect();
        assert!(found(&texts, false).unwrap_err().contains("input=COLUMN target=c"));
        assert_eq!(found(&texts, true).unwrap().classes.unwrap().len(), 30);
        assert!(found(&[("b'x'", 3), ("b'y'", 3)], false).unwrap_err().contains("decode"));
    }

    #[test]
    fn what_is_asked_for_outright_decides() {
        let found = found(&[("1.5", 2), ("2", 2)], true).unwrap();
        assert_eq!(found.classes, owned(&["1.5", "2"]));
    }
}
