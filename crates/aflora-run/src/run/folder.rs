//! A run's folder while it runs.
//!
//! [`aflora_record`] has its files; `checkpoint/` is [`checkpoint`](super::checkpoint)'s.
//!
//! Which folder a run gets is decided in [`location`](super::location).

use super::lock::Lock;
use aflora_files::write::{is_leftover, remove};
use aflora_record::names::is_of_an_earlier_start;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A run's own folder, which no other process writes.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Takes a folder that is there.
    ///
    /// # Errors
    /// Another process writes it, or it cannot be written.
    pub fn take(path: &Path) -> Result<Self> {
        Ok(RunFolder { path: path.to_path_buf(), _lock: Lock::take(path)? })
    }

    /// Takes a folder with a lock that is held already.
    pub fn with(path: &Path, lock: Lock) -> Self {
        RunFolder { path: path.to_path_buf(), _lock: lock }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that appears whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written; one of that name that was there before stays as it was.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        aflora_files::write(&path, content)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Removes what an interrupted write left.
    pub fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_leftover(&name) {
                let _ = remove(&entry.path());
            }
        }
    }

    /// Removes what a run that starts anew will write, or would not.
    ///
    /// # Errors
    /// The folder cannot be read, or something in it cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let failed = || format!("{} cannot be cleared", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if is_of_an_earlier_start(&entry.file_name().to_string_lossy()) {
                remove(&entry.path()).with_context(failed)?;
            }
        }
        Ok(())
    }
}
