//! Questions to the hub, and what its answers mean.

use super::address::{host, redirected, Endpoint};
use super::download;
use super::limits::Limits;
use super::promise::Promise;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderValue, Response};
use ureq::Body;

/// A token, which no message shows.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The token without the line ends and spaces that come with copying it; `None` if it is empty.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.replace(['\r', '\n'], "");
        Some(text.trim().to_string()).filter(|text| !text.is_empty()).map(Token)
    }

    /// The header that shows it to the hub; `None` if it holds what no header may.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// There is none. `commit`: the one that the hub itself said this of.
    Absent { commit: Option<String> },
    /// It may come another time, `after` the time that the server asks for.
    Passing { reason: String, after: Option<Duration> },
    /// It will not.
    Final(String),
    /// The cache cannot be written.
    Disk { path: PathBuf, source: io::Error },
}

impl FetchFailure {
    /// The failure of a file of which a part is kept.
    pub(super) fn but_kept(mut self) -> Self {
        if let FetchFailure::Passing { reason, .. } | FetchFailure::Final(reason) = &mut self {
            reason.push_str("; what came is kept, and the same command goes on there");
        }
        self
    }
}

/// An answer with a file's bytes.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// What the hub said on the way there.
    pub(super) promise: Promise,
    /// Where the bytes come from.
    pub(super) at: String,
}

/// The most redirects to follow.
const REDIRECTS: usize = 8;

/// What is read of the words of a refusal, how long they are waited for, and what is shown.
const WORDS: (usize, Duration, usize) = (64 << 10, Duration::from_secs(5), 300);

/// Asks the hub.
pub(super) struct Client<'a> {
    agent: ureq::Agent,
    endpoint: &'a Endpoint,
    token: Option<&'a Token>,
    limits: &'a Limits,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        token: Option<&'a Token>,
        limits: &'a Limits,
    ) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.answer))
            .timeout_recv_response(Some(limits.answer))
            // Told by `receive`, with what came until then; this ends the thread that it leaves.
            .timeout_per_read(Some(2 * limits.stall))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .into();
        Client { agent, endpoint, token, limits }
    }

    /// Asks for the bytes of `url` behind the first `from`, wherever it redirects to.
    pub(super) fn ask(&self, url: &str, from: u64) -> Result<Answer, FetchFailure> {
        let mut promise = Promise::default();
        let mut at = url.to_string();
        for _ in 0..=REDIRECTS {
            let response = self.send(&at, from)?;
            let hub = self.endpoint.speaks_at(&at);
            let redirects = response.status().is_redirection();
            if hub {
                promise.add(response.headers(), !redirects);
            }
            if !redirects {
                return self.judge(Answer { response, promise, at }, hub);
            }
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            at = location.and_then(|to| redirected(&at, to)).ok_or_else(|| {
                FetchFailure::Final(format!("{} redirects to no safe address", host(&at)))
            })?;
        }
        Err(FetchFailure::Final("it is redirected without an end".into()))
    }

    /// One question, one answer.
    fn send(&self, at: &str, from: u64) -> Result<Response<Body>, FetchFailure> {
        tracing::debug!("asking {}", host(at));
        let mut request = self.agent.get(at);
        if let Some(token) = self.token.filter(|_| self.endpoint.holds(at)) {
            let header = token.header().ok_or_else(|| {
                FetchFailure::Final("HF_TOKEN holds a character that no token has".into())
            })?;
            request = request.header("Authorization", header);
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| self.unreached(at, &error))
    }

    /// Why there is no answer.
    fn unreached(&self, at: &str, error: &ureq::Error) -> FetchFailure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let by = match ureq::Proxy::try_from_env() {
            Some(proxy) if !at.parse().is_ok_and(|uri| proxy.is_no_proxy(&uri)) => {
                format!(" (by the proxy {}:{})", proxy.host(), proxy.port())
            }
            _ => String::new(),
        };
        let seconds = |time: Duration| time.as_secs_f64();
        let reason = match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => format!(
                "{} was not reached within {} s{by}; HF_HUB_ETAG_TIMEOUT sets another time",
                host(at),
                seconds(self.limits.connect)
            ),
            ureq::Error::Timeout(_) => format!(
                "{} did not answer within {} s{by}; HF_HUB_DOWNLOAD_TIMEOUT sets another time",
                host(at),
                seconds(self.limits.answer)
            ),
            // Its text holds the address, and an address may hold a signature or a password.
            ureq::Error::BadUri(_) => format!("{} has no address that can be asked", host(at)),
            error => format!("{}: {}{by}", host(at), self.clean(&error.to_string())),
        };
        match error {
            ureq::Error::Io(error)
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                ) =>
            {
                FetchFailure::Passing { reason, after: None }
            }
            _ => FetchFailure::Final(reason),
        }
    }

    /// Whether an answer brings the file; `hub` if the hub itself gives it.
    fn judge(&self, answer: Answer, hub: bool) -> Result<Answer, FetchFailure> {
        let Answer { response, promise, at } = answer;
        let status = response.status().as_u16();
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_string)
        };
        if matches!(status, 200 | 206) {
            let page = text("content-type").is_some_and(|kind| {
                let kind = kind.to_ascii_lowercase();
                ["text/html", "application/xhtml"].iter().any(|page| kind.starts_with(page))
            });
            let packed = text("content-encoding").is_some_and(|how| how != "identity");
            let instead = match (page, packed) {
                (true, _) => "a web page: is it a proxy's or a network's login page?",
                (_, true) => "a compressed form, which nobody asked for",
                _ => return Ok(Answer { response, promise, at }),
            };
            let reason = format!("{} answers not with the file but with {instead}", host(&at));
            return Err(FetchFailure::Final(reason));
        }
        let code = text("x-error-code").filter(|_| hub).unwrap_or_default();
        let after = asked_to_wait(status, response.headers());
        let words = self.words(response);
        let said = |meaning: &str| format!("{} answers {status}{words}{meaning}", host(&at));
        Err(match (status, code.as_str()) {
            (404, "EntryNotFound") => FetchFailure::Absent { commit: promise.commit },
            (_, "RevisionNotFound") => {
                FetchFailure::Final(said("; the repository has no such revision"))
            }
            (_, "GatedRepo") => FetchFailure::Final(said(
                "; it is gated: its page on the hub tells how to get access, and HF_TOKEN must be \
                 that of a user who has it",
            )),
            (401, _) | (_, "RepoNotFound") => FetchFailure::Final(said(
                "; there is no such repository, or it is private and wants HF_TOKEN",
            )),
            (403, _) => FetchFailure::Final(said("; does the token in HF_TOKEN allow it?")),
            (404, _) => FetchFailure::Absent { commit: None },
            (408 | 429 | 500 | 502 | 503 | 504, _) => {
                FetchFailure::Passing { reason: said(""), after }
            }
            _ => FetchFailure::Final(said("")),
        })
    }

    /// What a server says of a refusal, in its header and body.
    fn words(&self, response: Response<Body>) -> String {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut said: Vec<String> = header("x-error-message").into_iter().collect();
        let page = header("content-type").is_some_and(|kind| kind.contains("html"));
        let (most, time, _) = WORDS;
        let time = time.min(self.limits.answer);
        let body = download::beginning(body(response), most, time);
        match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(json) => {
                let errors = json["errors"].as_array().into_iter().flatten();
                let errors = errors.filter_map(|error| error["message"].as_str());
                said.extend(json["error"].as_str().into_iter().chain(errors).map(String::from));
            }
            Err(_) if !page => said.push(String::from_utf8_lossy(&body).into_owned()),
            Err(_) => {}
        }
        said.iter_mut().for_each(|words| *words = words.trim().to_string());
        said.retain(|words| !words.is_empty());
        said.dedup();
        let said = self.clean(&said.join("; "));
        if said.is_empty() {
            said
        } else {
            format!(": {said}")
        }
    }

    /// Words from elsewhere on one line, without what a terminal obeys and without the token.
    fn clean(&self, text: &str) -> String {
        let text = match self.token {
            Some(Token(token)) => text.replace(token.as_str(), "…"),
            None => text.to_string(),
        };
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, _, most) = WORDS;
        let short: String = text.chars().take(most).collect();
        let more = if short.len() < text.len() { "…" } else { "" };
        format!("{}{more}", aflora_files::printable_line(&short))
    }
}

/// How long a server asks to wait, in whole seconds.
fn asked_to_wait(status: u16, headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // `"api";r=0;t=55`: nothing remains until 55 s have passed.
    let limited = || {
        let limit = text("ratelimit").filter(|_| status == 429)?;
        let number = |key: &str| {
            let mut parts = limit.split(';').filter_map(|part| part.trim().split_once('='));
            parts.find(|(name, _)| *name == key)?.1.parse::<u64>().ok()
        };
        number("t").filter(|_| number("r") == Some(0))
    };
    let after = || text("retry-after")?.trim().parse().ok();
    limited().or_else(after).map(Duration::from_secs)
}

/// The body of an answer.
pub(super) fn body(response: Response<Body>) -> impl Read + Send + 'static {
    response.into_body().into_reader()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_wish_to_wait_is_read() {
        let wait = |status, name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                ureq::http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]);
            asked_to_wait(status, &headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(429, "ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(wait(429, "ratelimit", "\"api\";r=3;t=55"), None);
        assert_eq!(wait(503, "ratelimit", "\"api\";r=0;t=55"), None);
        assert_eq!(wait(503, "retry-after", " 120"), Some(120));
        assert_eq!(wait(503, "retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(wait(503, "retry-after", "-1"), None);
    }
}
