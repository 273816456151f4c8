//! Reading records of a size that a record can have: a stream without an end of line would fill
//! the memory otherwise, and so would an archive that unpacks to more than any disk holds.

use std::io::{self, Read};

/// Bytes of a row at the most: a hundred thousand pages.
const LONGEST: u64 = 1 << 28;

/// A stream that knows how much of it was read, and fails where a record is too long.
#[derive(Debug)]
pub struct Bounded<R> {
    from: R,
    /// Bytes read so far.
    pub done: u64,
    record: u64,
    most: u64,
}

impl<R: Read> Bounded<R> {
    /// A stream of any length.
    pub fn new(from: R) -> Self {
        Bounded { from, done: 0, record: 0, most: u64::MAX }
    }

    /// A stream of `most` bytes together at the most.
    pub fn with_most(from: R, most: u64) -> Self {
        Bounded { most, ..Bounded::new(from) }
    }

    /// A record was read, and the next begins.
    pub fn next_record(&mut self) {
        self.record = self.done;
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.done += n as u64;
        if self.done - self.record > LONGEST {
            return Err(io::Error::other(format!("a row of more than {LONGEST} bytes")));
        }
        if self.done > self.most {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", self.most)));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_line_without_an_end_is_an_error_and_many_lines_are_none() {
        let mut line = String::new();
        let mut endless = BufReader::new(Bounded::new(io::repeat(b'x')));
        let error = endless.read_line(&mut line).unwrap_err().to_string();
        assert!(error.contains("a row of more than"), "{error}");

        let mut lines = BufReader::new(Bounded::with_most(&b"ab\ncd\n"[..], 6));
        for _ in 0..2 {
            line.clear();
            lines.read_line(&mut line).unwrap();
            lines.get_mut().next_record();
        }
        assert_eq!(line, "cd\n");
        let error = Bounded::with_most(&b"abc"[..], 2).read(&mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than 2 bytes"));
    }
}
