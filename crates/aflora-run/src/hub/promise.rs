//! What the hub says of a file beside its bytes: its length, its digest, its commit.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek};
use ureq::http::HeaderMap;

/// Hexadecimal digits of the digests.
const SHA256: usize = 64;
const SHA1: usize = 40;

/// What the hub says of a file beside its bytes.
#[derive(Debug, Default)]
pub(super) struct Promise {
    pub(super) size: Option<u64>,
    /// The file's ETag: a SHA-256 in large-file storage, git's digest of a blob elsewhere.
    pub(super) tag: Option<String>,
    pub(super) commit: Option<String>,
    /// Whether the tag is that of the file, whatever answer told it.
    linked: bool,
}

impl Promise {
    /// Adds what an answer of the hub says; `whole` if it is the file's own, and not a redirect.
    pub(super) fn add(&mut self, headers: &HeaderMap, whole: bool) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_string();
        if !self.linked {
            let linked = text("x-linked-etag").map(bare);
            self.linked = linked.is_some();
            // A redirect's own tag is that of its words.
            let own = || text("etag").filter(|_| whole).map(bare);
            self.tag = linked.or_else(own).or_else(|| self.tag.take());
        }
        self.size = self.size.or_else(|| text("x-linked-size")?.parse().ok());
        let commit = || text("x-repo-commit").map(String::from);
        self.commit = self.commit.take().or_else(commit);
    }

    /// What the bytes of `file` are called in the cache: their digest, so that files of the same
    /// bytes share them. A tag of another kind need not tell two files apart.
    pub(super) fn blob_name(&self, file: &str) -> String {
        let tag = self.tag.as_deref().unwrap_or_default();
        match is_hex(tag, SHA256) || is_hex(tag, SHA1) {
            true => tag.to_string(),
            false => format!("{tag}.{}", file.replace('/', "--")),
        }
    }

    /// Whether `file` is what the hub has, by the digest that its tag is, if it is one.
    ///
    /// # Errors
    /// The file cannot be read. Inside: what its digest is, and what it should be.
    pub(super) fn check(&self, file: &mut File) -> io::Result<Result<(), String>> {
        let Some(tag) = self.tag.as_deref() else { return Ok(Ok(())) };
        let differ = |name: &str, found: &str| {
            format!("what came has the {name} {found}, but should have {tag}")
        };
        let is = |found: &str| found.eq_ignore_ascii_case(tag);
        Ok(if is_hex(tag, SHA256) {
            let found = hash(file, Sha256::new())?;
            if is(&found) {
                Ok(())
            } else {
                Err(differ("SHA-256", &found))
            }
        } else if is_hex(tag, SHA1) {
            let length = file.metadata()?.len();
            let found = hash(file, Sha1::new().chain_update(format!("blob {length}\0")))?;
            // Some mirrors tag a file with its plain SHA-1.
            match is(&found) || is(&hash(file, Sha1::new())?) {
                true => Ok(()),
                false => Err(differ("git digest", &found)),
            }
        } else {
            Ok(())
        })
    }
}

/// The digest of what was hashed so far and the whole file, in hexadecimal.
fn hash(file: &mut File, mut digest: impl Digest) -> io::Result<String> {
    file.rewind()?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}
