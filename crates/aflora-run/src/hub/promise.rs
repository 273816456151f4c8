//! What the hub says of a file beside its bytes: its length, its digest, its commit.

/// What the hub says of a file beside its bytes.
#[derive(Debug, Default)]
pub(super) struct Promise {
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<String>,
    pub(super) commit: Option<String>,
}

impl Promise {
    /// Adds what an answer says that comes from the hub's `own` host or from where it points to.
    pub(super) fn add(&mut self, headers: &ureq::http::HeaderMap, own: bool) {
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

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}
