//! The folder of token files, kept within bounds: every task, tokenizer, length and draw of rows
//! adds files, and nobody else would ever remove one.
//!
//! A file's time of change is when it was last used. When one is added, those go that nobody used
//! for long, and beyond a size of all together the longest unused ones. Other processes lose
//! nothing: what one has mapped stays until it ends, and a file that is gone is made anew.

use aflora_files::write::is_leftover;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The end of a file's name; before it stand the 32 digits of its key.
pub const SUFFIX: &str = ".tokens";

/// The most bytes of all files together.
const MOST: u64 = 16 << 30;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Files that were used later stay.
const UNUSED: Duration = DAY.saturating_mul(60);
/// What an interrupted write left is nobody's any more after this.
const LEFT: Duration = DAY;

/// Remembers that a file was used.
pub fn used(path: &Path) {
    // It only stays the longer for it.
    let _ = aflora_files::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes what is beyond the bounds, but not `added`.
pub fn clean(folder: &Path, added: &Path) {
    clean_to(folder, added, MOST);
}

fn clean_to(folder: &Path, added: &Path, most: u64) {
    let now = SystemTime::now();
    let unused = |since: SystemTime| now.duration_since(since).unwrap_or_default();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Of the link itself, if it is one: that is nothing of ours.
        let Some(about) = entry.metadata().ok().filter(fs::Metadata::is_file) else { continue };
        let Ok(at) = about.modified() else { continue };
        if is_ours(&name) {
            files.push((at, about.len(), entry.path()));
        } else if is_half_of_ours(&name) && unused(at) > LEFT {
            let _ = fs::remove_file(entry.path());
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut together = 0;
    for (at, bytes, path) in files {
        together += bytes;
        if path != added && (together > most || unused(at) > UNUSED) {
            tracing::debug!("{}: not used for long, removed", path.display());
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether a file of this name is one of tokens: the folder may hold other things.
fn is_ours(name: &str) -> bool {
    let key = name.strip_suffix(SUFFIX).unwrap_or_default();
    key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether it is what an interrupted write left of one.
fn is_half_of_ours(name: &str) -> bool {
    let whole = name.get(1..1 + 32 + SUFFIX.len());
    is_leftover(name) && whole.is_some_and(is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `bytes` bytes that was used so many days ago.
    fn file(folder: &Path, name: &str, bytes: usize, days: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, vec![0; bytes]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
        path
    }

    fn key(digit: char) -> String {
        format!("{}{SUFFIX}", String::from(digit).repeat(32))
    }

    #[test]
    fn the_longest_unused_files_go_first_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        let added = file(folder, &key('a'), 600, 0);
        let new = file(folder, &key('b'), 300, 1);
        let old = file(folder, &key('c'), 300, 2);
        let ancient = file(folder, &key('d'), 1, 61);
        let half = file(folder, &format!(".{}.x1.tmp", key('e')), 1, 2);
        let writing = file(folder, &format!(".{}.x2.tmp", key('e')), 1, 0);
        let other = file(folder, "notes.tokens", 5000, 99);
        let link = folder.join(key('f'));
        std::os::unix::fs::symlink(&other, &link).unwrap();

        clean_to(folder, &added, 1000);
        let stays = |path: &PathBuf| path.symlink_metadata().is_ok();
        assert!([&added, &new, &writing, &other, &link].into_iter().all(stays));
        assert!(![&old, &ancient, &half].into_iter().any(stays));
        // What was just added stays, however large it is.
        clean_to(folder, &added, 10);
        assert!(stays(&added) && !stays(&new));
    }

    #[test]
    fn a_file_that_is_used_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = file(place.path(), &key('a'), 10, 61);
        used(&path);
        clean(place.path(), Path::new(""));
        assert!(path.exists());
    }
}
