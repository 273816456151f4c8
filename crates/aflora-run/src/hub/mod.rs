//! Files from the Hugging Face hub, at pinned revisions.
//!
//! The cache is Hugging Face's own (`HF_HUB_CACHE`, or `HF_HOME/hub`, or
//! `~/.cache/huggingface/hub`): what Python has fetched is found here, and the other way round.
//! A file comes from the network only when it is not there and `HF_HUB_OFFLINE` is not set. It
//! is written beside its place as `.incomplete` and renamed when it is whole and right; a download
//! that was broken off goes on where it stopped. What the hub says that a repository does not have
//! is remembered, as Python's client does, so that a cached model needs no network.
//!
//! What comes is held to what the hub says of it: its length, the commit it is of, and its digest.
//! An answer without a commit and an ETag is not the hub's. The token goes to the hub alone, not to
//! the storage that it redirects to, and into no message.
//!
//! | module | |
//! |---|---|
//! | `adapter` | an adapter that is named by a folder or a repository |
//! | `repo` | a repository at a revision, and why a file of it could not be had |
//! | `address` | names, addresses, redirects |
//! | `listing`, `dataset` | what files a data set has; which of them are which split |
//! | `tokenizer` | the files of one |
//! | `environment` | variables, as Python reads them |
//! | `cache` | what lies where on the disk |
//! | `fetch` | a file, from the question to its place in the cache |
//! | `client` | questions, and what answers mean |
//! | `promise` | what the hub says of a file |
//! | `download` | bytes as they come |
//! | `limits` | how long, how often, how much |

mod adapter;
mod address;
mod cache;
mod client;
mod dataset;
mod download;
mod environment;
mod fetch;
mod limits;
mod listing;
mod promise;
mod repo;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use adapter::{name_and_revision, FoundAdapter, MAIN};
pub use address::{is_repo, is_revision};
pub use dataset::{DatasetFiles, DatasetName};
pub use limits::{Limits, LEAST};
pub use listing::Listing;
pub use repo::{HubError, Repo};

use address::{is_part, Endpoint};
use cache::Cache;
use client::{Client, FetchFailure, Token};
use environment::HubEnvironment;
use fetch::Fetch;
use std::path::{Path, PathBuf};

/// Access to the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: Cache,
    /// `None` if what names it is no address.
    endpoint: Option<Endpoint>,
    token: Option<Token>,
    /// The variable that forbids the network.
    offline: Option<&'static str>,
    limits: Limits,
}

impl Hub {
    /// The hub as the environment describes it.
    pub fn from_env() -> Self {
        let found = HubEnvironment::read(&|name| std::env::var_os(name));
        Hub {
            cache: Cache { root: found.cache },
            endpoint: Endpoint::parse(&found.endpoint),
            token: found.token,
            offline: found.offline,
            limits: found.limits,
        }
    }

    /// Whether the network may not be used.
    pub fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    /// The variable that forbids the network, if one does.
    pub fn forbidden_by(&self) -> Option<&'static str> {
        self.offline
    }

    /// The hub's address, without a name and a password that it may hold; `None` if what names it is
    /// no address.
    pub fn address(&self) -> Option<&str> {
        self.endpoint.as_ref().map(Endpoint::name)
    }

    /// Whether there is a token to show to the hub.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The folder that holds what was fetched.
    pub fn cache_folder(&self) -> &Path {
        &self.cache.root
    }

    /// The same, of which only the cache is used, as if the environment forbade the network.
    pub fn without_network(self) -> Self {
        Hub { offline: self.offline.or(Some("HF_HUB_OFFLINE")), ..self }
    }

    /// A hub at another place; for tests and mirrors.
    pub fn at(endpoint: &str, cache: &Path) -> Self {
        Hub {
            cache: Cache { root: cache.into() },
            endpoint: Endpoint::parse(endpoint),
            token: None,
            offline: None,
            limits: Limits::default(),
        }
    }

    /// The same hub, waited for otherwise.
    pub fn with_limits(self, limits: Limits) -> Self {
        Hub { limits, ..self }
    }

    /// Where the cache holds `file`, whether or not it does.
    pub fn cached(&self, repo: &Repo, file: &str) -> PathBuf {
        self.cache.snapshot(repo, &self.cache.commit(repo), file)
    }

    /// The file in the cache, fetched if it is not there.
    ///
    /// `progress` gets the bytes done and, where the server says it, their total.
    ///
    /// # Errors
    /// The hub has none, cannot be asked, refuses, or sends something else; or the cache cannot be
    /// written.
    pub fn get(
        &self,
        repo: &Repo,
        file: &str,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, HubError> {
        let kind = if repo.dataset { "datasets/" } else { "" };
        let name = &repo.repo;
        let path = |revision: &str| format!("{kind}{name}/resolve/{revision}/{file}");
        let shown = |path: &str| self.endpoint.as_ref().map_or(path.into(), |at| at.shown(path));
        let named = is_repo(name) && is_revision(&repo.revision);
        if !(named && file.split('/').all(is_part)) {
            let reason = "its repository, revision or file has a name that the hub has none of";
            return Err(HubError::Fetch {
                url: shown(&path(&repo.revision)),
                reason: reason.into(),
            });
        }
        let commit = self.cache.commit(repo);
        let (path, target) = (path(&commit), self.cache.snapshot(repo, &commit, file));
        let url = shown(&path);
        if target.is_file() {
            return Ok(target);
        }
        if self.cache.is_absent(repo, &commit, file) {
            return Err(HubError::Absent { url });
        }
        if let Some(variable) = self.offline {
            return Err(HubError::Offline { url, variable });
        }
        let Some(endpoint) = &self.endpoint else {
            let reason = "HF_ENDPOINT is no address such as https://huggingface.co (it may hold a \
                          password, so it is not shown)";
            return Err(HubError::Fetch { url, reason: reason.into() });
        };
        let fetch = Fetch {
            cache: &self.cache,
            limits: &self.limits,
            client: Client::new(endpoint, self.token.as_ref(), &self.limits),
            url: endpoint.url(&path),
            repo,
            commit,
            name: file,
        };
        fetch.run(progress).map_err(|failure| match failure {
            FetchFailure::Absent { .. } => HubError::Absent { url },
            FetchFailure::Passing { reason, .. } | FetchFailure::Final(reason) => {
                HubError::Fetch { url, reason }
            }
            FetchFailure::Disk { path, source } => HubError::Io { path, source },
        })
    }

    /// The first of `files` that the repository has, or `None`.
    ///
    /// Where the network may not be used, what the cache lacks of a snapshot that it has counts as
    /// absent, with a warning: Python's `snapshot_download` fetches all that there is, and keeps no
    /// note of what there is not.
    ///
    /// # Errors
    /// As [`get`](Self::get), but for a file that there is not.
    pub fn first_of(
        &self,
        repo: &Repo,
        files: &[&str],
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Option<PathBuf>, HubError> {
        if let Some(cached) = files.iter().map(|f| self.cached(repo, f)).find(|f| f.is_file()) {
            return Ok(Some(cached));
        }
        let mut forbidden = None;
        for file in files {
            match self.get(repo, file, progress) {
                Err(HubError::Absent { .. }) => {}
                Err(HubError::Offline { variable, .. }) if self.cached(repo, "").is_dir() => {
                    forbidden = Some(variable);
                }
                found => return found.map(Some),
            }
        }
        if let Some(variable) = forbidden {
            let (files, name) = (files.join(", "), &repo.repo);
            tracing::warn!(
                "{files}: not in the cache of {name}, and not asked for, because {variable} is set: \
                 taken as absent"
            );
        }
        Ok(None)
    }
}
