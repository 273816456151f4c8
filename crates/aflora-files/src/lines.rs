//! Lines of a file that may be of any length, one at a time: neither a log of many gigabytes nor
//! a line without an end fills the memory.

use std::io::{self, BufRead, Read};

/// The most bytes of a line: a hundred times the longest that a run writes.
pub const LONGEST: u64 = 16 << 20;

/// Reads the lines that are whole, each with its end, into `line`, and gives how many bytes they
/// had together. What stands behind the last end of line is read, and does not count.
///
/// # Errors
/// The file cannot be read, or a line is longer than [`LONGEST`].
pub fn whole_lines(mut from: impl BufRead, mut line: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut bytes = Vec::new();
    let mut done = 0;
    loop {
        bytes.clear();
        (&mut from).take(LONGEST).read_until(b'\n', &mut bytes)?;
        if !bytes.ends_with(b"\n") {
            return match bytes.len() as u64 == LONGEST {
                true => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a line has more than {LONGEST} bytes"),
                )),
                false => Ok(done),
            };
        }
        done += bytes.len() as u64;
        line(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_half_a_line_does_not_count() {
        let mut lines = Vec::new();
        let done = whole_lines(&b"one\n\ntw"[..], |line| lines.push(line.to_vec())).unwrap();
        assert_eq!((done, lines), (5, vec![b"one\n".to_vec(), b"\n".to_vec()]));
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let endless = io::BufReader::new(io::repeat(0));
        let error = whole_lines(endless, |_| {}).unwrap_err().to_string();
        assert!(error.contains("a line has more than"), "{error}");
    }
}
