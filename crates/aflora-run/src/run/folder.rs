//! A run's folder: what it holds, and when it counts as finished.
//!
//! | file | written |
//! |---|---|
//! | `config.yaml` | at the start: the resolved configuration; `aflora run` takes it again |
//! | `provenance.json` | at the start: versions, device, data and weights with their digests |
//! | `events.jsonl` | while it runs: steps, freeze tests, evaluations |
//! | `events.out.tfevents.*` | while it runs: the same scalars for TensorBoard |
//! | `adapter/` | at each evaluation that is the best so far |
//! | `checkpoint/` | while it runs: what it takes to go on ([`checkpoint`](super::checkpoint)) |
//! | `freeze.csv` | at the end: when each matrix froze |
//! | `metrics.json` | last: a folder without it is not a finished run |
//!
//! Which folder a run gets is decided in [`place`](super::place).

use super::lock::Lock;
use crate::usage;
use aflora_files::write::{is_leftover, remove};
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file whose presence says that the run ended well.
pub const METRICS: &str = "metrics.json";
/// The resolved configuration.
pub const CONFIG: &str = "config.yaml";
/// Where everything came from.
pub const PROVENANCE: &str = "provenance.json";
/// The key in it of the resolved configuration's digest.
pub const CONFIG_DIGEST: &str = "config_sha256";
/// The best epoch's adapter.
pub const ADAPTER: &str = "adapter";

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

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that appears whole or not at all.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        aflora_files::write(&path, content)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// [`write`](Self::write) as indented JSON.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        self.write(name, &indented(value)?)
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
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let written = |name: &str| {
            let begins = ["events.", "predictions-"].iter().any(|start| name.starts_with(start));
            begins || matches!(name, "adapter" | "checkpoint" | "freeze.csv") || is_leftover(name)
        };
        let failed = || format!("{} cannot be cleared", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if written(&entry.file_name().to_string_lossy()) {
                remove(&entry.path()).with_context(failed)?;
            }
        }
        Ok(())
    }
}

/// Whether a run's folder holds the file of that name.
///
/// # Errors
/// Something else stands there, such as a pipe, or it cannot be opened.
pub fn holds(folder: &Path, name: &str) -> Result<bool> {
    let path = folder.join(name);
    match aflora_files::open(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => usage!("{}: {error}", path.display()),
    }
}

/// The most bytes of a JSON file of a run: some hundred thousand evaluations have less.
const MOST: u64 = 64 << 20;

/// Reads a JSON file of a run's folder, which may have come from anywhere.
///
/// # Errors
/// It cannot be read, is longer than any run's, or is something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&aflora_files::read_at_most(path, MOST)?)?)
}

/// As indented JSON with an end of line.
pub fn indented(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}
