//! A file mapped into memory: its pages are read when they are looked at. One of the two places
//! of this crate with unsafe code; the other is [`weights`](crate::weights)' view of a tensor.
//!
//! A file that another process cuts short meanwhile ends this one, as with every program that
//! maps its input. That is why what aflora writes itself is written beside its place and renamed.

use aflora_files as files;
use memmap2::Mmap;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// It is no file, or cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = files::open(path)?;
        // SAFETY: the map is read only, and nobody here writes to the file: what others do to it
        // is told above.
        unsafe { Mmap::map(&file) }.map(Mapped)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
