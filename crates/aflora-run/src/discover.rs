//! What files of rows ask for, found from what stands in them.
//!
//! The form of the first row comes first, where it tells:
//!
//! | what there is | what is asked for |
//! |---|---|
//! | a list in `messages` or `conversations`, or both `instruction` and `output` | the next turn of conversations |
//! | a file of CoNLL's form; or a list of words with a list of tags | tags of words |
//! | a list as label | any of several labels |
//! | several label columns, of 0 and 1 alone | any of several labels, a column each |
//! | several label columns of other numbers | several scores |
//! | plain text (.txt) | the likelihood of texts |
//!
//! Else the label column of all rows:
//!
//! | what it holds | what is asked for |
//! |---|---|
//! | a value that is no number | classes, in the order of letters |
//! | whole numbers, 20 different ones at most and each twice on average | classes, in the order of numbers |
//! | other numbers | a score |
//!
//! Whole numbers count as such with zeros behind a point, too: pandas writes `1.0` for 1 in a column
//! with gaps. Texts of which hardly one comes twice are no classes. What programs write for a missing
//! value (`nan`, `NA`, `None`) is none, nor is a single text among many numbers: such a row is told.

mod misspelt;

use crate::feed::read::{first, read};
use crate::feed::row::Row;
use crate::feed::table::Format;
use crate::feed::{short, DataError, Source};
use crate::kinds::multilabel::truth;
use crate::kinds::tokens::OUTSIDE;
use crate::task::conversation::columns_of;
use crate::task::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most different whole numbers that are taken for classes.
const MOST_NUMBERS: usize = 20;

/// The most different texts that are classes however seldom each comes.
const MOST_SELDOM: usize = 20;

/// The columns that the user named, in the user's order; none where they have their usual names.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// Those with texts.
    pub text: &'a [String],
    /// Those with what is right.
    pub label: &'a [String],
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The kind of task.
    pub kind: Kind,
    /// The classes, in the order of their numbers; none of a kind that has none.
    pub labels: Option<Vec<String>>,
    /// What decided, in words.
    pub why: String,
    /// What is probably wrong, though it can be learnt, in words.
    pub doubts: Vec<String>,
}

/// How the rows of a source look.
#[derive(Debug)]
pub struct Look {
    /// The kind of task that their form tells, if it does, and why.
    pub kind: Option<(Kind, String)>,
    /// Columns that no key names and the form tells, by what they are for.
    pub columns: Vec<(&'static str, String)>,
}

/// How the rows of the files of a source look; `known` is the kind of task, where it is said.
///
/// # Errors
/// A file cannot be read.
pub fn look(
    source: &Source,
    files: &[PathBuf],
    named: Columns,
    known: Option<Kind>,
) -> Result<Look, DataError> {
    let Some(path) = files.first() else { return Ok(Look { kind: None, columns: Vec::new() }) };
    let row = first(path, source)?;
    let format = source.delimiter.map_or_else(|| Format::of(path), |_| Format::Csv);
    let name = |columns: &[String], usual: &str| columns.first().map_or(usual.into(), Clone::clone);
    let is_list = |column: &str| row.is_list(column);
    if format == Format::Conll {
        let last = row.cells().count().to_string();
        let why = "sentences, a word a line: a tag for each word".to_string();
        let columns = vec![("tokens", "1".into()), ("tags", last)];
        return Ok(Look { kind: Some((Kind::Tokens, why)), columns });
    }
    let unnamed = named.text.is_empty() && named.label.is_empty();
    if let Some(found) = columns_of(&row).filter(|_| unnamed && !row.has("label")) {
        let names: Vec<&str> = found.iter().map(|(_, name)| *name).collect();
        let why = format!("`{}`: conversations", names.join("` and `"));
        let columns = found.into_iter().map(|(role, name)| (role, name.to_string())).collect();
        return Ok(Look { kind: Some((Kind::Chat, why)), columns });
    }
    let usual_tags = ["tags", "ner_tags", "pos_tags"].into_iter().find(|name| row.has(name));
    let tags = usual_tags.map(|tags| [("tokens", "tokens".into()), ("tags", tags.to_string())]);
    let columns: Vec<(&str, String)> = tags.into_iter().flatten().collect();
    let word_column = name(named.text, "tokens");
    let tag_column = name(named.label, usual_tags.unwrap_or("tags"));
    if is_list(&word_column) && is_list(&tag_column) {
        let why = format!("`{word_column}` holds lists of words, `{tag_column}` of their tags");
        return Ok(Look { kind: Some((Kind::Tokens, why)), columns });
    }
    let label = name(named.label, "label");
    let kind = if format == Format::Lines && named.label.is_empty() {
        Some((Kind::Text, "plain text, to go on writing like it".to_string()))
    } else if named.label.len() > 1 && known.is_none() {
        Some(several(source, files, named.label)?)
    } else if is_list(&label) {
        Some((Kind::Multilabel, format!("`{label}` holds lists: any of several labels")))
    } else {
        None
    };
    Ok(Look { kind, columns })
}

/// What several label columns ask for.
fn several(
    source: &Source,
    files: &[PathBuf],
    columns: &[String],
) -> Result<(Kind, String), DataError> {
    let mut all = true;
    for path in files {
        let is_set = |row: &Row| {
            columns.iter().try_fold(true, |all, column| {
                if let Some(missing) = row.missing(column) {
                    return Err(no_label(column, missing));
                }
                let value = row.label(column)?;
                match (truth(&value), number(&value)) {
                    (None, None) => Err(format!(
                        "the label in `{column}` is {}, but several columns hold numbers: scores, \
                         or 0 and 1 for each of several labels",
                        short(&value)
                    )),
                    (truth, _) => Ok(all && truth.is_some()),
                }
            })
        };
        all &= read(path, source, is_set)?.rows.into_iter().all(|set| set);
    }
    let (columns, n) = (columns.join(", "), columns.len());
    Ok(match all {
        true => {
            let why = format!("{columns} hold 0 and 1: any of {n} labels (kind=score asks for");
            (Kind::Multilabel, format!("{why} numbers)"))
        }
        false => (Kind::Score, format!("{columns} hold numbers: {n} scores")),
    })
}

/// The labels of a task of this kind, and the kind itself, by its label column, where it is not
/// known: a class for certain if it is [`Kind::Classify`].
///
/// # Errors
/// A file cannot be read, lacks a column, or a row has no label; or there is no telling.
pub fn labels(
    source: &Source,
    files: &[PathBuf],
    kind: Option<Kind>,
    separator: char,
) -> Result<Found, DataError> {
    let role = if kind == Some(Kind::Tokens) { "tags" } else { "label" };
    let column = source.column(role);
    let others = || source.columns.iter().filter(|(other, _)| *other != role);
    let mut values: BTreeMap<String, usize> = BTreeMap::new();
    let mut places: BTreeMap<String, (&Path, usize)> = BTreeMap::new();
    for path in files {
        let part = read(path, source, |row| {
            others().try_for_each(|(_, column)| match row.has(column) {
                true => Ok(()),
                false => row.text(column).map(drop),
            })?;
            let several = matches!(kind, Some(Kind::Multilabel | Kind::Tokens));
            match row.missing(column) {
                // No label is right there.
                Some("") if several => {}
                Some(missing) => return Err(no_label(column, missing)),
                None => {}
            }
            let labels = match kind {
                Some(Kind::Multilabel) => row.list(column, separator)?,
                Some(Kind::Tokens) => row.list(column, ' ')?,
                _ => vec![row.label(column)?],
            };
            Ok((row.line, labels))
        })?;
        for (line, labels) in part.rows {
            for value in labels {
                places.entry(value.clone()).or_insert((path, line));
                *values.entry(value).or_default() += 1;
            }
        }
    }
    if let Some(value) = odd_one(&values).filter(|_| kind.is_none()) {
        let (path, line) = places[value];
        let problem = format!(
            "the label in `{column}` is {}, but most are numbers; mend the row or leave it out, or \
             write kind=classify if each is a class",
            short(value)
        );
        return Err(DataError::Row { path: path.to_path_buf(), line, problem });
    }
    let first = files.first().map_or(Path::new(""), PathBuf::as_path);
    let doubts = match kind {
        // The tags of words are much alike on purpose: B-PER and I-PER.
        Some(Kind::Tokens) => Vec::new(),
        _ => misspelt::misspelt(&values)
            .into_iter()
            .map(|(label, meant)| {
                let (n, (path, line)) = (values[label], places[label]);
                let rows = if n == 1 { "one row has" } else { "few rows have" };
                format!(
                    "{rows} the label `{}` ({}:{line}), which is a class of its own now; if `{}` \
                     is meant, mend the file, and if it is not, name the classes: labels=[…]",
                    short(label),
                    path.display(),
                    short(meant)
                )
            })
            .collect(),
    };
    let found = match kind {
        Some(kind @ (Kind::Multilabel | Kind::Tokens)) => {
            let labels = in_order(values.into_keys().collect());
            let what = if kind == Kind::Tokens { "tags" } else { "labels" };
            if labels.is_empty() {
                return Err(DataError::file(first, format!("`{column}` holds no {what}")));
            }
            let n = labels.len();
            let why = format!("`{column}` holds {n} different {what}: {}", listed(&labels));
            Ok(Found { kind, labels: Some(labels), why, doubts: Vec::new() })
        }
        kind => {
            judge(column, values, kind.is_some()).map_err(|problem| DataError::file(first, problem))
        }
    }?;
    Ok(Found { doubts, ..found })
}

/// What is wrong with a row that has what stands for a missing value in its label's column.
fn no_label(column: &str, missing: &str) -> String {
    let none = format!("there is no label in `{column}`");
    match missing {
        "" | "null" => format!("{none}; leave the row out, or label it"),
        text => format!(
            "{none}, but {text}; leave the row out, or label it, or where {text} is a class, name \
             them all: labels=['{text}', …]"
        ),
    }
}

/// The first value that is no finite number, where nine of ten are and there are too many for
/// classes.
fn odd_one(values: &BTreeMap<String, usize>) -> Option<&str> {
    let mut others = values.keys().filter(|value| number(value).is_none());
    let first = others.next()?;
    let (odd, all) = (1 + others.count(), values.len());
    (all > MOST_NUMBERS && 10 * odd <= all).then_some(first.as_str())
}

/// Labels in the order of numbers where all are whole ones, else of letters, with what is outside
/// of all entities first.
fn in_order(labels: BTreeSet<String>) -> Vec<String> {
    let mut labels: Vec<String> = labels.into_iter().collect();
    match labels.iter().map(|label| label.parse::<i64>().ok()).collect::<Option<Vec<i64>>>() {
        Some(_) => labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default()),
        None => labels.sort_by_key(|label| (label != OUTSIDE, label.clone())),
    }
    labels
}

/// What a column with these values, each so often, asks for.
fn judge(column: &str, values: BTreeMap<String, usize>, classes: bool) -> Result<Found, String> {
    let rows: usize = values.values().sum();
    let numbers = values.keys().map(|value| number(value)).collect::<Option<Vec<f64>>>();
    let whole = |numbers: &[f64]| numbers.iter().all(|n| n.fract() == 0.0 && n.abs() < 1e15);
    let classes_of = |labels: Vec<String>, what: &str, else_: &str| {
        let n = labels.len();
        let why = format!("`{column}` holds {n} different {what}: {}{else_}", listed(&labels));
        Found { kind: Kind::Classify, labels: Some(labels), why, doubts: Vec::new() }
    };
    let score = |why: String| Found { kind: Kind::Score, labels: None, why, doubts: Vec::new() };
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
                score(format!(
                    "`{column}` holds {n} different whole numbers in {rows} rows, too many for \
                     classes: a score (kind=classify asks for one of them)"
                ))
            }
        }
        Some(_) if !classes => score(format!(
            "`{column}` holds numbers with fractions: a score (kind=classify asks for one of them)"
        )),
        _ => {
            let labels: Vec<String> = values.into_keys().collect();
            if !classes && labels.len() > MOST_SELDOM && 2 * labels.len() > rows {
                return Err(format!(
                    "`{column}` holds {} different texts in {rows} rows, too many for classes; \
                     write kind=classify if they are, kind=multilabel where one cell holds several \
                     labels, or input=COLUMN target={column} to learn to write them",
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
        found(values, false).unwrap().labels
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
        assert_eq!(found(&texts, true).unwrap().labels.unwrap().len(), 30);
        assert!(found(&[("b'x'", 3), ("b'y'", 3)], false).unwrap_err().contains("decode"));
    }

    #[test]
    fn a_text_among_many_numbers_is_the_odd_one() {
        let numbers = |n: usize, more: &[&str]| -> BTreeMap<String, usize> {
            let numbers = (0..n).map(|n| format!("{n}.5"));
            numbers.chain(more.iter().map(|text| text.to_string())).map(|v| (v, 1)).collect()
        };
        assert_eq!(odd_one(&numbers(40, &["inf"])), Some("inf"));
        assert_eq!(odd_one(&numbers(40, &[])), None);
        assert_eq!(odd_one(&numbers(4, &["inf"])), None, "few enough for classes");
        assert_eq!(odd_one(&numbers(20, &["a", "b", "c"])), None, "numbers among texts");
    }

    #[test]
    fn what_is_asked_for_outright_decides() {
        let found = found(&[("1.5", 2), ("2", 2)], true).unwrap();
        assert_eq!(found.labels, owned(&["1.5", "2"]));
    }
}
