//! What can be wrong with a file of a run, or of results.

use std::io;
use std::path::{Path, PathBuf};

/// A file that cannot be read or written, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What stands there is no file, such as a pipe, or cannot be opened.
    #[error("{}: {source}", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds something else than it should.
    #[error("{} is no {what}{}", path.display(), written_by(writer))]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// The version of aflora that wrote it, where that is known.
        writer: Option<String>,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Results hold one cell twice: it would weigh double, or say two things.
    #[error("{}: the cell {cell} stands twice; leave one of them", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The cell's name.
        cell: String,
    },
    /// A log is not what a checkpoint says that it was.
    #[error("{0}")]
    Log(String),
}

/// What reading and writing give.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the folder that was named is at fault, and not a file in it.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::NoFile { .. })
    }

    /// Makes errors of reading `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        |source| Error::Read { path: path.to_path_buf(), source }
    }

    /// Makes errors of writing `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        |source| Error::Write { path: path.to_path_buf(), source }
    }

    /// Makes errors of what `path` holds, which should be a `what`.
    pub(crate) fn content<'a, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        path: &'a Path,
        what: &'static str,
    ) -> impl FnOnce(E) -> Error + 'a {
        move |source| Error::Content {
            path: path.to_path_buf(),
            what,
            writer: None,
            source: source.into(),
        }
    }

    /// Says which version of aflora wrote the file, of one that holds something else than it should.
    pub(crate) fn with_writer(mut self, found: Option<String>) -> Error {
        if let Error::Content { writer, .. } = &mut self {
            *writer = found;
        }
        self
    }
}

fn written_by(writer: &Option<String>) -> String {
    writer.as_ref().map_or(String::new(), |writer| format!(" of this version; {writer} wrote it"))
}
