//! Warnings about a model's files, each once.
//!
//! A run reads one file several times: to check it, to build the model, to load its weights, to make
//! its tokens. What is odd in it is the same each time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Tells of something odd in a file that is no error, unless it was told in this process before.
pub(crate) fn warn(path: &Path, words: &str) {
    static SAID: Mutex<Option<HashSet<u64>>> = Mutex::new(None);
    let mut hash = DefaultHasher::new();
    (path, words).hash(&mut hash);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(hash.finish()) {
        tracing::warn!("{}: {words}", path.display());
    }
}
