//! The files of a tokenizer, of which no repository has all.

use super::{Hub, HubError, Repo};
use aflora_models::tokenizer::{FILES, VOCABULARIES};

impl Hub {
    /// Fetches the tokenizer of a repository, if it has one.
    ///
    /// # Errors
    /// As [`get`](Self::get), but for files that are not there.
    pub fn get_tokenizer(&self, repo: &Repo) -> Result<(), HubError> {
        // The first vocabulary that there is; vocab.json needs its merges.txt.
        let found = self.first_of(repo, &VOCABULARIES, &mut |_, _| {})?;
        if found.is_some_and(|f| f.ends_with("vocab.json")) {
            self.get(repo, "merges.txt", &mut |_, _| {})?;
        }
        // What stands beside them, each where there is one.
        for file in FILES.iter().filter(|f| !VOCABULARIES.contains(f)) {
            self.first_of(repo, &[file], &mut |_, _| {})?;
        }
        Ok(())
    }
}
