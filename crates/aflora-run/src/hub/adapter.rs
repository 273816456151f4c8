//! An adapter that is named: by its folder, or by its repository on the hub.

use super::{is_repo, is_revision, Hub, Repo};
use aflora_models::adapter_folder::{CONFIG, WEIGHTS};
use std::path::{Path, PathBuf};

/// The revision of a repository of which none is named.
pub const MAIN: &str = "main";

/// A name on the hub and its revision: `owner/name`, or `owner/name@revision`; none if it is no such
/// name.
pub fn name_and_revision(name: &str) -> Option<(&str, Option<&str>)> {
    let (repo, revision) = match name.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (name, None),
    };
    let is_name = repo.contains('/') && is_repo(repo) && revision.is_none_or(is_revision);
    is_name.then_some((repo, revision))
}

/// An adapter that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAdapter {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What finds the same again from anywhere: the absolute path of a folder that was named, or the
    /// repository at its commit.
    pub lasting: PathBuf,
}

impl FoundAdapter {
    /// The adapter in the folder `named`, or that of the repository; none if it is neither. `progress`
    /// is given the bytes of its weights, as [`Hub::get`] gives them.
    ///
    /// # Errors
    /// The repository cannot be had, in words.
    pub fn find(
        named: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Option<FoundAdapter>, String> {
        if named.join(CONFIG).is_file() {
            let lasting = std::path::absolute(named).unwrap_or_else(|_| named.to_path_buf());
            return Ok(Some(FoundAdapter { folder: named.to_path_buf(), lasting }));
        }
        // A run file that is not there is no name on the hub.
        let is_yaml = named.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        let name = named.to_str().filter(|_| !named.exists() && !is_yaml);
        let Some((repo, revision)) = name.and_then(name_and_revision) else { return Ok(None) };
        let revision = revision.unwrap_or(MAIN).to_string();
        let (hub, repo) = (Hub::from_env(), Repo { repo: repo.into(), revision, dataset: false });
        let config = hub.get(&repo, CONFIG, &mut |_, _| {}).map_err(|error| {
            format!("{} is no folder, and no adapter of the hub: {error}", named.display())
        })?;
        let found = hub.first_of(&repo, &WEIGHTS, progress);
        let found = found.map_err(|error| format!("{}: {error}", named.display()))?;
        if found.is_none() {
            let weights = WEIGHTS.join(", ");
            return Err(format!("{}: the repository has none of {weights}", named.display()));
        }
        hub.get_tokenizer(&repo).map_err(|error| format!("{}: {error}", named.display()))?;
        let folder = config.parent().unwrap_or(Path::new(".")).to_path_buf();
        // The cache has a folder for each commit.
        let commit = folder.file_name().and_then(|name| name.to_str()).unwrap_or(&repo.revision);
        let lasting = PathBuf::from(format!("{}@{commit}", repo.repo));
        Ok(Some(FoundAdapter { folder, lasting }))
    }
}
