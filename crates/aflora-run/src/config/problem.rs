//! A configuration's problems, each with its place and the line that it stands in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A line and column (from 1) of a file whose text is at hand for the snippet.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// Its text.
        text: Arc<String>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An override, as typed.
    CommandLine(String),
    /// The configuration as a whole.
    Nowhere,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with a file as a whole.
    pub(super) fn file(path: &Path, message: impl fmt::Display) -> Self {
        Problem { place: Place::Nowhere, message: format!("{}: {message}", path.display()) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Nowhere => write!(f, "{}", self.message),
            Place::CommandLine(typed) => write!(f, "`{typed}`: {}", self.message),
            Place::File { path, text, line, column } => {
                write!(f, "{}:{line}:{column}: {}", path.display(), self.message)?;
                let Some(source) = text.lines().nth(line.saturating_sub(1)) else { return Ok(()) };
                let gutter = line.to_string().len();
                write!(f, "\n{line:>gutter$} | {source}")?;
                let caret = column.saturating_sub(1);
                write!(f, "\n{:gutter$} | {:caret$}^", "", "")
            }
        }
    }
}

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a problem:")?,
            n => writeln!(f, "the configuration has {n} problems:")?,
        }
        for problem in &self.0 {
            writeln!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
