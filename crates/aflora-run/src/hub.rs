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

use crate::provenance::sha256;
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

/// Whether `text` can be an owner's, a repository's or a revision's name: it becomes a part of
/// paths and addresses.
fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && !text.starts_with('.') && text.chars().all(plain)
}

/// Whether `text` is `owner/name`, or the bare name that some early repositories have.
pub fn is_repo(text: &str) -> bool {
    text.split('/').count() <= 2 && text.split('/').all(is_part)
}

/// Whether `text` can be a revision: a commit, or a branch without slashes.
pub fn is_revision(text: &str) -> bool {
    is_part(text)
}

/// A token, which no message shows.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the hub says of a file beside its bytes.
#[derive(Debug, Default)]
struct Promise {
    size: Option<u64>,
    sha256: Option<String>,
    commit: Option<String>,
}

impl Promise {
    /// Adds what an answer says that comes from the hub's `own` host or from where it points to.
    fn add(&mut self, headers: &ureq::http::HeaderMap, own: bool) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let digest = |tag: &str| {
            let tag = tag.trim_start_matches("W/").trim_matches('"');
            is_hex(tag, 64).then(|| tag.to_ascii_lowercase())
        };
        // A tag of the storage itself may be any digest.
        let tag = text("x-linked-etag").or_else(|| text("etag").filter(|_| own));
        self.sha256 = self.sha256.take().or_else(|| tag.and_then(digest));
        self.size = self.size.or_else(|| text("x-linked-size")?.parse().ok());
        let commit = || text("x-repo-commit").map(String::from).filter(|_| own);
        self.commit = self.commit.take().or_else(commit);
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where `location` points to, said in an answer from `url`; `None` if that is no address, or
/// one without the encryption that `url` has.
fn redirected(url: &str, location: &str) -> Option<String> {
    let scheme = url.split("://").next()?;
    let to = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        location.to_string()
    };
    let safe = to.starts_with("https://") || (scheme == "http" && to.starts_with("http://"));
    safe.then_some(to)
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
                    let token = aflora_models::files::read_text(&hf_home().join("token")).ok()?;
                    Some(token.trim().to_string()).filter(|t| !t.is_empty())
                })
                .map(Token),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
        }
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
            let mut request = String::new();
            loop {
                let line = lines.next().unwrap().unwrap();
                if line.is_empty() {
                    break;
                }
                request.push_str(&line);
                request.push('\n');
            }
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
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /datasets/owner/data/resolve/abc/x/a.txt HTTP/1.1\n"));
        assert!(!request.contains("Range"), "{request}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
        assert_eq!(seen.last(), Some(&(5, Some(5))));
        assert!(path.ends_with("datasets--owner--data/snapshots/abc/x/a.txt"));
        // The server is gone: this can only come from the cache.
        assert_eq!(hub.get(&repo(), "x/a.txt", &mut |_, _| {}).unwrap(), path);
    }

    #[test]
    fn a_download_that_broke_off_goes_on_where_it_stopped() {
        let cache = tempfile::tempdir().unwrap();
        let get =
            |address: &str| Hub::at(address, cache.path()).get(&repo(), "a.txt", &mut |_, _| {});
        let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello");
        let error = get(&address).unwrap_err().to_string();
        assert!(error.contains("ended after 5 of 11 bytes"), "{error}");
        server.join().unwrap();
        let target = Hub::at("", cache.path()).cached(&repo(), "a.txt");
        assert!(!target.exists());

        let (address, server) =
            serve("HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\n\r\n world");
        assert_eq!(fs::read_to_string(get(&address).unwrap()).unwrap(), "hello world");
        assert!(server.join().unwrap().contains("bytes=5-"));
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_server_that_begins_anew_is_believed() {
        let cache = tempfile::tempdir().unwrap();
        let hub = |address: &str| Hub::at(address, cache.path());
        let target = hub("").cached(&repo(), "a.txt");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target.with_extension("txt.incomplete"), "other").unwrap();
        let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let path = hub(&address).get(&repo(), "a.txt", &mut |_, _| {}).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "hello");
        server.join().unwrap();
    }

    #[test]
    fn what_a_repository_lacks_is_remembered_and_the_next_is_tried() {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let hub = Hub::at(&address, cache.path());
        let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, HubError::Absent { .. }), "{error}");
        server.join().unwrap();
        // The server is gone: this is from memory.
        assert_eq!(hub.first_of(&repo(), &["a.txt"], &mut |_, _| {}).unwrap(), None);
        let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
        let hub = Hub::at(&address, cache.path());
        let found = hub.first_of(&repo(), &["a.txt", "b.txt"], &mut |_, _| {}).unwrap();
        assert_eq!(found, Some(hub.cached(&repo(), "b.txt")));
        server.join().unwrap();
    }

    #[test]
    fn a_gated_repository_asks_for_a_token() {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        let hub = Hub { token: Some(Token("secret".into())), ..Hub::at(&address, cache.path()) };
        let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
        assert!(server.join().unwrap().to_lowercase().contains("authorization: bearer secret"));
        let folder = hub.cached(&repo(), "a.txt").parent().unwrap().to_path_buf();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
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

    #[test]
    fn a_token_stays_at_the_hub_and_is_not_shown() {
        let cache = tempfile::tempdir().unwrap();
        let (storage, stored) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: {storage}/bucket/x?sign=1\r\nContent-Length: 0\r\n\r\n"
        );
        let (address, server) = serve(answer.leak());
        let hub = Hub { token: Some(Token("secret".into())), ..Hub::at(&address, cache.path()) };
        let path = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "hello");
        assert!(server.join().unwrap().contains("secret"));
        let asked = stored.join().unwrap();
        assert!(asked.starts_with("GET /bucket/x?sign=1 "), "{asked}");
        assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
        assert!(!format!("{hub:?}").contains("secret"));
    }

    /// What a file of `hello` of which the hub says `headers` comes to.
    fn get_told(headers: &str, revision: &str) -> Result<String, String> {
        let cache = tempfile::tempdir().unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{headers}\r\n\r\nhello");
        let (address, server) = serve(answer.leak());
        let hub = Hub::at(&address, cache.path());
        let repo = Repo { revision: revision.into(), ..repo() };
        let got = hub.get(&repo, "a.bin", &mut |_, _| {});
        server.join().unwrap();
        let folder = hub.cached(&repo, "a.bin").parent().unwrap().to_path_buf();
        assert!(got.is_ok() || fs::read_dir(folder).unwrap().count() <= 1);
        got.map(|path| fs::read_to_string(path).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_came_is_held_to_the_digest_and_the_commit_that_the_hub_tells() {
        let right = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let tag = |digest: &str| format!("X-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: 5");
        assert_eq!(get_told(&tag(right), "abc").unwrap(), "hello");
        let error = get_told(&tag(&right.replace('2', "3")), "abc").unwrap_err();
        assert!(error.contains(&format!("has the SHA-256 {right}, but should have 3")), "{error}");
        // A tag that is no SHA-256 says nothing.
        assert_eq!(get_told("ETag: \"0123\"", "abc").unwrap(), "hello");
        let commit = "1".repeat(40);
        let told = format!("X-Repo-Commit: {commit}");
        assert_eq!(get_told(&told, &commit).unwrap(), "hello");
        let error = get_told(&told, &"2".repeat(40)).unwrap_err();
        assert!(error.contains(&format!("answered with the commit {commit}")), "{error}");
        let error = get_told("X-Linked-Size: 7", "abc").unwrap_err();
        assert!(error.contains("5 bytes came, but the hub says that it has 7"), "{error}");
    }

    #[test]
    fn a_password_in_the_hub_s_address_is_not_shown() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::at("http://me:secret@127.0.0.1:9", cache.path());
        for hub in [Hub { offline: true, ..hub.clone() }, hub] {
            let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:9/datasets/owner/data"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn names_that_lead_out_of_the_cache_are_refused() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::at("http://127.0.0.1:9", cache.path());
        let secret = cache.path().parent().unwrap().join("secret");
        for (name, revision, file) in [
            ("owner/data", "../../..", "a.txt"),
            ("owner/data", "/etc", "passwd"),
            ("owner/../data", "abc", "a.txt"),
            ("owner/data", "abc", "../../a.txt"),
            ("owner/data", "abc", "/etc/passwd"),
            ("owner/data?x", "abc", "a.txt"),
            ("a/b/c", "abc", "a.txt"),
        ] {
            let repo = Repo { repo: name.into(), revision: revision.into(), dataset: false };
            let error = hub.get(&repo, file, &mut |_, _| {}).unwrap_err().to_string();
            assert!(error.contains("has a name that the hub has none of"), "{error}");
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
        assert!(!secret.exists());
    }

    #[test]
    fn redirects_go_to_addresses_alone_and_never_from_https_to_http() {
        for (url, location, expected) in [
            ("https://a.b/c", "/d", Some("https://a.b/d")),
            ("https://a.b/c", "//e.f/d", Some("https://e.f/d")),
            ("https://a.b/c", "https://e.f/d", Some("https://e.f/d")),
            ("https://a.b/c", "http://e.f/d", None),
            ("http://a.b/c", "http://e.f/d", Some("http://e.f/d")),
            ("http://a.b", "file:///etc/passwd", None),
            ("http://a.b", "d", None),
        ] {
            assert_eq!(redirected(url, location).as_deref(), expected, "{url} {location}");
        }
    }

    #[test]
    fn a_file_without_an_end_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("a")).unwrap();
        let copied = copy(&mut io::repeat(1), &mut file, 0, None, 1 << 20, &mut |_, _| {});
        assert!(copied.unwrap_err().to_string().contains("more than 1048576 bytes"));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
