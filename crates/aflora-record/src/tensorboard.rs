//! Scalars in TensorBoard's event-file format.
//!
//! A file is a sequence of records: length (u64 LE), its masked CRC-32C, the protobuf `Event`,
//! its masked CRC-32C. The few fields that a scalar needs are encoded by hand: wall_time = 1
//! (double), step = 2 (varint), file_version = 3 (string), summary = 5 { value = 1 { tag = 1,
//! simple_value = 2 } }.

use crate::names::SCALARS as PREFIX;
use aflora_files::{inside, own, printable_line};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends scalars to one event file.
#[derive(Debug)]
pub struct ScalarWriter {
    name: String,
    file: BufWriter<File>,
}

impl ScalarWriter {
    /// Starts an event file in `folder`.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let name = format!("{PREFIX}{:010}.aflora", now() as u64);
        let file = BufWriter::new(own::create(&folder.join(&name))?);
        let mut writer = ScalarWriter { name, file };
        let mut event = time_field();
        bytes_field(&mut event, 3, b"brain.Event:2");
        writer.record(&event)?;
        Ok(writer)
    }

    /// Goes on with the file `name` in `folder`, behind its first `length` bytes.
    ///
    /// # Errors
    /// The name is no file's name, or the file is missing, shorter than that, or cannot be written.
    pub fn go_on(folder: &Path, name: &str, length: u64) -> io::Result<Self> {
        let file = BufWriter::new(open_at(&place(folder, name)?, length)?);
        Ok(ScalarWriter { name: name.to_string(), file })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes everything to the disk, and tells how many bytes the file has then.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn sync(&mut self) -> io::Result<u64> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        self.file.stream_position()
    }

    /// Adds one value of the series `tag` at `step`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> io::Result<()> {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend_from_slice(&(value as f32).to_le_bytes());
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &entry);
        let mut event = time_field();
        event.push(2 << 3);
        varint(&mut event, step);
        bytes_field(&mut event, 5, &summary);
        self.record(&event)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

/// Where the event file `name` lies, a name that came out of a file: no other file is cut.
///
/// # Errors
/// It is no event file's, or leads out of the folder.
pub(crate) fn place(folder: &Path, name: &str) -> io::Result<PathBuf> {
    if !name.starts_with(PREFIX) || name.contains('/') {
        let problem = format!("`{}` is no name of an event file", printable_line(name));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    inside(folder, name)
}

/// A file cut to its first `length` bytes, to be written on.
pub(crate) fn open_at(path: &Path, length: u64) -> io::Result<File> {
    let mut file = own::open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn time_field() -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&now().to_le_bytes());
    event
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord's mask keeps a CRC of data that holds CRCs from being weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_number_takes_seven_bits_a_byte() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }

    #[test]
    fn the_checksum_is_the_one_that_tensorflow_writes() {
        // Event files start with the version event of 24 bytes: 18 00 … 00, then a3 7f 4b 22.
        assert_eq!(masked_crc(&24u64.to_le_bytes()), 0x224b_7fa3);
    }
}
