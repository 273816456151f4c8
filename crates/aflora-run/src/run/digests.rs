//! Digests of the weights' files, made while the model is made of them: at a gigabyte a second they
//! would take longer than all else before the first step.

use crate::provenance::sha256;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

/// So many files are read at once.
const READERS: usize = 4;

/// Files whose digests are being made.
pub struct Digests {
    files: Arc<Files>,
    readers: Vec<JoinHandle<()>>,
}

struct Files {
    files: Vec<(PathBuf, OnceLock<io::Result<String>>)>,
    next: AtomicUsize,
}

impl Files {
    /// Reads one after another that nobody reads yet.
    fn read(&self) {
        while let Some((file, digest)) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            digest.get_or_init(|| sha256(file));
        }
    }
}

impl Digests {
    /// Begins to read these files, on threads of their own.
    pub fn begin(files: Vec<PathBuf>) -> Self {
        let readers = files.len().min(READERS);
        let files = files.into_iter().map(|file| (file, OnceLock::new())).collect();
        let files = Arc::new(Files { files, next: AtomicUsize::new(0) });
        let reader = |_| {
            let files = files.clone();
            // Where there is no thread to be had, the one that waits reads.
            thread::Builder::new().name("digests".into()).spawn(move || files.read()).ok()
        };
        Digests { readers: (0..readers).filter_map(reader).collect(), files }
    }

    /// The files with their digests, in the order in which they were given.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn wait(self) -> io::Result<Vec<(PathBuf, String)>> {
        self.files.read();
        // What a reader was at is made here where it panicked.
        self.readers.into_iter().for_each(|reader| drop(reader.join()));
        let digest = |(file, digest): &(PathBuf, OnceLock<io::Result<String>>)| {
            let digest = digest.get_or_init(|| sha256(file)).as_ref();
            let digest = digest.map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
            Ok((file.clone(), digest.clone()))
        };
        self.files.files.iter().map(digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_with_their_digests_in_their_order_and_a_missing_one_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..9).map(|n| place.path().join((9 - n).to_string())).collect();
        for (n, file) in files.iter().enumerate() {
            std::fs::write(file, if n % 2 == 0 { "" } else { "abc" }).unwrap();
        }
        let digests = Digests::begin(files.clone()).wait().unwrap();
        assert_eq!(digests.len(), 9);
        for (n, (file, digest)) in digests.iter().enumerate() {
            assert_eq!(file, &files[n]);
            // FIPS 180-4's of nothing and of abc.
            let begins = if n % 2 == 0 { "e3b0c442" } else { "ba7816bf" };
            assert_eq!(&digest[..8], begins);
        }
        let missing = Digests::begin(vec![files[0].clone(), place.path().join("none")]).wait();
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Digests::begin(Vec::new()).wait().unwrap().is_empty());
    }
}
