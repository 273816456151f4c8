//! Opening and reading what a user names: a pipe would keep a program waiting, a device would fill
//! its memory.

use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most bytes of a file that is read whole: a hundred times the largest index or vocabulary.
pub const MOST: u64 = 1 << 30;

/// Opens a file that is one, and no folder, pipe or device.
///
/// # Errors
/// It is none, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a device can do something.
    check(&std::fs::metadata(path)?)?;
    // And once more behind it, since the path may mean another file by then; a pipe that took its
    // place does not keep us waiting for its other end.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// Whether this is a file, and no folder, pipe or device.
pub(crate) fn check(about: &std::fs::Metadata) -> io::Result<()> {
    if about.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a file"));
    }
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or device, no file"));
    }
    Ok(())
}

/// The bytes of a file of a reasonable size.
///
/// # Errors
/// As [`open`]; or it is larger than [`MOST`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MOST)
}

/// The bytes of a file of `most` bytes at the most.
///
/// # Errors
/// As [`open`]; or it is larger.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let problem = format!("it holds more than {most} bytes");
        io::Error::new(io::ErrorKind::FileTooLarge, problem)
    };
    let file = open(path)?;
    if file.metadata()?.len() > most {
        return Err(too_large());
    }
    // It may grow meanwhile, and some files do not tell their length.
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}

/// The text of a file of a reasonable size.
///
/// # Errors
/// As [`read`]; or it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    text(read(path)?)
}

/// The text of a file of `most` bytes at the most.
///
/// # Errors
/// As [`read_at_most`]; or it is not UTF-8.
pub fn read_text_at_most(path: &Path, most: u64) -> io::Result<String> {
    text(read_at_most(path, most)?)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_pipes_devices_and_bytes_that_are_no_text_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let bytes = folder.path().join("bytes");
        std::fs::write(&bytes, b"a\nb\xff").unwrap();
        for (path, expected) in [
            (folder.path(), "it is a folder"),
            (&pipe, "it is a pipe or device"),
            (Path::new("/dev/zero"), "it is a pipe or device"),
            (&bytes, "line 2 is not UTF-8"),
        ] {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_file_larger_than_asked_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text_at_most(&path, 4).unwrap(), "four");
        let error = read_at_most(&path, 3).unwrap_err();
        assert_eq!(error.to_string(), "it holds more than 3 bytes");
    }
}
