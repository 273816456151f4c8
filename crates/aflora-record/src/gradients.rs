//! The projection matrices' gradients and values at every step, for `aflora replay`.
//!
//! `gradients.bin` is a line of JSON, the [`Header`], and then for each step the group's gradient
//! as the backward pass left it and its values before the update, both fp32 and little-endian, in
//! the order of the header's matrices.

use crate::error::{Error, Result};
use crate::names::GRADIENTS;
use aflora_files::own;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What the numbers are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The matrices: names and shapes.
    pub matrices: Vec<(String, [i64; 2])>,
    /// Updates an epoch.
    pub steps_per_epoch: u64,
    /// Updates of the run.
    pub total_steps: u64,
}

impl Header {
    /// Numbers of all matrices together.
    pub fn numel(&self) -> usize {
        self.matrices.iter().map(|(_, [rows, columns])| (rows * columns) as usize).sum()
    }

    /// Whether there are matrices, and the file of `length` bytes, this header's `line` among
    /// them, can hold a step of theirs.
    fn fits(&self, line: usize, length: u64) -> bool {
        let sides = self.matrices.iter().flat_map(|(_, shape)| shape);
        // Below this the products and their sum fit their types.
        let sane = sides.into_iter().all(|side| (1..1 << 24).contains(side));
        let numel = |(_, [rows, columns]): &(String, [i64; 2])| (rows * columns) as u64;
        sane && !self.matrices.is_empty()
            && self
                .matrices
                .iter()
                .try_fold(0u64, |sum, matrix| sum.checked_add(numel(matrix)))
                .and_then(|numel| numel.checked_mul(8)?.checked_add(line as u64))
                .is_some_and(|wanted| wanted <= length)
    }

    /// Bytes of a step.
    pub fn step_bytes(&self) -> u64 {
        2 * 4 * self.numel() as u64
    }
}

/// Writes a run's log.
#[derive(Debug)]
pub struct GradientWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl GradientWriter {
    /// Starts a log in `folder`, or goes on with the one there behind its first `steps` steps.
    ///
    /// # Errors
    /// It cannot be written, or has fewer steps.
    pub fn open(folder: &Path, header: &Header, steps: u64) -> Result<Self> {
        let path = folder.join(GRADIENTS);
        let open = || -> io::Result<File> {
            let mut line = serde_json::to_vec(header)?;
            line.push(b'\n');
            let whole = line.len() as u64 + steps * header.step_bytes();
            let mut file = match steps {
                0 => own::create(&path)?,
                _ => own::open(&path)?,
            };
            if steps == 0 {
                file.write_all(&line)?;
            }
            if file.metadata()?.len() < whole {
                return Err(io::Error::other("it ends before the step to go on from"));
            }
            file.set_len(whole)?;
            io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(Error::write(&path))?;
        Ok(GradientWriter { path, file: BufWriter::new(file) })
    }

    /// Adds to a step: first all bytes of its gradient, then those of its values.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::write(&self.path))
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::write(&self.path))
    }
}

/// Reads a run's log.
#[derive(Debug)]
pub struct GradientReader {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
}

impl GradientReader {
    /// Opens the log in a run's folder.
    ///
    /// # Errors
    /// There is none ([`Error::is_missing`]), or it is damaged, or has no step.
    pub fn open(run: &Path) -> Result<Self> {
        let path = run.join(GRADIENTS);
        let file = aflora_files::open(&path).map_err(Error::read(&path))?;
        let length = file.metadata().map_or(0, |about| about.len());
        let mut file = BufReader::new(file);
        let mut line = String::new();
        const WHAT: &str = "record of gradients";
        // A header names some hundred matrices: far below this.
        let read = (&mut file).take(16 << 20).read_line(&mut line);
        read.map_err(Error::content(&path, WHAT))?;
        let header: Header = serde_json::from_str(&line).map_err(Error::content(&path, WHAT))?;
        if !header.fits(line.len(), length) {
            return Err(Error::content(&path, WHAT)("it holds no whole step of any matrix"));
        }
        Ok(GradientReader { path, file, header })
    }

    /// What the numbers are of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next step's gradient and values; `None` behind the last whole one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn step(&mut self) -> Result<Option<[Vec<f32>; 2]>> {
        let mut bytes = Vec::new();
        let wanted = self.header.step_bytes();
        let read = (&mut self.file).take(wanted).read_to_end(&mut bytes);
        read.map_err(Error::read(&self.path))?;
        if (bytes.len() as u64) < wanted {
            return Ok(None);
        }
        let mut numbers: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let values = numbers.split_off(self.header.numel());
        Ok(Some([numbers, values]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_more_than_the_file_holds_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let open = |shapes: &str, bytes: usize| {
            let header =
                format!("{{\"matrices\":[{shapes}],\"steps_per_epoch\":1,\"total_steps\":1}}\n");
            let text = header + &"x".repeat(bytes);
            std::fs::write(folder.path().join(GRADIENTS), text).unwrap();
            GradientReader::open(folder.path())
        };
        open(r#"["a",[2,3]]"#, 48).unwrap();
        let large = [r#"["a",[16777215,16777215]]"#; 70_000].join(",");
        for (shapes, bytes) in [
            (r#"["a",[2,3]]"#, 47),
            (r#"["a",[16777215,16777215]]"#, 1000),
            (r#"["a",[-1,3]]"#, 1000),
            // Its steps would have no end.
            ("", 1000),
            (&large, 1000),
        ] {
            let error = open(shapes, bytes).unwrap_err().to_string();
            assert!(error.contains("is no record of gradients"), "{error}");
        }
    }

    #[test]
    fn a_log_goes_on_behind_the_steps_that_count() {
        let folder = tempfile::tempdir().unwrap();
        let matrices = vec![("a".to_string(), [1, 2])];
        let header = Header { matrices, steps_per_epoch: 2, total_steps: 4 };
        let bytes = |values: [f32; 4]| values.map(f32::to_le_bytes).concat();
        let mut log = GradientWriter::open(folder.path(), &header, 0).unwrap();
        log.write(&bytes([1.0, 2.0, 3.0, 4.0])).unwrap();
        log.write(&bytes([9.0; 4])).unwrap();
        log.flush().unwrap();
        let mut log = GradientWriter::open(folder.path(), &header, 1).unwrap();
        log.write(&bytes([5.0, 6.0, 7.0, 8.0])[..9]).unwrap();
        log.flush().unwrap();
        assert!(GradientWriter::open(folder.path(), &header, 2).is_err(), "the second is half");
        let mut log = GradientReader::open(folder.path()).unwrap();
        assert_eq!(log.header(), &header);
        assert_eq!(log.step().unwrap(), Some([vec![1.0, 2.0], vec![3.0, 4.0]]));
        assert_eq!(log.step().unwrap(), None);
    }
}
