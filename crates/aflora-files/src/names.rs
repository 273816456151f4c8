//! Names out of a file (an index of shards, the state of a run, a manifest): whoever wrote the file
//! may have written `../../.bashrc`.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The path of `name` in `folder`, where `name` (`a` or `a/b`) came out of a file.
///
/// # Errors
/// The name leads out of the folder (it is absolute, or holds `..`), is empty, or holds a control
/// character.
pub fn inside(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain || name.chars().any(char::is_control) {
        let problem = format!(
            "the name `{}` leads out of its folder; it must be one in it",
            crate::printable_line(name)
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        let folder = Path::new("/run");
        assert_eq!(inside(folder, "a").unwrap(), Path::new("/run/a"));
        assert_eq!(inside(folder, "a/b.c").unwrap(), Path::new("/run/a/b.c"));
        for name in ["", ".", "..", "../a", "a/../../b", "/etc/passwd", "./a", "a\0b", "a\nb"] {
            let error = inside(folder, name).unwrap_err().to_string();
            assert!(error.contains("leads out of its folder"), "{name:?}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
