//! Names of repositories, and addresses: what is one, and where it may lead.

use std::fmt;
use ureq::http::Uri;

/// Whether `text` can be an owner's, a repository's or a revision's name, or a part of a file's: it
/// becomes a part of paths and addresses.
pub(super) fn is_part(text: &str) -> bool {
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

/// The hub's public addresses: what a mirror redirects to and is answered there is the hub's word.
const HUBS: [&str; 2] = ["https://huggingface.co", "https://hf.co"];

/// The address of a hub, with what it takes to get in (`https://name:password@host`).
#[derive(Clone)]
pub(super) struct Endpoint {
    url: String,
    /// Without the name and the password.
    shown: String,
}

impl Endpoint {
    /// The address without slashes behind it; `None` if it is none, or holds a query.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = text.trim().trim_end_matches('/');
        let uri: Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let plain = !url.contains(['?', '#']) && !authority.host().is_empty();
        if !plain || !matches!(scheme, "http" | "https") {
            return None;
        }
        let host = authority.as_str().rsplit('@').next()?;
        let shown = format!("{scheme}://{host}{}", uri.path().trim_end_matches('/'));
        Some(Endpoint { url: url.to_string(), shown })
    }

    /// The address itself as messages show it.
    pub(super) fn name(&self) -> &str {
        &self.shown
    }

    /// The address of what lies at `path`.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    /// That address as messages show it.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.shown)
    }

    /// Whether `url` is at this endpoint's own host, which gets the token.
    pub(super) fn holds(&self, url: &str) -> bool {
        same_origin(url, &self.url)
    }

    /// Whether an answer from `url` is the hub's, and not that of a storage it redirects to.
    pub(super) fn speaks_at(&self, url: &str) -> bool {
        self.holds(url) || HUBS.iter().any(|hub| same_origin(url, hub))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn same_origin(one: &str, other: &str) -> bool {
    let origin = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_string();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    origin(one).is_some_and(|one| Some(one) == origin(other))
}

/// The host that an address names, as messages show it.
pub(super) fn host(url: &str) -> String {
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from));
    host.unwrap_or_else(|| "an unknown host".into())
}

/// Where `location` points to, said in an answer from `url`; `None` if that is no address, or
/// one without the encryption that `url` has.
pub(super) fn redirected(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let to = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        format!("{scheme}://{}{location}", &rest[..end])
    } else {
        location.to_string()
    };
    let safe = to.starts_with("https://") || (scheme == "http" && to.starts_with("http://"));
    let whole = to.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    (safe && whole).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_behind_the_hub_s_address_do_not_count() {
        for text in ["https://a.b", "https://a.b/", "https://a.b//", " https://a.b/\n"] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.url("o/r/resolve/x/f"), "https://a.b/o/r/resolve/x/f");
        }
        let endpoint = Endpoint::parse("https://a.b/mirror/").unwrap();
        assert_eq!(endpoint.url("f"), "https://a.b/mirror/f");
        assert_eq!(endpoint.shown("f"), "https://a.b/mirror/f");
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "huggingface.co",
            "ftp://a.b",
            "https://",
            "https://a b",
            "/a",
            "https://a.b/?x=1",
            "https://me:se cret@a.b",
            "me:secret@a.b",
            "http:///a",
        ] {
            assert!(Endpoint::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_password_is_sent_and_not_shown() {
        let endpoint = Endpoint::parse("https://me:secret@a.b:8443/x").unwrap();
        assert_eq!(endpoint.url("f"), "https://me:secret@a.b:8443/x/f");
        assert_eq!(endpoint.shown("f"), "https://a.b:8443/x/f");
        assert!(!format!("{endpoint:?}").contains("secret"));
    }

    #[test]
    fn a_host_is_the_same_whatever_its_case_and_whether_the_port_is_told() {
        let endpoint = Endpoint::parse("https://me:x@Mirror.org").unwrap();
        assert!(endpoint.holds("https://mirror.org:443/a"));
        assert!(
            !endpoint.holds("http://mirror.org/a") && !endpoint.holds("https://mirror.org:1/a")
        );
        assert!(!endpoint.holds("https://huggingface.co/a"));
        assert!(endpoint.speaks_at("https://huggingface.co/a"));
        assert!(!endpoint.speaks_at("https://cdn-lfs.huggingface.co/a"));
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
            ("http://a.b", "http://", None),
            ("http://a.b", "http://a b", None),
            ("http://a.b", "d", None),
        ] {
            assert_eq!(redirected(url, location).as_deref(), expected, "{url} {location}");
        }
    }
}
