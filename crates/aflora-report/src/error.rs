//! Errors of reports, `watch` and `ls`.

use crate::words::causes;
use std::io;

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wrong call: what was asked for cannot be shown as asked.
    #[error("{0}")]
    Usage(String),
    /// A file of a run or of results.
    #[error(transparent)]
    Record(#[from] aflora_record::Error),
    /// Results that cannot be read, beside others that were rendered.
    #[error("{}", each(.0))]
    Damaged(Vec<aflora_record::Error>),
    /// A folder, a file or the terminal.
    #[error("{what}")]
    Io {
        /// What cannot be done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Results cannot be written as CSV.
    #[error("the CSV cannot be made")]
    Csv(#[from] csv::Error),
}

/// The result of showing something.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether what was asked for cannot be done as asked.
    pub fn is_usage(&self) -> bool {
        match self {
            Error::Usage(_) => true,
            Error::Record(error) => error.is_usage(),
            _ => false,
        }
    }
}

fn each(errors: &[aflora_record::Error]) -> String {
    errors.iter().map(|error| causes(error)).collect::<Vec<_>>().join("\n")
}

/// Says what could not be done.
pub(crate) trait Context<T> {
    /// The error in whose place `what` stands.
    fn context(self, what: impl Into<String>) -> Result<T>;
    /// The same, where the words take work.
    fn with_context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source })
    }

    fn with_context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

/// Ends the function with an [`Error::Usage`].
macro_rules! usage {
    ($($words:tt)*) => {
        return Err($crate::Error::Usage(format!($($words)*)))
    };
}
pub(crate) use usage;
