//! What the first of the processes that train together has on its disk, and the others need: it comes
//! over the network, so that the disk need not be theirs.

use aflora_cuda::World;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder that this process can read.
#[derive(Debug)]
pub enum Shared<'a> {
    /// It lies here.
    Here(&'a Path),
    /// This is a copy, which is removed with it.
    Copied(TempDir),
}

impl Shared<'_> {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        match self {
            Shared::Here(path) => path,
            Shared::Copied(copy) => copy.path(),
        }
    }
}

/// The files of the folder that the first process names, on every process; folders within it are left
/// out. The others name none.
///
/// # Errors
/// It cannot be read or written, or a process is lost.
pub fn folder<'a>(world: &World, path: Option<&'a Path>) -> Result<Shared<'a>> {
    let mut names = Vec::new();
    if let Some(path) = path {
        let failed = || format!("{} cannot be read", path.display());
        for entry in fs::read_dir(path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if entry.file_type().with_context(failed)?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
    }
    let names = world.broadcast_bytes(serde_json::to_vec(&names)?, 0)?;
    let names: Vec<String> = serde_json::from_slice(&names)?;
    let shared = match path {
        Some(path) => Shared::Here(path),
        None => Shared::Copied(tempfile::tempdir().context("a folder for a copy")?),
    };
    for name in &names {
        let bytes = match &shared {
            Shared::Here(path) if !world.is_alone() => {
                let path = path.join(name);
                fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?
            }
            _ => Vec::new(),
        };
        let bytes = world.broadcast_bytes(bytes, 0)?;
        if let Shared::Copied(copy) = &shared {
            let path = copy.path().join(name);
            fs::write(&path, bytes)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
    }
    Ok(shared)
}
