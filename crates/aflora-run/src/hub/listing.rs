//! What files a data set of the hub has, and at which commit.

use super::address::is_part;
use super::client::{body, Client, FetchFailure};
use super::download::beginning;
use super::{Hub, HubError, Repo};
use serde::Deserialize;
use std::path::Path;

/// The most bytes of a list of files.
const MOST: usize = 32 << 20;

/// A repository's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The repository at the commit that they are of.
    pub repo: Repo,
    /// Their names.
    pub files: Vec<String>,
}

/// What the hub says of a repository, as far as it matters here.
#[derive(Deserialize)]
struct About {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The files of `repo`, a data set, at the commit that its revision is now; where the network
    /// may not be used, those that the cache has. A revision may have slashes here.
    ///
    /// # Errors
    /// The hub cannot be asked, has no such data set, or answers with something else.
    pub fn list(&self, repo: &Repo) -> Result<Listing, HubError> {
        let revision = repo.revision.replace('/', "%2F");
        let path = format!("api/datasets/{}/revision/{revision}", repo.repo);
        let url = self.endpoint.as_ref().map_or(path.clone(), |at| at.shown(&path));
        let fetch = |reason: String| HubError::Fetch { url: url.clone(), reason };
        let named = super::is_repo(&repo.repo) && repo.revision.split('/').all(is_part);
        if !named {
            return Err(fetch("its name or revision is none that the hub has".into()));
        }
        if let Some(variable) = self.offline {
            let commit = self.cache.commit(repo);
            let mut files = Vec::new();
            files_below(&self.cache.snapshot(repo, &commit, ""), "", &mut files);
            files.sort();
            return match files.is_empty() {
                true => Err(HubError::Offline { url, variable }),
                false => Ok(Listing { repo: Repo { revision: commit, ..repo.clone() }, files }),
            };
        }
        let Some(endpoint) = &self.endpoint else {
            return Err(fetch("HF_ENDPOINT is no address such as https://huggingface.co".into()));
        };
        let client = Client::new(endpoint, self.token.as_ref(), &self.limits);
        let answer = client.ask(&endpoint.url(&path), 0).map_err(|failure| match failure {
            FetchFailure::Absent { .. } => HubError::Absent { url: url.clone() },
            FetchFailure::Passing { reason, .. } | FetchFailure::Final(reason) => fetch(reason),
            FetchFailure::Disk { path, source } => HubError::Io { path, source },
        })?;
        let bytes = beginning(body(answer.response), MOST, self.limits.answer);
        let about: About = serde_json::from_slice(&bytes)
            .map_err(|error| fetch(format!("no list of files ({error})")))?;
        if !is_part(&about.sha) {
            return Err(fetch("the hub answered with a commit that is none".into()));
        }
        if is_part(&repo.revision) {
            // It only spares a question, and lets what is cached be found without the network.
            let _ = self.cache.remember_commit(repo, &about.sha);
        }
        let safe = |name: &String| name.split('/').all(is_part);
        let names = about.siblings.into_iter().map(|sibling| sibling.rfilename);
        let mut files: Vec<String> = names.filter(safe).collect();
        files.sort();
        Ok(Listing { repo: Repo { revision: about.sha, ..repo.clone() }, files })
    }
}

/// The files below a folder, by their names from there.
fn files_below(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => files_below(&entry.path(), &format!("{name}/"), found),
            false => found.push(name),
        }
    }
}
