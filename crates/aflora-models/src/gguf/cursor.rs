//! Bytes read from front to back, each count checked against what is left before it is believed.

use crate::error::cut;

/// A place in a file's bytes.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, position: 0 }
    }

    /// Bytes before the next one.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        if n > self.left() {
            return Err(cut(format!(
                "it ends within its header, {n} bytes behind {}",
                self.position
            )));
        }
        let taken = &self.bytes[self.position..self.position + n];
        self.position += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many things follow, each of `least` bytes at the least: no more than there is room for.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, String> {
        let count = self.u64()?;
        let room = self.left() / least.max(1);
        match usize::try_from(count).ok().filter(|count| *count <= room) {
            Some(count) => Ok(count),
            None => Err(cut(format!(
                "its header counts {count} things where there is room for {room} at most"
            ))),
        }
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Result<&'a str, String> {
        let length = self.count(1)?;
        let start = self.position;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| format!("the text at byte {start} of its header is not UTF-8"))
    }
}
