//! What a template may compute, nest and write.

use minijinja::{Error, State};
use std::io;

/// Bytes of a template: fifty times the largest that models come with.
pub(super) const LONGEST_TEMPLATE: usize = 1 << 20;
/// Bytes of a rendered conversation.
pub(super) const LONGEST_CHAT: usize = 1 << 25;

/// Instructions that a template may execute, one for 64 bytes that it makes among them: several
/// hundred for each of a thousand messages.
pub(super) const FUEL: u64 = 1_000_000;
/// How deep calls and blocks may lie in each other.
pub(super) const DEPTH: usize = 200;

/// Bytes that cannot become too many.
pub(super) struct Bounded {
    pub bytes: Vec<u8>,
    pub most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pays for `bytes` that a filter is about to make.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64 + 1)
}
