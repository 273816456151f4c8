//! Files of a user's, opened with care: a pipe would keep a program waiting, a device would fill
//! its memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most bytes of a file that is read whole: a hundred times the largest index or vocabulary.
const MOST: u64 = 1 << 30;

/// Opens a file that is one, and no folder, pipe or device.
///
/// # Errors
/// It is none, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a pipe waits for its other end.
    let about = std::fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a file"));
    }
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or device, no file"));
    }
    File::open(path)
}

/// The bytes of a file of a reasonable size.
///
/// # Errors
/// As [`open`]; or it is larger.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MOST} bytes")));
    }
    Ok(bytes)
}

/// The text of a file of a reasonable size.
///
/// # Errors
/// As [`read`]; or it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

#[cfg(all(test, unix))]
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
}
