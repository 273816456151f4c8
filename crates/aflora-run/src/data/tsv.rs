//! GLUE's own files: tab-separated, one example a line, quotes are literal characters.

use super::task::{Columns, TaskSpec};
use super::{DataError, Example};
use aflora_files as files;
use std::io::Read;
use std::path::Path;

/// The examples of one file, and how many broken rows were skipped.
#[derive(Debug)]
pub struct Rows {
    /// In file order.
    pub examples: Vec<Example>,
    /// Rows that could not be read, in a task whose published files are known to hold some.
    pub skipped: usize,
}

/// Reads one split.
///
/// # Errors
/// The file is unreadable, empty, no UTF-8, lacks a column, or a row is broken.
pub fn read(path: &Path, spec: &TaskSpec) -> Result<Rows, DataError> {
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(DataError::io(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        DataError::Row { path: path.to_path_buf(), line, problem: "not UTF-8 text".into() }
    })?;
    // MRPC comes with a byte-order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty()).peekable();
    let empty = || DataError::Empty { place: path.display().to_string() };
    let (_, first) = lines.peek().ok_or_else(empty)?;
    let names: Vec<&str> = first.split('\t').collect();
    let find = |name: &str| column(path, &names, name, spec.header);
    let Columns { text_a, text_b, label } = spec.tsv;
    let (text_a, label) = (find(text_a)?, find(label)?);
    let text_b = text_b.map(find).transpose()?;
    let width = names.len();
    if spec.header {
        lines.next();
    }
    let mut rows = Rows { examples: Vec::new(), skipped: 0 };
    for (number, line) in lines {
        let cells: Vec<&str> = line.split('\t').collect();
        let parsed = if cells.len() == width {
            spec.labels.parse(cells[label].trim())
        } else {
            Err(format!("{} columns, but the first line has {width}", cells.len()))
        };
        match parsed {
            Ok(label) => rows.examples.push(Example {
                text_a: cells[text_a].to_string(),
                text_b: text_b.map(|i| cells[i].to_string()),
                label,
            }),
            Err(_) if spec.broken_rows => rows.skipped += 1,
            Err(problem) => {
                let path = path.to_path_buf();
                return Err(DataError::Row { path, line: number + 1, problem });
            }
        }
    }
    if rows.examples.is_empty() {
        return Err(empty());
    }
    Ok(rows)
}

/// A column's index by its name, or by its number from 1 where there is no header.
fn column(path: &Path, names: &[&str], name: &str, header: bool) -> Result<usize, DataError> {
    let found = if header {
        names.iter().position(|n| n.trim() == name)
    } else {
        name.parse::<usize>().ok().map(|n| n - 1).filter(|&i| i < names.len())
    };
    found.ok_or_else(|| {
        let problem = if header {
            format!("no column `{name}`; the header has {names:?}")
        } else {
            format!("the first line has {} columns, but column {name} is needed", names.len())
        };
        DataError::Row { path: path.to_path_buf(), line: 1, problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Task;

    fn parse(task: &str, content: &[u8]) -> Result<Rows, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.tsv");
        std::fs::write(&path, content).unwrap();
        let task: Task = task.parse().unwrap();
        let clean = |e: DataError| e.to_string().replace(&path.display().to_string(), "FILE");
        read(&path, task.labels().unwrap()).map_err(clean)
    }

    const MRPC: &str = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";

    #[test]
    fn quotes_are_characters_and_a_byte_order_mark_is_none() {
        let rows = parse("mrpc", format!("{MRPC}1\t1\t2\t\"A\t\"B\" said\"\n").as_bytes()).unwrap();
        let expected =
            Example { text_a: "\"A".into(), text_b: Some("\"B\" said\"".into()), label: 1.0 };
        assert_eq!(rows.examples, [expected]);
    }

    #[test]
    fn cola_has_no_header() {
        let rows = parse("cola", b"gj04\t1\t\tWe sail.\ngj04\t0\t*\tSail we.\r\n").unwrap();
        assert_eq!(rows.examples.len(), 2);
        assert_eq!(rows.examples[1].text_a, "Sail we.");
        assert_eq!(rows.examples[1].label, 0.0);
    }

    #[test]
    fn broken_rows_are_errors_with_a_place() {
        for (task, content, expected) in [
            ("mrpc", format!("{MRPC}1\t1\t2\ta\tb\n1\t1\t2\ta\n"), "FILE, line 3: 4 columns"),
            ("mrpc", format!("{MRPC}2\t1\t2\ta\tb\n"), "FILE, line 2: the label is `2`"),
            ("mrpc", "a\tb\n".into(), "FILE, line 1: no column `#1 String`"),
            ("cola", "a\tb\n".into(), "FILE, line 1: the first line has 2 columns, but column 4"),
            ("mrpc", MRPC.into(), "FILE: there are no examples"),
            ("rte", String::new(), "FILE: there are no examples"),
            (
                "stsb",
                "sentence1\tsentence2\tscore\na\tb\tNaN\n".into(),
                "FILE, line 2: the score is `NaN`, but must be between 0 and 5",
            ),
            ("stsb", "sentence1\tsentence2\tscore\na\tb\t5.5\n".into(), "the score is `5.5`"),
        ] {
            let error = parse(task, content.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse("sst2", b"sentence\tlabel\nok\t1\n\xff\t0\n")
            .unwrap_err()
            .contains("line 3"));
    }

    #[test]
    fn a_label_of_a_megabyte_is_told_by_its_start() {
        let long = "x".repeat(1 << 20);
        let error = parse("rte", format!("sentence1\tsentence2\tlabel\na\tb\t{long}\n").as_bytes());
        let error = error.unwrap_err();
        assert!(error.contains("xxx…`, but must be one of") && error.len() < 300, "{error}");
    }

    #[test]
    fn the_known_broken_rows_of_qqp_are_counted() {
        let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
        let rows = parse("qqp", format!("{header}1\t2\t3\ta\tb\t0\n1\t2\ta\n").as_bytes()).unwrap();
        assert_eq!((rows.examples.len(), rows.skipped), (1, 1));
    }
}
