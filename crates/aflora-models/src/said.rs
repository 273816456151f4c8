//! Warnings about a model's files, each once.
//!
//! A run reads one file several times: to check it, to build the model, to load its weights, to make
//! its tokens. What is odd in it is the same each time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether what is odd was told before, in another process.
static TOLD: AtomicBool = AtomicBool::new(false);

/// From now on, what is odd in a model's files and no error is told at debug level: for programs
/// that open what a run was trained with, which told it all.
pub fn tell_oddities_at_debug_level() {
    TOLD.store(true, Ordering::Relaxed);
}

/// Tells of something odd in a file that is no error, unless it was told in this process before.
pub(crate) fn warn(path: &Path, words: &str) {
    static SAID: Mutex<Option<HashSet<u64>>> = Mutex::new(None);
    let mut hash = DefaultHasher::new();
    (path, words).hash(&mut hash);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(hash.finish()) {
        match TOLD.load(Ordering::Relaxed) {
            true => tracing::debug!("{}: {words}", path.display()),
            false => tracing::warn!("{}: {words}", path.display()),
        }
    }
}
