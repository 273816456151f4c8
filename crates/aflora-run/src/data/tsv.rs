//! GLUE's own files: tab-separated, one example a line, quotes are literal characters.

use super::bounded::Bounded;
use super::table::{Format, Table};
use super::task::{Columns, TaskSpec};
use super::{DataError, Example};
use aflora_files as files;
use std::path::Path;

/// The examples of one file, and how many broken rows were skipped.
#[derive(Debug)]
pub struct Rows {
    /// In file order.
    pub examples: Vec<Example>,
    /// Rows that could not be read, in a task whose published files are known to hold some.
    pub skipped: usize,
}

/// The share of broken rows that is passed over: one in so many. Of the published QQP, 1 in
/// 17,000 is broken.
const FORGIVEN: usize = 100;

/// Reads one split.
///
/// # Errors
/// The file is unreadable, empty, no UTF-8, lacks a column, or a row is broken; in a task whose
/// published files hold broken rows, more than one in a hundred, or one with a label that is none.
pub fn read(path: &Path, spec: &TaskSpec) -> Result<Rows, DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let mut table = Table::new(Bounded::new(file), path, Format::Tsv, |_| spec.header)?;
    let Columns { text_a, text_b, label } = spec.tsv;
    let (text_a, label) = (table.column(text_a)?, table.column(label)?);
    let text_b = text_b.map(|name| table.column(name)).transpose()?;
    let mut rows = Rows { examples: Vec::new(), skipped: 0 };
    let mut first_broken = None;
    while let Some(mut row) = table.read_of_any_width()? {
        // A row of another width may have anything in the label's column; one of the right width
        // with a label that is none tells of another file than this task's.
        match row.whole() {
            Ok(()) => {}
            Err(problem) if spec.broken_rows => {
                rows.skipped += 1;
                first_broken.get_or_insert((row.line, problem));
                continue;
            }
            Err(problem) => return Err(table.problem(row.line, problem)),
        }
        let parsed = spec.labels.parse(row.take(label).trim());
        rows.examples.push(Example {
            label: parsed.map_err(|problem| table.problem(row.line, problem))?,
            text_a: row.take(text_a),
            text_b: text_b.map(|column| row.take(column)),
        });
    }
    let (skipped, all) = (rows.skipped, rows.skipped + rows.examples.len());
    if let Some((line, problem)) = first_broken.filter(|_| skipped * FORGIVEN > all) {
        let problem = format!(
            "{problem}; {skipped} of {all} rows are broken like that, and at most 1 in {FORGIVEN} \
             is passed over"
        );
        return Err(table.problem(line, problem));
    }
    if rows.examples.is_empty() {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok(rows)
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

    const QQP: &str = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";

    fn qqp(good: usize, broken: usize) -> String {
        QQP.to_string() + &"1\t2\t3\ta\tb\t0\n".repeat(good) + &"1\t2\ta\n".repeat(broken)
    }

    #[test]
    fn the_known_broken_rows_of_qqp_are_counted() {
        let rows = parse("qqp", qqp(198, 2).as_bytes()).unwrap();
        assert_eq!((rows.examples.len(), rows.skipped), (198, 2));
    }

    #[test]
    fn a_file_of_mostly_broken_rows_is_refused() {
        let error = parse("qqp", qqp(3, 37).as_bytes()).unwrap_err();
        assert_eq!(
            error,
            "FILE, line 5: 3 columns, but the first line has 6; 37 of 40 rows are broken like \
             that, and at most 1 in 100 is passed over"
        );
        assert!(parse("qqp", qqp(0, 3).as_bytes()).unwrap_err().contains("3 of 3 rows"));
    }

    #[test]
    fn a_label_that_is_none_is_an_error_where_broken_rows_are_forgiven() {
        let text = qqp(300, 0) + "1\t2\t3\ta\tb\tduplicate\n";
        let error = parse("qqp", text.as_bytes()).unwrap_err();
        assert!(error.starts_with("FILE, line 302: the label is `duplicate`, but"), "{error}");
    }
}
