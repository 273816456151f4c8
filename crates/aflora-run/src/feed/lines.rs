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
        let utf16 =
            self.number == 1 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff"));
        let mut line = String::from_utf8(bytes).map_err(|_| {
            let hint = if utf16 { "; it is UTF-16" } else { "" };
            self.problem(format!("not UTF-8 text{hint}"))
        })?;
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

    /// What is wrong with the line that came last.
    fn problem(&self, problem: String) -> DataError {
        DataError::Row { path: self.path.clone(), line: self.number, problem }
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
