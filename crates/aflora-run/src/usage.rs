//! Errors of usage: what the user typed is wrong, and the program ends with code 2.

use anyhow::Result;
use std::path::Path;

/// A wrong call: what was asked for cannot be done as asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Refuses a folder to write to that cannot be made, before anything is done for it.
///
/// # Errors
/// `what` cannot be made at `path`, or nothing in it.
pub fn check_makeable(what: &str, path: &Path) -> Result<()> {
    if let Err(error) = aflora_files::write::check_makeable(path) {
        usage!("{what} {} cannot be made: {error}", path.display());
    }
    Ok(())
}

/// Ends the function with a [`UsageError`].
macro_rules! usage {
    ($($words:tt)*) => {
        return Err($crate::UsageError(format!($($words)*)).into())
    };
}
pub(crate) use usage;
