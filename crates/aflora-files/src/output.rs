//! Files that a user named on the command line as an output: found fit before the work for them
//! begins, and written whole or not at all. A link is followed to its file, and a device or pipe
//! (`/dev/stdout`, a FIFO) is written to as it stands.

use crate::read;
use crate::write::{beside, fill_file, parent, sync};
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// An output that can be written. Nothing stands there yet, or still what stood there before.
#[derive(Debug)]
pub struct Output {
    target: PathBuf,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A device or pipe gets everything as it comes.
    Stream,
    /// A new file is renamed to its target.
    New(NamedTempFile),
    /// And over the file of these permissions that stands there.
    Replaced(NamedTempFile, Permissions),
    /// The first file is written where it stands, as soon as its content lies ready in the second:
    /// its folder takes no new file, though this one can be written.
    InPlace(File, File),
}

impl Output {
    /// Finds out whether `target` can be written.
    ///
    /// # Errors
    /// It cannot, and why: it is a folder or ends in a slash as one, there is no folder that it
    /// would lie in, or it may not be written.
    pub fn open(target: &Path) -> io::Result<Output> {
        let (target, way) = match fs::metadata(target) {
            Ok(about) if about.is_file() => existing(fs::canonicalize(target)?, &about)?,
            Ok(about) if about.is_dir() => return Err(read::check(&about).expect_err("a folder")),
            Ok(_) => (target.to_path_buf(), Way::Stream),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if target.as_os_str().as_bytes().ends_with(b"/") {
                    let problem = "it ends in a slash, as a folder does; name a file";
                    return Err(io::Error::new(ErrorKind::IsADirectory, problem));
                }
                let target = followed(target)?;
                let temporary = beside(&target)?;
                (target, Way::New(temporary))
            }
            Err(error) => return Err(error),
        };
        Ok(Output { target, way })
    }

    /// Writes it as `fill` does.
    ///
    /// # Errors
    /// Those of `fill`, where a file stays as it was; or it cannot be written.
    pub fn write<E: From<io::Error>>(
        self,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let Output { target, way } = self;
        match way {
            Way::Stream => {
                let mut stream = BufWriter::new(File::options().write(true).open(&target)?);
                fill(&mut stream)?;
                stream.flush()?;
            }
            Way::New(temporary) => {
                fill_file(temporary.as_file(), None, fill)?;
                temporary.persist(&target).map_err(|failed| failed.error)?;
                sync(parent(&target))?;
            }
            Way::Replaced(temporary, permissions) => {
                fill_file(temporary.as_file(), Some(permissions), fill)?;
                match temporary.persist(&target) {
                    Ok(_) => sync(parent(&target))?,
                    Err(failed) if stays(&failed.error) => {
                        let file = File::options().write(true).open(&target)?;
                        overwrite(file, failed.file.as_file())?;
                    }
                    Err(failed) => return Err(failed.error.into()),
                }
            }
            Way::InPlace(file, content) => {
                fill_file(&content, None, fill)?;
                overwrite(file, &content)?;
            }
        }
        Ok(())
    }
}

fn existing(target: PathBuf, about: &fs::Metadata) -> io::Result<(PathBuf, Way)> {
    let way = match beside(&target) {
        Ok(temporary) => Way::Replaced(temporary, about.permissions()),
        Err(error) if stays(&error) => {
            let file = File::options().write(true).open(&target)?;
            Way::InPlace(file, tempfile::tempfile()?)
        }
        Err(error) => return Err(error),
    };
    Ok((target, way))
}

/// Whether a file may be writable all the same that cannot be replaced by another: its folder is
/// not, it is another user's in a folder such as `/tmp`, or it is mounted from elsewhere.
fn stays(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
    )
}

/// Gives a file the content of another. Where that fails it holds the beginning, never the new
/// before the rest of the old.
fn overwrite(mut file: File, mut content: &File) -> io::Result<()> {
    content.rewind()?;
    file.set_len(0)?;
    io::copy(&mut content, &mut file)?;
    file.sync_all()
}

/// The place that a chain of links leads to, where nothing stands yet.
fn followed(target: &Path) -> io::Result<PathBuf> {
    // As many as the kernel follows.
    const LINKS: usize = 40;
    let mut target = target.to_path_buf();
    for _ in 0..LINKS {
        match fs::read_link(&target) {
            Ok(to) => target = parent(&target).join(to),
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is a link that leads to itself"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write;
    use std::os::unix::fs::{symlink, PermissionsExt};
    use std::process::Command;

    fn put(path: &Path, content: &str) -> io::Result<()> {
        Output::open(path)?.write(|to| to.write_all(content.as_bytes()))
    }

    fn fails(_: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("no"))
    }

    #[test]
    fn a_file_appears_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Output::open(&path).unwrap().write(fails).unwrap_err();
        assert!(!path.exists());
        put(&path, "one").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        put(&path, "two").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        Output::open(&path).unwrap().write(fails).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing is left");
    }

    #[test]
    fn a_link_is_followed_to_its_file_be_it_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("file"), "old").unwrap();
        for (link, to) in [("link", "file"), ("dangling", "sub/next"), ("sub/next", "../later")] {
            symlink(to, path(link)).unwrap();
        }
        for (link, file) in [("link", "file"), ("dangling", "later")] {
            Output::open(&path(link)).unwrap().write(fails).unwrap_err();
            put(&path(link), "new").unwrap();
            assert!(path(link).is_symlink() && !path(file).is_symlink());
            assert_eq!(fs::read(path(file)).unwrap(), b"new");
        }
        symlink("loop", path("loop")).unwrap();
        put(&path("loop"), "").unwrap_err();
    }

    #[test]
    fn a_device_or_pipe_is_written_to_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        put(&pipe, "through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(!fs::metadata(&pipe).unwrap().is_file());
        put(Path::new("/dev/null"), "x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let error = write(&pipe, b"x").unwrap_err().to_string();
        assert_eq!(error, "it is a pipe or device, no file");
    }

    #[test]
    fn what_cannot_be_written_is_refused_before_it_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "kept").unwrap();
        symlink("none/file", path("dangling")).unwrap();
        for (name, words) in [
            ("", "it is a folder, not a file"),
            (".", "it is a folder, not a file"),
            ("new/", "it ends in a slash, as a folder does; name a file"),
            ("none/file", "No such file or directory (os error 2)"),
            ("dangling", "No such file or directory (os error 2)"),
            ("file/", "Not a directory (os error 20)"),
            ("file/new", "Not a directory (os error 20)"),
        ] {
            assert_eq!(Output::open(&path(name)).unwrap_err().to_string(), words, "{name}");
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "and nothing is left");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_overwritten_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old and longer").unwrap();
        let open = || File::options().write(true).open(&path).unwrap();
        let in_place = || Output {
            target: path.clone(),
            way: Way::InPlace(open(), tempfile::tempfile().unwrap()),
        };
        in_place().write(fails).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old and longer");
        in_place().write::<io::Error>(|to| to.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // Whoever may write all folders replaces it here.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
        let written = put(&path, "newer");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        written.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }
}
