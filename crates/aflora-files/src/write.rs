//! Files and folders that appear whole or not at all, even if the machine stops, and through no
//! link that somebody laid.
//!
//! The temporary file or folder is created anew, under a name that nobody can foretell, beside its
//! target, so that the last step is a rename. The targets are *ours*, in a run's folder, a cache,
//! among results: a link of that name is replaced, never followed, since a folder from elsewhere
//! may hold one; a device or pipe is refused. What a *user* names on the command line is an
//! [`Output`](crate::Output).

use crate::read;
use rustix::fs::{renameat_with, RenameFlags, CWD};
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{Builder, NamedTempFile};

/// The end of every temporary name; the name begins with a dot.
const SUFFIX: &str = ".tmp";

/// Bytes of the target's name in a temporary one: a name can be as long as the file system takes,
/// and the temporary one is longer.
const NAMED: usize = 64;

/// Whether a file or folder of this name is what an interrupted write left.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// Writes a file of ours.
///
/// # Errors
/// It cannot be written, or something that is no file stands there; nothing is left of it then,
/// and what stood there before still does.
pub fn write(target: &Path, content: &[u8]) -> io::Result<()> {
    write_with(target, |file| file.write_all(content))
}

/// Writes a file of ours as `fill` does.
///
/// # Errors
/// Those of `fill`, and as [`write`](fn@write).
pub fn write_with<E: From<io::Error>>(
    target: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    match target.symlink_metadata() {
        Ok(about) if about.is_symlink() => replace(target, None, fill),
        Ok(about) => {
            read::check(&about)?;
            replace(target, Some(about.permissions()), fill)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(target, None, fill),
        Err(error) => Err(error.into()),
    }
}

/// Makes a folder of ours as `fill` does, in place of the one that stands there, if one does.
///
/// # Errors
/// Those of `fill`; or the folder cannot be written. What stood there before still does then.
pub fn replace_folder<E: From<io::Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let parent = parent(target);
    fs::create_dir_all(parent)?;
    // Removed where anything fails from here on.
    let temporary = builder(target, 0o777, |builder| builder.tempdir_in(parent))?;
    fill(temporary.path())?;
    sync_files(temporary.path())?;
    let new = temporary.path();
    let exchanged = renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE);
    match exchanged.map_err(io::Error::from) {
        // What stood there bears the temporary name now.
        Ok(()) => match remove(new) {
            Ok(()) => drop(temporary.keep()),
            Err(error) => return Err(error.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(new, target)?;
            drop(temporary.keep());
        }
        // A file system that cannot exchange two names.
        Err(_) => {
            remove(target)?;
            fs::rename(new, target)?;
            drop(temporary.keep());
        }
    }
    Ok(sync(parent)?)
}

/// Whether a folder of ours can be made at `path`, or something in it where it stands already: found
/// by making something in the nearest folder that is there, and removing it. Permissions alone do
/// not tell, since a file system may take nothing, or nothing new.
///
/// # Errors
/// It cannot be made, and why.
pub fn check_makeable(path: &Path) -> io::Result<()> {
    let here = |part| if part == Path::new("") { Path::new(".") } else { part };
    let mut there = path.ancestors().map(here);
    let there = there.find(|part| part.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    if !fs::metadata(there)?.is_dir() {
        let problem = format!("{} is no folder", crate::printable_line(&there.to_string_lossy()));
        return Err(io::Error::new(io::ErrorKind::NotADirectory, problem));
    }
    builder(path, 0o777, |builder| builder.tempdir_in(there))?.close().map_err(nameless)
}

/// Removes a file, a link, or a folder with all that is in it; fine if there is none.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Waits until a file's or a folder's content is on the disk.
///
/// # Errors
/// It cannot be opened, or the disk fails.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// [`sync`] of a folder and the files in it.
///
/// # Errors
/// As [`sync`].
fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_files(&path)?,
            false => sync(&path)?,
        }
    }
    sync(folder)
}

/// Writes beside `target`, then renames over it.
fn replace<E: From<io::Error>>(
    target: &Path,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = beside(target)?;
    fill_file(temporary.as_file(), permissions, fill)?;
    temporary.persist(target).map_err(|failed| failed.error)?;
    Ok(sync(parent(target))?)
}

/// A temporary file beside `target`.
pub(crate) fn beside(target: &Path) -> io::Result<NamedTempFile> {
    builder(target, 0o666, |builder| builder.tempfile_in(parent(target)))
}

/// Fills a bare file, whose errors do not name it, up to the disk.
pub(crate) fn fill_file<E: From<io::Error>>(
    file: &File,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffered = BufWriter::new(file);
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    Ok(file.sync_all()?)
}

/// Makes something temporary beside `target`, with the permissions that a plain file or folder gets.
fn builder<T>(
    target: &Path,
    mode: u32,
    make: impl FnOnce(&Builder<'_, '_>) -> io::Result<T>,
) -> io::Result<T> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let mut end = name.len().min(NAMED);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let prefix = format!(".{}.", &name[..end]);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX).permissions(Permissions::from_mode(mode));
    make(&builder).map_err(nameless)
}

/// An error without the temporary name that tempfile adds to it, of which it gives no other part
/// but the words before: whoever gets it knows the target.
fn nameless(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path \"") {
        Some((why, _)) => io::Error::new(error.kind(), why),
        None => error,
    }
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn fails(_: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("no"))
    }

    #[test]
    fn a_file_appears_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"one").unwrap();
        let umask = 0o666 & !(fs::metadata(&path).unwrap().permissions().mode() & 0o777);
        assert_eq!(umask & 0o600, 0, "its owner reads and writes it");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        write_with(&path, fails).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_name_as_long_as_the_file_system_takes_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ä".repeat(127));
        write(&path, b"long").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"long");
    }

    #[test]
    fn an_error_names_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("none").join("file");
        let none = "No such file or directory (os error 2)";
        for error in [
            write(&nowhere, b"").unwrap_err(),
            crate::Output::open(&nowhere).unwrap_err(),
            replace_folder::<io::Error>(Path::new("/proc/folder"), |_| Ok(())).unwrap_err(),
            check_makeable(Path::new("/proc/folder")).unwrap_err(),
        ] {
            assert_eq!((error.to_string().as_str(), error.kind()), (none, io::ErrorKind::NotFound));
        }
    }

    #[test]
    fn whether_a_folder_can_be_made_is_found_before_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check_makeable(folder.path()).unwrap();
        check_makeable(&folder.path().join("new").join("out")).unwrap();
        assert!(names(folder.path()).is_empty());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        for refused in ["file", "file/out", "dangling/out"] {
            check_makeable(&folder.path().join(refused)).unwrap_err();
        }
        for refused in ["/proc/nope", "/proc/nope/out", "/dev/null", "/dev/null/out"] {
            check_makeable(Path::new(refused)).unwrap_err();
        }
        assert_eq!(names(folder.path()), ["dangling", "file"]);
    }

    #[test]
    fn a_link_in_our_folder_is_replaced_and_its_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, &link).unwrap();
        write(&link, b"ours").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert!(!link.is_symlink());
    }

    #[test]
    fn temporary_names_laid_beforehand_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        for name in [".file.tmp", "file.tmp", "file.incomplete"] {
            symlink(&victim, folder.path().join(name)).unwrap();
        }
        fs::create_dir(folder.path().join("out.tmp")).unwrap();
        write(&folder.path().join("file"), b"ours").unwrap();
        replace_folder::<io::Error>(&folder.path().join("out"), |_| Ok(())).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert!(folder.path().join("out.tmp").is_dir());
    }

    #[test]
    fn a_folder_is_replaced_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new").join("out");
        let fill = |name: &'static str| {
            move |folder: &Path| -> io::Result<()> { fs::write(folder.join(name), name) }
        };
        replace_folder(&target, fill("a")).unwrap();
        replace_folder(&target, fill("b")).unwrap();
        assert_eq!(names(&target), ["b"]);
        replace_folder(&target, |folder| {
            fs::write(folder.join("c"), "")?;
            Err(io::Error::other("no"))
        })
        .unwrap_err();
        assert_eq!(names(&target), ["b"]);
        assert_eq!(names(target.parent().unwrap()), ["out"]);
    }

    #[test]
    fn a_link_to_a_folder_is_replaced_and_its_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("kept"), "").unwrap();
        let link = folder.path().join("link");
        symlink(&victim, &link).unwrap();
        replace_folder::<io::Error>(&link, |_| Ok(())).unwrap();
        assert_eq!(names(&victim), ["kept"]);
        assert!(!link.is_symlink());
        assert_eq!(names(folder.path()), ["link", "victim"]);
    }
}
