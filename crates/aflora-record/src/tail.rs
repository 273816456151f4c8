//! New lines of a file that grows.
//!
//! A line counts once its end is written: a half-written last line waits for the next look. A file
//! that got shorter is another one, and is read from its beginning.

use aflora_files::lines::whole_lines;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

/// A place in a growing file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

/// What came since the last look, bit by bit: a file may be larger than the memory.
#[derive(Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// The file began anew; what was read before is no more.
    Anew,
    /// A whole line, without its end.
    Line(&'a str),
}

impl Tail {
    /// At the beginning of a file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Tail { path, offset: 0 }
    }

    /// Tells the lines that were finished since the last look.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is no file, or has a line that is longer than any
    /// run's.
    pub fn news(&mut self, mut tell: impl FnMut(News)) -> io::Result<()> {
        let mut file = match aflora_files::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
            tell(News::Anew);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += whole_lines(BufReader::new(file), |line| {
            let line = String::from_utf8_lossy(line);
            tell(News::Line(line.trim_end_matches(['\n', '\r'])));
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    /// The lines that came; `-` for a file that began anew.
    fn news(tail: &mut Tail) -> Vec<String> {
        let mut told = Vec::new();
        let tell = |news: News| match news {
            News::Anew => told.push("-".to_string()),
            News::Line(line) => told.push(line.to_string()),
        };
        tail.news(tell).unwrap();
        told
    }

    #[test]
    fn half_a_line_waits_for_its_other_half() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.jsonl");
        let mut tail = Tail::new(path.clone());
        assert!(news(&mut tail).is_empty(), "no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(news(&mut tail), ["one"]);
        assert!(news(&mut tail).is_empty());
        file.write_all(b"o\nthree\n").unwrap();
        assert_eq!(news(&mut tail), ["two", "three"]);
    }

    #[test]
    fn a_file_that_got_shorter_is_read_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.jsonl");
        std::fs::write(&path, "a long line\n").unwrap();
        let mut tail = Tail::new(path.clone());
        news(&mut tail);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(news(&mut tail), ["-", "new"]);
    }
}
