//! Digests of the weights' files, made while the model is made of them: at a gigabyte a second they
//! would take longer than all else before the first step.

use crate::provenance::sha256;
use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

/// Files whose digests are being made.
pub struct Digests(Vec<(PathBuf, JoinHandle<io::Result<String>>)>);

impl Digests {
    /// Begins to read these files, on a thread each.
    pub fn begin(files: Vec<PathBuf>) -> Self {
        let begin = |file: PathBuf| {
            let read = file.clone();
            (file, thread::spawn(move || sha256(&read)))
        };
        Digests(files.into_iter().map(begin).collect())
    }

    /// The files with their digests, in the order in which they were given.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn wait(self) -> io::Result<Vec<(PathBuf, String)>> {
        let wait = |(file, digest): (PathBuf, JoinHandle<io::Result<String>>)| match digest.join() {
            Ok(digest) => Ok((file, digest?)),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.0.into_iter().map(wait).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_with_their_digests_in_their_order_and_a_missing_one_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let files = ["b", "a"].map(|name| place.path().join(name));
        for (file, text) in files.iter().zip(["", "abc"]) {
            std::fs::write(file, text).unwrap();
        }
        let digests = Digests::begin(files.to_vec()).wait().unwrap();
        let begins: Vec<_> = digests.iter().map(|(file, of)| (file, &of[..8])).collect();
        // FIPS 180-4's of nothing and of abc.
        assert_eq!(begins, [(&files[0], "e3b0c442"), (&files[1], "ba7816bf")]);
        let missing = Digests::begin(vec![place.path().join("c")]).wait();
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
