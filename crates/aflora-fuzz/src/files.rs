//! Inputs as files: the readers take paths, as users give them.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What stands between the files of an input that is several.
const BETWEEN: &[u8] = b"\n--8<--\n";

/// Several files as one input.
pub fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.join(BETWEEN)
}

/// The files of an input; as many as asked for, empty ones if it has fewer.
pub fn split<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut rest = bytes;
    std::array::from_fn(|i| {
        let at = rest.windows(BETWEEN.len()).position(|w| w == BETWEEN);
        let (part, others) = match at.filter(|_| i + 1 < N) {
            Some(at) => (&rest[..at], &rest[at + BETWEEN.len()..]),
            None => (rest, &[][..]),
        };
        rest = others;
        part
    })
}

/// A folder of this thread's own, in memory where there is such a place.
pub fn scratch() -> PathBuf {
    thread_local! {
        static FOLDER: OnceCell<Option<TempDir>> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        let make = || TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).ok();
        let folder = folder.get_or_init(make).as_ref();
        folder.map_or_else(std::env::temp_dir, |folder| folder.path().to_path_buf())
    })
}

/// A folder of the scratch folder that holds these files and nothing else.
///
/// # Panics
/// The scratch folder cannot be written.
pub fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = scratch().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder to write to");
    for (file, bytes) in files {
        fs::write(folder.join(file), bytes).expect("a folder to write to");
    }
    folder
}

/// The project's own folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file that a test of the project has; empty if it is gone, which a test of the seeds tells.
pub fn own(path: &str) -> Vec<u8> {
    fs::read(project().join("crates").join(path)).unwrap_or_default()
}
