//! Files of ours that are written where they stand: logs, locks. A folder from elsewhere may hold a
//! link under such a name, which would lead the writing to any file.

use crate::read;
use crate::write::remove;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file of ours to read and write it where it stands, such as a log that goes on.
///
/// # Errors
/// There is none; or it is a link, a folder, a pipe or a device.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, File::options().read(true).write(true))
}

/// Opens a file of ours as `options` say: one that is made if there is none, or appended to.
///
/// # Errors
/// As the options have it; or it is a link, a folder, a pipe or a device.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    check(path)?;
    let file = options.custom_flags(flags).open(path)?;
    // And once more: another may have come to stand there meanwhile.
    read::check(&file.metadata()?)?;
    Ok(file)
}

/// Makes a file of ours anew, to be written as it stands, such as a log. A file or link of that
/// name is removed.
///
/// # Errors
/// It cannot be made; or a folder, a pipe or a device stands there.
pub fn create(path: &Path) -> io::Result<File> {
    if !path.is_symlink() {
        check(path)?;
    }
    remove(path)?;
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Whether what stands there, if anything does, is a file that is no link to another.
fn check(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(about) if about.is_symlink() => {
            let problem = "it is a link, no file of its own";
            Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
        }
        Ok(about) => read::check(&about),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn a_link_is_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, log) = (folder.path().join("victim"), folder.path().join("log"));
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, &log).unwrap();
        let append = || open_with(&log, File::options().append(true).create(true));
        for refused in [open(&log), append()] {
            assert_eq!(refused.unwrap_err().to_string(), "it is a link, no file of its own");
        }
        create(&log).unwrap().write_all(b"ours").unwrap();
        append().unwrap().write_all(b" too").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"ours too");
        create(&log).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"");
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn pipes_and_folders_are_refused_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for refused in [open(&pipe), create(&pipe), open(folder.path()), create(folder.path())] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("it is a"), "{error}");
        }
        assert!(pipe.exists());
    }
}
