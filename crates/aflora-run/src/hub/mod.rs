//! Files from the Hugging Face hub, at pinned revisions.
//!
//! The cache is Hugging Face's own (`HF_HUB_CACHE`, or `HF_HOME/hub`, or
//! `~/.cache/huggingface/hub`): what Python has fetched is found here, and the other way round.
//! A file comes from the network only when it is not there and `HF_HUB_OFFLINE` is not set. It
//! is written beside its place as `.incomplete` and renamed when its length is right; a download
//! that was broken off goes on where it stopped. What a repository does not have is remembered,
//! as Python's client does, so that a cached model needs no network.
//!
//! What comes is held to what the hub says of it: its length, the commit it is of, and the
//! SHA-256 of a file in large-file storage, which weights and tables are. The token goes to the
//! hub alone, not to the storage that it redirects to, and into no message.

mod address;
mod promise;
#[cfg(test)]
mod tests;

pub use address::{is_repo, is_revision};

use crate::provenance::sha256;
use address::{is_part, origin, redirected};
use promise::{is_hex, Promise};
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A repository at a pinned revision.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// `owner/name`.
    pub repo: String,
    /// A commit hash.
    pub revision: String,
    /// Whether it is a data set and not a model.
    #[serde(default)]
    pub dataset: bool,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The network may not be used.
    #[error("{url}: not fetched, because HF_HUB_OFFLINE is set")]
    Offline {
        /// What would have been fetched.
        url: String,
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

impl HubError {
    /// The error without what stands before the host in an address such as that of a mirror:
    /// `https://name:password@host`.
    fn without_password(mut self) -> Self {
        if let HubError::Offline { url } | HubError::Absent { url } | HubError::Fetch { url, .. } =
            &mut self
        {
            let host = url.find("://").map_or(0, |at| at + 3);
            if let Some(at) = origin(url).rfind('@').filter(|&at| at >= host) {
                url.replace_range(host..=at, "");
            }
        }
        self
    }
}

/// A token, which no message shows.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The most bytes of a file whose length nobody tells.
const MOST_UNTOLD: u64 = 1 << 30;

/// The most redirects to follow.
const REDIRECTS: usize = 8;

/// Access to the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<Token>,
    offline: bool,
}

impl Hub {
    /// The hub as the environment describes it.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|v| !v.is_empty());
        let home = || set("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let hf_home =
            || set("HF_HOME").map_or_else(|| home().join(".cache/huggingface"), PathBuf::from);
        let on = |name: &str| set(name).is_some_and(|v| !matches!(v.as_str(), "0" | "false"));
        Hub {
            cache: set("HF_HUB_CACHE").map_or_else(|| hf_home().join("hub"), PathBuf::from),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: set("HF_TOKEN")
                .or_else(|| {
                    let token = aflora_files::read_text(&hf_home().join("token")).ok()?;
                    Some(token.trim().to_string()).filter(|t| !t.is_empty())
                })
                .map(Token),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
        }
    }

    /// Whether the network may not be used.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The same, of which only the cache is used.
    pub fn without_network(self) -> Self {
        Hub { offline: true, ..self }
    }

    /// A hub at another place; for tests and mirrors.
    pub fn at(endpoint: &str, cache: &Path) -> Self {
        Hub { cache: cache.into(), endpoint: endpoint.into(), token: None, offline: false }
    }

    /// Where the cache holds `file`, whether or not it does.
    pub fn cached(&self, repo: &Repo, file: &str) -> PathBuf {
        self.folder(repo).join("snapshots").join(&repo.revision).join(file)
    }

    /// Where the cache remembers that the repository has no `file`.
    fn absent(&self, repo: &Repo, file: &str) -> PathBuf {
        self.folder(repo).join(".no_exist").join(&repo.revision).join(file)
    }

    fn folder(&self, repo: &Repo) -> PathBuf {
        let kind = if repo.dataset { "datasets" } else { "models" };
        self.cache.join(format!("{kind}--{}", repo.repo.replace('/', "--")))
    }

    /// The file in the cache, fetched if it is not there.
    ///
    /// `progress` gets the bytes done and, where the server says it, their total.
    pub fn get(
        &self,
        repo: &Repo,
        file: &str,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, HubError> {
        self.find(repo, file, progress).map_err(HubError::without_password)
    }

    fn find(
        &self,
        repo: &Repo,
        file: &str,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, HubError> {
        let kind = if repo.dataset { "datasets/" } else { "" };
        let Repo { repo: name, revision, .. } = repo;
        let url = format!("{}/{kind}{name}/resolve/{revision}/{file}", self.endpoint);
        if !(is_repo(name) && is_revision(revision) && file.split('/').all(is_part)) {
            let reason = "its repository, revision or file has a name that the hub has none of";
            return Err(HubError::Fetch { url, reason: reason.into() });
        }
        let target = self.cached(repo, file);
        if target.is_file() {
            return Ok(target);
        }
        let absent = self.absent(repo, file);
        if absent.is_file() {
            return Err(HubError::Absent { url });
        }
        if self.offline {
            return Err(HubError::Offline { url });
        }
        let fetched = self.fetch(&url, revision, &target, progress);
        if let Err(HubError::Absent { .. }) = fetched {
            // Only spares a question the next time.
            let _ = absent.parent().map(fs::create_dir_all);
            let _ = File::create(&absent);
        }
        fetched.map(|()| target)
    }

    /// The first of `files` that the repository has, or `None`.
    ///
    /// # Errors
    /// The hub cannot be asked.
    pub fn first_of(
        &self,
        repo: &Repo,
        files: &[&str],
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Option<PathBuf>, HubError> {
        if let Some(cached) = files.iter().map(|f| self.cached(repo, f)).find(|f| f.is_file()) {
            return Ok(Some(cached));
        }
        for file in files {
            match self.get(repo, file, progress) {
                Err(HubError::Absent { .. }) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }

    fn fetch(
        &self,
        url: &str,
        revision: &str,
        target: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), HubError> {
        let mut partial = target.as_os_str().to_os_string();
        partial.push(".incomplete");
        let partial = PathBuf::from(partial);
        let io_failed = |source| HubError::Io { path: partial.clone(), source };
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(io_failed)?;
        }
        let mut file =
            File::options().create(true).append(true).open(&partial).map_err(io_failed)?;
        // One process fetches; others wait for it and find the file.
        file.lock().map_err(io_failed)?;
        if target.is_file() {
            return Ok(());
        }
        let fetched = self.fetch_into(url, revision, &mut file, progress);
        match fetched {
            Ok(promise) => {
                if let Some(promised) = promise.sha256 {
                    let found = sha256(&partial).map_err(io_failed)?;
                    if found != promised {
                        let _ = fs::remove_file(&partial);
                        let reason = format!(
                            "what came has the SHA-256 {found}, but should have {promised}; it \
                             was removed, and the same command gets it anew"
                        );
                        return Err(HubError::Fetch { url: url.to_string(), reason });
                    }
                }
                fs::rename(&partial, target).map_err(io_failed)
            }
            Err(error) => {
                // What came is kept for the next time; nothing is not.
                if file.metadata().is_ok_and(|m| m.len() == 0) {
                    let _ = fs::remove_file(&partial);
                }
                Err(error)
            }
        }
    }

    /// Appends what `file` still lacks of `url`.
    fn fetch_into(
        &self,
        url: &str,
        revision: &str,
        file: &mut File,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Promise, HubError> {
        let failed = |reason: String| HubError::Fetch { url: url.to_string(), reason };
        let io_failed = |e: io::Error| failed(e.to_string());
        let have = file.metadata().map_err(io_failed)?.len();
        let (mut response, promise) = match self.ask(url, have) {
            Ok(answer) => answer,
            // The part is longer than the file: of no use.
            Err(ureq::Error::StatusCode(416)) if have > 0 => {
                file.set_len(0).map_err(io_failed)?;
                return self.fetch_into(url, revision, file, progress);
            }
            Err(ureq::Error::StatusCode(404)) => {
                return Err(HubError::Absent { url: url.to_string() })
            }
            Err(ureq::Error::StatusCode(code @ (401 | 403))) => {
                return Err(failed(format!(
                    "refused ({code}): a private or gated repository wants HF_TOKEN"
                )))
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        if response.status().is_redirection() {
            return Err(failed("it is redirected without an end, or to no safe address".into()));
        }
        if let Some(commit) = &promise.commit {
            if is_hex(revision, 40) && commit != revision {
                return Err(failed(format!("the hub answered with the commit {commit}")));
            }
        }
        let goes_on = response.status() == 206;
        if !goes_on {
            file.set_len(0).map_err(io_failed)?;
        }
        let start = if goes_on { have } else { 0 };
        let told = response.body().content_length().and_then(|rest| start.checked_add(rest));
        let total = told.or(promise.size);
        let most = total.unwrap_or(MOST_UNTOLD);
        let mut body = response.body_mut().as_reader();
        let done = copy(&mut body, file, start, total, most, progress).map_err(io_failed)?;
        match total {
            Some(total) if done != total => Err(failed(format!(
                "the connection ended after {done} of {total} bytes; the same command goes on there"
            ))),
            _ if promise.size.is_some_and(|size| size != done) => {
                file.set_len(0).map_err(io_failed)?;
                let size = promise.size.unwrap_or_default();
                Err(failed(format!("{done} bytes came, but the hub says that it has {size}")))
            }
            _ => file.sync_all().map_err(io_failed).map(|()| promise),
        }
    }

    /// Asks for `url` from the byte `from` on; gives the answer of the last redirect, and what
    /// was said on the way there.
    fn ask(
        &self,
        url: &str,
        from: u64,
    ) -> Result<(ureq::http::Response<ureq::Body>, Promise), ureq::Error> {
        // Short: a machine without a network should say so at once.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(Duration::from_millis(800)))
            .timeout_connect(Some(Duration::from_millis(1000)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .max_redirects(0)
            .build()
            .into();
        let mut promise = Promise::default();
        let mut at = url.to_string();
        for redirects in 0.. {
            let own = origin(&at) == origin(&self.endpoint);
            let mut request = agent.get(&at);
            if let Some(Token(token)) = self.token.as_ref().filter(|_| own) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call()?;
            promise.add(response.headers(), own);
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            let next = location.and_then(|to| redirected(&at, to));
            match next.filter(|_| response.status().is_redirection() && redirects < REDIRECTS) {
                Some(next) => at = next,
                None => return Ok((response, promise)),
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }
}

/// Appends `from` to `to`, which holds `start` bytes and may hold `most`; gives how many it holds
/// then.
fn copy(
    from: &mut dyn Read,
    to: &mut File,
    start: u64,
    total: Option<u64>,
    most: u64,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut done = start;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(n) if done + n as u64 > most => {
                to.set_len(0)?;
                return Err(io::Error::other(format!("more than {most} bytes come: no end to it")));
            }
            Ok(n) => to.write_all(&buffer[..n])?,
            // A connection that ends early is told as one, by the length.
            Err(_) if total.is_some_and(|total| done < total) => return Ok(done),
            Err(e) => return Err(e),
        }
        done = to.metadata()?.len();
        progress(done, total);
    }
}
