//! The lines of a text file, each with its number: UTF-8, with or without a byte-order mark, ended
//! by `\n` or `\r\n`.

use super::bounded::Bounded;
use super::DataError;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Lines, one after another.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: BufReader<Bounded<R>>,
    path: PathBuf,
    number: usize,
}

impl<R: Read> Lines<R> {
    /// The lines of a stream; `path` is what messages call it.
    pub fn new(from: Bounded<R>, path: &Path) -> Self {
        Lines { from: BufReader::new(from), path: path.to_path_buf(), number: 0 }
    }

    /// The next line with its end; none behind the last.
    ///
    /// # Errors
    /// The stream fails, or holds no UTF-8 there.
    pub fn next(&mut self) -> Result<Option<String>, DataError> {
        self.number += 1;
        let mut bytes = Vec::new();
        if self.from.read_until(b'\n', &mut bytes).map_err(|e| self.problem(e.to_string()))? == 0 {
            return Ok(None);
        }
        let mut line = String::from_utf8(bytes).map_err(|error| {
            let (bytes, valid) = (error.as_bytes(), error.utf8_error().valid_up_to());
            self.problem(self.not_utf8(bytes, valid))
        })?;
        if self.number == 1 && line.contains('\0') {
            return Err(self.problem("it holds zero bytes; is it UTF-16? Write it as UTF-8".into()));
        }
        if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len_utf8());
        }
        Ok(Some(line))
    }

    /// The number of the line that came last, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// A row ends with the line that came last: the next may be as long as a row can be.
    pub fn end_row(&mut self) {
        self.from.get_mut().next_record();
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.from.get_ref().done
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with a line of which so many bytes are UTF-8.
    fn not_utf8(&self, line: &[u8], valid: usize) -> String {
        if self.number == 1 && (line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff")) {
            return "not UTF-8 text; it is UTF-16".into();
        }
        let column = String::from_utf8_lossy(&line[..valid]).chars().count() + 1;
        let byte = line.get(valid).copied().unwrap_or_default();
        format!(
            "not UTF-8 text: the byte 0x{byte:02x} at character {column}; if it is Windows-1252, as \
             Excel writes it, `iconv -f WINDOWS-1252 -t UTF-8` makes UTF-8 of it"
        )
    }

    /// What is wrong with the line that came last.
    pub fn problem(&self, problem: String) -> DataError {
        self.problem_at(self.number, problem)
    }

    /// What is wrong with a line.
    pub fn problem_at(&self, line: usize, problem: String) -> DataError {
        DataError::Row { path: self.path.clone(), line, problem }
    }
}

/// What some editors put before a text, and files put together hold within.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A line without its end, and the end.
pub(super) fn split_end(line: &str) -> (&str, &str) {
    let content = line.strip_suffix('\n').unwrap_or(line);
    let content = content.strip_suffix('\r').unwrap_or(content);
    line.split_at(content.len())
}
