//! A repository at a revision, and why a file of it could not be had.

use std::io;
use std::path::PathBuf;

/// A repository at a pinned revision.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// `owner/name`.
    pub repo: String,
    /// A commit hash; or a branch or tag, which is the commit that it was when its first file was
    /// fetched, by this program or Python's.
    pub revision: String,
    /// Whether it is a data set and not a model.
    #[serde(default)]
    pub dataset: bool,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The network may not be used.
    #[error("{url}: not fetched, because {variable} is set")]
    Offline {
        /// What would have been fetched.
        url: String,
        /// What forbids it.
        variable: &'static str,
    },
    /// The repository has no such file.
    #[error("{url}: there is no such file")]
    Absent {
        /// What was asked for.
        url: String,
    },
    /// The server could not be reached or refused.
    #[error("{url}: {reason}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The cache cannot be written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
