//! Files from the Hugging Face hub, at pinned revisions.
//!
//! The cache is Hugging Face's own (`HF_HUB_CACHE`, or `HF_HOME/hub`, or
//! `~/.cache/huggingface/hub`): what Python has fetched is found here, and the other way round.
//! A file comes from the network only when it is not there and `HF_HUB_OFFLINE` is not set. It
//! is written under a temporary name and renamed when its length is right.

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

/// Access to the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
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
            token: set("HF_TOKEN"),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
        }
    }

    /// A hub at another place; for tests and mirrors.
    pub fn at(endpoint: &str, cache: &Path) -> Self {
        Hub { cache: cache.into(), endpoint: endpoint.into(), token: None, offline: false }
    }

    /// Where the cache holds `file`, whether or not it does.
    pub fn cached(&self, repo: &Repo, file: &str) -> PathBuf {
        let kind = if repo.dataset { "datasets" } else { "models" };
        let folder = format!("{kind}--{}", repo.repo.replace('/', "--"));
        self.cache.join(folder).join("snapshots").join(&repo.revision).join(file)
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
        let target = self.cached(repo, file);
        if target.is_file() {
            return Ok(target);
        }
        let kind = if repo.dataset { "datasets/" } else { "" };
        let Repo { repo, revision, .. } = repo;
        let url = format!("{}/{kind}{repo}/resolve/{revision}/{file}", self.endpoint);
        if self.offline {
            return Err(HubError::Offline { url });
        }
        self.fetch(&url, &target, progress)?;
        Ok(target)
    }

    fn fetch(
        &self,
        url: &str,
        target: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), HubError> {
        let failed = |reason: String| HubError::Fetch { url: url.to_string(), reason };
        // Short: a machine without a network should say so at once.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(Duration::from_millis(800)))
            .timeout_connect(Some(Duration::from_millis(1000)))
            .build()
            .into();
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|e| failed(e.to_string()))?;
        let length = response.body().content_length();
        let partial = target.with_extension(format!("part{}", std::process::id()));
        let io_failed = |source| HubError::Io { path: partial.clone(), source };
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(io_failed)?;
        }
        let mut file = File::create(&partial).map_err(io_failed)?;
        let received = copy(&mut response.body_mut().as_reader(), &mut file, length, progress);
        let complete = match received {
            Ok(n) if length.is_none_or(|expected| n == expected) => file.sync_all(),
            Ok(n) => Err(io::Error::other(format!("the connection ended after {n} bytes"))),
            Err(e) => Err(e),
        };
        let stored = complete.and_then(|()| fs::rename(&partial, target));
        if stored.is_err() {
            let _ = fs::remove_file(&partial);
        }
        stored.map_err(|e| failed(e.to_string()))
    }
}

fn copy(
    from: &mut dyn Read,
    to: &mut File,
    total: Option<u64>,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(done),
            n => to.write_all(&buffer[..n])?,
        }
        done = to.metadata()?.len();
        progress(done, total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers one request with `answer`, then goes away; gives its address and the request.
    fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            let request = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            (&stream).write_all(answer.as_bytes()).unwrap();
            request
        });
        (address, thread)
    }

    fn repo() -> Repo {
        Repo { repo: "owner/data".into(), revision: "abc".into(), dataset: true }
    }

    #[test]
    fn a_file_is_fetched_once_and_then_taken_from_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let hub = Hub::at(&address, cache.path());
        let mut seen = Vec::new();
        let path =
            hub.get(&repo(), "x/a.txt", &mut |done, total| seen.push((done, total))).unwrap();
        assert_eq!(server.join().unwrap(), "GET /datasets/owner/data/resolve/abc/x/a.txt HTTP/1.1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
        assert_eq!(seen.last(), Some(&(5, Some(5))));
        assert!(path.ends_with("datasets--owner--data/snapshots/abc/x/a.txt"));
        // The server is gone: this can only come from the cache.
        assert_eq!(hub.get(&repo(), "x/a.txt", &mut |_, _| {}).unwrap(), path);
    }

    #[test]
    fn a_refusal_or_a_broken_connection_leaves_nothing_behind() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        ] {
            let cache = tempfile::tempdir().unwrap();
            let (address, server) = serve(answer);
            let hub = Hub::at(&address, cache.path());
            let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
            assert!(error.starts_with(&address), "{error}");
            server.join().unwrap();
            let folder = hub.cached(&repo(), "a.txt").parent().unwrap().to_path_buf();
            let left = fs::read_dir(folder).map_or(0, |entries| entries.count());
            assert_eq!(left, 0, "{answer}");
        }
    }

    #[test]
    fn without_a_network_the_error_names_what_was_wanted() {
        let cache = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let hub = Hub::at(&format!("http://127.0.0.1:{port}"), cache.path());
        let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("owner/data/resolve/abc/a.txt"), "{error}");
        let offline = Hub { offline: true, ..hub };
        let error = offline.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    }
}
