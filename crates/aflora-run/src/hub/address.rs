//! Names of repositories, and addresses: what is one, and where it may lead.

/// Whether `text` can be an owner's, a repository's or a revision's name: it becomes a part of
/// paths and addresses.
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

/// Scheme and host of an address.
pub(super) fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where `location` points to, said in an answer from `url`; `None` if that is no address, or
/// one without the encryption that `url` has.
pub(super) fn redirected(url: &str, location: &str) -> Option<String> {
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
