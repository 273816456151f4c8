//! Hugging Face's own cache on the disk, which Python's client shares.
//!
//! ```text
//! models--OWNER--NAME/blobs/TAG                 a file's bytes, under its ETag
//!                    /snapshots/COMMIT/FILE     a link to them
//!                    /refs/BRANCH               the commit that a branch is
//!                    /.no_exist/COMMIT/FILE     empty: the hub said that there is no such file
//! ```

use super::address::is_part;
use super::promise::is_hex;
use super::repo::Repo;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};

/// Hugging Face's cache.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    pub(super) root: PathBuf,
}

/// Digits of a commit.
const COMMIT: usize = 40;

/// The most bytes of a file that holds a commit.
const MOST_OF_REF: u64 = 128;

impl Cache {
    fn folder(&self, repo: &Repo) -> PathBuf {
        let kind = if repo.dataset { "datasets" } else { "models" };
        self.root.join(format!("{kind}--{}", repo.repo.replace('/', "--")))
    }

    /// The revision's commit, where it is one or the cache knows it; else the revision.
    pub(super) fn commit(&self, repo: &Repo) -> String {
        let known = || {
            let path = self.folder(repo).join("refs").join(&repo.revision);
            let text = aflora_files::read_text_at_most(&path, MOST_OF_REF).ok()?;
            Some(text.trim().to_string()).filter(|text| is_commit(text))
        };
        let pinned = is_commit(&repo.revision) || !is_part(&repo.revision);
        let known = if pinned { None } else { known() };
        known.unwrap_or_else(|| repo.revision.clone())
    }

    /// Remembers that the revision, if it is no commit itself, is `commit`.
    pub(super) fn remember_commit(&self, repo: &Repo, commit: &str) -> io::Result<()> {
        if repo.revision == commit {
            return Ok(());
        }
        let path = self.folder(repo).join("refs").join(&repo.revision);
        write(&path, commit.as_bytes())
    }

    /// Where `file` lies, of that commit.
    pub(super) fn snapshot(&self, repo: &Repo, commit: &str, file: &str) -> PathBuf {
        self.folder(repo).join("snapshots").join(commit).join(file)
    }

    /// Whether the hub said that the commit has no `file`.
    pub(super) fn is_absent(&self, repo: &Repo, commit: &str, file: &str) -> bool {
        self.absent(repo, commit, file).is_file()
    }

    /// Remembers that the commit has no `file`; only spares a question the next time.
    pub(super) fn remember_absent(&self, repo: &Repo, commit: &str, file: &str) {
        let _ = write(&self.absent(repo, commit, file), b"");
    }

    fn absent(&self, repo: &Repo, commit: &str, file: &str) -> PathBuf {
        self.folder(repo).join(".no_exist").join(commit).join(file)
    }

    /// Where the bytes of that name lie, or are to lie.
    pub(super) fn blob(&self, repo: &Repo, name: &str) -> PathBuf {
        self.folder(repo).join("blobs").join(name)
    }

    /// Makes `file` of that commit the bytes of that name, which are in the cache.
    pub(super) fn link(&self, repo: &Repo, commit: &str, file: &str, name: &str) -> io::Result<()> {
        let (target, blob) = (self.snapshot(repo, commit, file), self.blob(repo, name));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        let up = "../".repeat(1 + file.split('/').count());
        let made = symlink(format!("{up}blobs/{name}"), &target);
        match made {
            Err(_) if target.is_file() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A link to bytes that are gone.
                aflora_files::write::remove(&target)?;
                symlink(format!("{up}blobs/{name}"), &target)
            }
            // A file system without links.
            Err(_) => fs::rename(&blob, &target),
            Ok(()) => Ok(()),
        }
    }
}

/// Whether `text` is a commit's hash.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, COMMIT)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    aflora_files::write(path, content)
}

/// A part of a file that is being fetched, beside its place; one process writes it at a time.
#[derive(Debug)]
pub(super) struct PartialDownload {
    pub(super) file: File,
    path: PathBuf,
}

impl PartialDownload {
    /// The part of `blob` that came before, or an empty one; waits until no other process has it.
    pub(super) fn open(blob: &Path) -> io::Result<Self> {
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder)?;
        }
        // Of this user's own: those who share a cache need not trust each other's parts.
        let mut path = blob.as_os_str().to_os_string();
        path.push(format!(".{}.incomplete", rustix::process::geteuid().as_raw()));
        let path = PathBuf::from(path);
        loop {
            let file = aflora_files::open_to_append(&path)?;
            if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
                tracing::info!("{}: another process fetches it; waiting", blob.display());
                file.lock()?;
            }
            // Whoever had it may have finished it or given it up.
            let (ours, there) = (file.metadata()?, fs::symlink_metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(PartialDownload { file, path });
            }
        }
    }

    /// The file's path, until it is whole.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes have come so far.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Gives a download that is whole its final name, `blob`.
    pub(super) fn finish(self, blob: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, blob)
    }

    /// Removes the file: what came is of no use.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}
