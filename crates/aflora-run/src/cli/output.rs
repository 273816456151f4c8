//! Where commands write to.

use aflora_run::UsageError;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;

/// Refuses to write over something that is there.
pub fn new_folder(path: &Path) -> Result<()> {
    if path.exists() {
        let problem = format!("{} exists already; name a new folder", path.display());
        return Err(UsageError(problem).into());
    }
    Ok(())
}

/// Writes to standard output, or to the path that was named.
pub fn write_to(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    match path {
        None => write(&mut std::io::stdout().lock()),
        Some(path) => aflora_files::write_output(path, write)
            .with_context(|| format!("{} cannot be written", path.display())),
    }
}
