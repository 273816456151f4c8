//! Rows of a file, whatever its form: training and `predict` read them here, so that both take
//! the same files.
//!
//! | form | rows |
//! |---|---|
//! | CSV | cells between commas (or semicolons, tabs, bars: what the header has most of), under a header; in quotes a cell may hold them, line ends and doubled quotes (RFC 4180) |
//! | TSV | as GLUE's: cells between tabs, one row a line; a quote is a character like any other |
//! | plain lines (.txt) | a text a line, under the name `text`; empty ones are left out where texts are learned |
//! | JSONL | an object a line, or an array of them; `NaN` and `Infinity`, which Python writes and JSON has not, are null |
//! | CoNLL | sentences, a word a line and its columns behind it; columns have numbers from 1, and hold lists |

use super::bounded::Bounded;
use super::conll;
use super::csv::{delimiter_of, Record};
use super::error::short;
use super::json::{self, Elements, Fields};
use super::lines::{split_end, Lines, BYTE_ORDER_MARK};
use super::row::{CellValue, Row};
use super::unpack::unpacked_name;
use super::DataError;
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// JSON objects, one a line or in an array.
    Jsonl,
    /// A text a line, under the name `text`.
    Lines,
    /// Sentences, a word a line.
    Conll,
}

impl Format {
    /// The form that a file's ending tells, in large letters or small and before that of a packed
    /// file; JSONL where it tells none.
    pub fn of(path: &Path) -> Format {
        let path = unpacked_name(path);
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("csv") => Format::Csv,
            Some("tsv") => Format::Tsv,
            Some("txt") => Format::Lines,
            Some("conll" | "bio" | "iob" | "iob2") => Format::Conll,
            _ => Format::Jsonl,
        }
    }
}

impl Format {
    /// Whether the first line of a file may name the columns of all rows.
    pub(super) fn has_header(self) -> bool {
        match self {
            Format::Csv | Format::Tsv => true,
            Format::Jsonl | Format::Conll | Format::Lines => false,
        }
    }
}

/// A file's rows, one after another.
#[derive(Debug)]
pub struct TableReader<R> {
    lines: Lines<R>,
    format: Format,
    /// Of the columns of a CSV or TSV file.
    names: Arc<[String]>,
    header: bool,
    /// Between the cells of a CSV file.
    delimiter: char,
    /// Where the objects are those of an array.
    elements: Option<Elements>,
    /// The first line, where it is no header.
    first: Option<(usize, Vec<String>)>,
}

impl<R: Read> TableReader<R> {
    /// The rows of a stream that messages call `path`.
    ///
    /// `is_header` is asked whether the first line of a CSV or TSV file names the columns; they
    /// have numbers from 1 if not.
    ///
    /// # Errors
    /// The first line cannot be read, there is none, or it names two columns alike.
    pub fn new(
        from: Bounded<R>,
        path: &Path,
        format: Format,
        is_header: impl FnOnce(&[String]) -> bool,
    ) -> Result<Self, DataError> {
        Self::delimited(from, path, format, None, is_header)
    }

    /// As [`new`](Self::new), with what stands between the cells of a CSV file; found from its
    /// header if not given.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn delimited(
        from: Bounded<R>,
        path: &Path,
        format: Format,
        delimiter: Option<char>,
        is_header: impl FnOnce(&[String]) -> bool,
    ) -> Result<Self, DataError> {
        let mut table = TableReader {
            lines: Lines::new(from, path),
            format,
            names: Arc::from([]),
            header: false,
            delimiter: delimiter.unwrap_or(','),
            elements: None,
            first: None,
        };
        match format {
            Format::Jsonl | Format::Conll => return Ok(table),
            Format::Lines => {
                table.names = Arc::from(["text".to_string()]);
                return Ok(table);
            }
            Format::Csv | Format::Tsv => {}
        }
        let Some((line, text)) = table.line()? else {
            return Err(DataError::Empty { place: path.display().to_string() });
        };
        if delimiter.is_none() {
            table.delimiter = delimiter_of(&text);
        }
        let cells = table.cells(line, text)?;
        table.header = is_header(&cells);
        if table.header {
            if let Some(name) = repeated(&cells) {
                let problem = format!("the header has the column `{}` twice", short(name));
                return Err(table.problem(line, problem));
            }
            table.names = cells.into();
        } else {
            table.names = (1..=cells.len()).map(|n| n.to_string()).collect();
            table.first = Some((line, cells));
        }
        Ok(table)
    }

    /// The next row; none behind the last.
    ///
    /// # Errors
    /// It cannot be read, or has other columns than the first line.
    pub fn read(&mut self) -> Result<Option<Row>, DataError> {
        let Some(row) = self.read_of_any_width()? else { return Ok(None) };
        match row.whole() {
            Ok(()) => Ok(Some(row)),
            Err(problem) => Err(self.problem(row.line, problem)),
        }
    }

    /// As [`read`](Self::read), but the row may have too few or too many cells.
    pub(super) fn read_of_any_width(&mut self) -> Result<Option<Row>, DataError> {
        match self.format {
            Format::Jsonl => return self.object(),
            Format::Conll => return conll::sentence(&mut self.lines),
            Format::Csv | Format::Tsv | Format::Lines => {}
        }
        let cells = match self.first.take() {
            Some(first) => Some(first),
            None => match self.line()? {
                Some((line, text)) => Some((line, self.cells(line, text)?)),
                None => None,
            },
        };
        Ok(cells.map(|(line, cells)| {
            let cells = cells.into_iter().map(CellValue::Text).collect();
            Row::new(line, self.names.clone(), cells)
        }))
    }

    /// Checks that a CSV or TSV file has a column of that name, or number where there is no header.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn check_column(&self, name: &str) -> Result<(), DataError> {
        if self.names.iter().any(|n| n.trim() == name) {
            return Ok(());
        }
        let problem = if self.header {
            format!("no column `{name}`; the header has {}", short(&format!("{:?}", self.names)))
        } else {
            let n = self.names.len();
            format!("the first line has {n} columns, but column {name} is needed")
        };
        Err(self.problem(1, problem))
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes()
    }

    /// What is wrong with a row.
    pub fn problem(&self, line: usize, problem: impl Into<String>) -> DataError {
        DataError::Row { path: self.lines.path().to_path_buf(), line, problem: problem.into() }
    }

    /// The next line with something in it, and its number.
    fn line(&mut self) -> Result<Option<(usize, String)>, DataError> {
        while let Some(line) = self.lines.next()? {
            let content = split_end(&line).0;
            let blank = match self.format {
                Format::Jsonl | Format::Conll => content.trim().is_empty(),
                Format::Csv | Format::Tsv => content.is_empty(),
                Format::Lines => false,
            };
            if !blank {
                return Ok(Some((self.lines.number(), line)));
            }
            self.lines.end_row();
        }
        Ok(None)
    }

    fn object(&mut self) -> Result<Option<Row>, DataError> {
        let found = match &mut self.elements {
            Some(elements) => elements.next(&mut self.lines)?,
            None => match self.line()? {
                // The first of an array.
                Some((1, text)) if text.trim_start().starts_with('[') => {
                    self.elements = Elements::begun_by(&text);
                    return self.object();
                }
                found => found,
            },
        };
        let Some((line, text)) = found else { return Ok(None) };
        self.lines.end_row();
        // Files that were put together have a mark where the second begins.
        let text = split_end(text.trim_start_matches(BYTE_ORDER_MARK)).0;
        let Fields(names, cells) = json::fields(text)
            .map_err(|(further, problem)| self.problem(line + further, problem))?;
        if let Some(name) = repeated(&names) {
            return Err(self.problem(line, format!("`{}` stands twice", short(name))));
        }
        Ok(Some(Row::new(line, names.into(), cells)))
    }

    /// The cells of the row of a CSV or TSV file that begins in this line.
    fn cells(&mut self, number: usize, mut line: String) -> Result<Vec<String>, DataError> {
        let cells = if self.format == Format::Tsv {
            split_end(&line).0.split('\t').map(String::from).collect()
        } else if self.format == Format::Lines {
            vec![split_end(&line).0.to_string()]
        } else {
            let mut record = Record::new(self.delimiter);
            loop {
                let (content, end) = split_end(&line);
                record.read(content);
                if !record.goes_on(end) {
                    break record.finish();
                }
                line = self.lines.next()?.ok_or_else(|| {
                    self.problem(number, "a quote is opened in this row and never closed")
                })?;
            }
        };
        self.lines.end_row();
        Ok(cells)
    }
}

/// The first that comes a second time.
fn repeated(names: &[String]) -> Option<&str> {
    let mut seen = HashSet::new();
    names.iter().map(|name| name.trim()).find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows as their lines and JSON, or what is wrong.
    fn rows(format: Format, content: &str) -> Result<Vec<(usize, String)>, String> {
        let from = Bounded::new(content.as_bytes());
        let mut table = TableReader::new(from, Path::new("FILE"), format, |_| true)
            .map_err(|e| e.to_string())?;
        let mut rows = Vec::new();
        while let Some(row) = table.read().map_err(|e| e.to_string())? {
            let cells: Vec<String> = row
                .cells()
                .map(|(name, cell)| format!("{name}={}", serde_json::to_string(cell).unwrap()))
                .collect();
            rows.push((row.line, cells.join(" ")));
        }
        Ok(rows)
    }

    #[test]
    fn the_form_is_told_by_the_ending_in_letters_of_any_size() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("a.CSV", Format::Csv),
            ("a.Tsv", Format::Tsv),
            ("a.jsonl", Format::Jsonl),
            ("a.txt", Format::Lines),
            ("a", Format::Jsonl),
            ("eng.train.bio", Format::Conll),
            ("a.conll", Format::Conll),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_sentence_of_words_in_columns_is_a_row_of_lists() {
        let content = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\r\n\n\n\"a  b\"\tx\n";
        let expected = [
            (3, r#"1=["EU","rejects"] 2=["NNP","VBZ"] 3=["B-ORG","O"]"#.to_string()),
            (7, r#"1=["\"a  b\""] 2=["x"]"#.to_string()),
        ];
        assert_eq!(rows(Format::Conll, content).unwrap(), expected);
        let error = rows(Format::Conll, "a O\n\nb O\nc\n").unwrap_err();
        assert_eq!(error, "FILE, line 4: 1 columns, but the sentence's first line has 2");
        assert_eq!(rows(Format::Conll, "\n\n").unwrap(), []);
    }

    #[test]
    fn cells_in_quotes_hold_commas_quotes_and_line_ends() {
        let content = "\u{feff}a,b\n\"x, \"\"y\"\"\r\nz\",\"\"\n\n5\" pipe,\"c\" d\n";
        let expected = [
            (2, r#"a="x, \"y\"\r\nz" b="""#.to_string()),
            (5, r#"a="5\" pipe" b="c d""#.to_string()),
        ];
        assert_eq!(rows(Format::Csv, content).unwrap(), expected);
    }

    #[test]
    fn lines_are_counted_the_same_with_carriage_returns() {
        for end in ["\n", "\r\n"] {
            let broken = ["a,b", "1,2", "", "\"x", "y\",2", "3"].join(end);
            let error = rows(Format::Csv, &broken).unwrap_err();
            assert_eq!(error, "FILE, line 6: 1 columns, but the first line has 2", "{end:?}");
            let broken = ["{\"a\": 1}", "", "{\"a\" 1}", ""].join(end);
            let error = rows(Format::Jsonl, &broken).unwrap_err();
            assert!(error.starts_with("FILE, line 3: no JSON object, column 6"), "{error}");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_swallow_the_file() {
        let error = rows(Format::Csv, "a\nx\n\"y\nz\n").unwrap_err();
        assert_eq!(error, "FILE, line 3: a quote is opened in this row and never closed");
    }

    #[test]
    fn values_of_an_object_keep_their_own_text() {
        let content =
            "\u{feff}{\"n\": 12345678901234567890123, \"x\": 0.1000000000000000000001}\r\n";
        let expected = "n=12345678901234567890123 x=0.1000000000000000000001";
        assert_eq!(rows(Format::Jsonl, content).unwrap(), [(1, expected.to_string())]);
    }

    #[test]
    fn what_python_writes_for_numbers_that_json_has_not_is_null() {
        let content = r#"{"NaN": [NaN, -Infinity], "a\"NaN": "NaN \\", "x": {"y": Infinity}}"#;
        let expected = r#"NaN=[null, null] a"NaN="NaN \\" x={"y": null}"#;
        assert_eq!(rows(Format::Jsonl, content).unwrap(), [(1, expected.to_string())]);
        for wrong in [r#"{"x": NaNs}"#, r#"{"x": nan}"#, r#"{"x": +Infinity}"#, r#"{"x": NaN, "\"#]
        {
            rows(Format::Jsonl, wrong).unwrap_err();
        }
    }

    #[test]
    fn plain_lines_are_texts_whatever_they_hold() {
        let expected = [(1, r#"text="a, \"b\"""#), (2, r#"text="""#), (3, r#"text="{""#)];
        let expected = expected.map(|(line, row)| (line, row.to_string()));
        assert_eq!(rows(Format::Lines, "a, \"b\"\r\n\n{").unwrap(), expected);
        assert!(rows(Format::Lines, "").unwrap().is_empty());
    }

    #[test]
    fn names_that_come_twice_are_refused() {
        let error = rows(Format::Csv, "a,b,a\n1,2,3\n").unwrap_err();
        assert_eq!(error, "FILE, line 1: the header has the column `a` twice");
        let error = rows(Format::Jsonl, "{\"a\": 1, \"a\": 2}").unwrap_err();
        assert_eq!(error, "FILE, line 1: `a` stands twice");
    }

    #[test]
    fn utf_16_is_named() {
        let bytes: Vec<u8> = "a,b\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let from = Bounded::new(std::io::Cursor::new([b"\xff\xfe".to_vec(), bytes].concat()));
        let error = TableReader::new(from, Path::new("FILE"), Format::Csv, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "FILE, line 1: not UTF-8 text; it is UTF-16");
    }
}
