//! Where commands write to.

use aflora_run::UsageError;
use anyhow::{Context, Result};
use std::io::{self, Write};
use std::path::Path;

/// Refuses to write over something that is there, be it a link that leads nowhere.
pub fn new_folder(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let problem = format!("{} exists already; name a new folder", path.display());
        return Err(UsageError(problem).into());
    }
    Ok(())
}

/// Why an output was not written.
enum Failure {
    /// The output itself.
    Output(io::Error),
    /// What should have filled it.
    Content(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// Writes to standard output, or to the path that was named.
pub fn write_to(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        let mut output = io::BufWriter::new(io::stdout().lock());
        write(&mut output)?;
        return output.flush().context("standard output cannot be written");
    };
    let written = aflora_files::write_output(path, |to| write(to).map_err(Failure::Content));
    written.map_err(|failure| match failure {
        Failure::Content(error) => error,
        Failure::Output(error) => {
            anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))
        }
    })
}
