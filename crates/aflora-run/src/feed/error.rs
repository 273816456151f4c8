//! What can be wrong with data, where, and what would be right.

use std::path::{Path, PathBuf};

/// An error about a task's data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row is not as it should be.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was found, and what would be right.
        problem: String,
    },
    /// A file is not as it should be.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found, and what would be right.
        problem: String,
    },
    /// A task's folder lacks one of its files.
    #[error("{path}: {problem}", path = path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// What is not in it.
        problem: String,
    },
    /// There are no examples.
    #[error("{place}: there are no examples in it")]
    Empty {
        /// The file or split.
        place: String,
    },
    /// All labels are the same.
    #[error("{place}: all {rows} examples have the label {label}; there is nothing to learn (is `limit` too small?)")]
    OneLabel {
        /// The file or split.
        place: String,
        /// The label.
        label: String,
        /// How many examples.
        rows: usize,
    },
    /// The data are nowhere.
    #[error("the data of task `{task}` were not found. Tried:{tried}\n{remedy}")]
    NotFound {
        /// The task.
        task: String,
        /// One line each.
        tried: String,
        /// How to provide them.
        remedy: String,
    },
}

/// The start of what was found: a cell may be as long as its file.
pub(crate) fn short(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

impl DataError {
    /// An [`DataError::Io`] at `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + '_ {
        move |source| DataError::Io { path: path.to_path_buf(), source }
    }

    /// A [`DataError::Incomplete`].
    pub(crate) fn incomplete(path: &Path, problem: impl Into<String>) -> DataError {
        DataError::Incomplete { path: path.to_path_buf(), problem: problem.into() }
    }

    /// A [`DataError::File`].
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> DataError {
        DataError::File { path: path.to_path_buf(), problem: problem.into() }
    }
}
