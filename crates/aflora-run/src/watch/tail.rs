//! New lines of a file that grows.
//!
//! A line counts once its end is written: a half-written last line waits for the next look. A file
//! that got shorter is another one, and is read from its beginning.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// A place in a growing file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

/// What came since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Whether the file began anew; what was read before is no more.
    pub anew: bool,
    /// Whole lines, without their ends.
    pub lines: Vec<String>,
}

impl Tail {
    /// At the beginning of a file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Tail { path, offset: 0 }
    }

    /// The lines that were finished since the last look.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn news(&mut self) -> io::Result<News> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(News::default()),
            Err(error) => return Err(error),
        };
        let anew = file.metadata()?.len() < self.offset;
        if anew {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        Ok(News { anew, lines: text.lines().map(str::to_string).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn half_a_line_waits_for_its_other_half() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.jsonl");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.news().unwrap(), News::default(), "no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.news().unwrap().lines, ["one"]);
        assert!(tail.news().unwrap().lines.is_empty());
        file.write_all(b"o\nthree\n").unwrap();
        assert_eq!(tail.news().unwrap().lines, ["two", "three"]);
    }

    #[test]
    fn a_file_that_got_shorter_is_read_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.jsonl");
        std::fs::write(&path, "a long line\n").unwrap();
        let mut tail = Tail::new(path.clone());
        tail.news().unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(tail.news().unwrap(), News { anew: true, lines: vec!["new".into()] });
    }
}
