//! Files of ours that are written where they stand: logs, locks, a download that goes on. Their
//! names can be foretold, and a folder may come from elsewhere or be a copy whose files are second
//! names of another's (`cp -al`): writing through a link would change a file that is not ours.

use crate::read;
use crate::write::{remove, write_with};
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How often something that came in between is dealt with.
const TRIES: usize = 8;

/// Opens a file of ours to read and write it where it stands, such as a log that goes on. One that
/// has further names is replaced by a copy first, and those keep what they have.
///
/// # Errors
/// There is none; or it is a link, a folder, a pipe or a device; or it cannot be copied.
pub fn open(path: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        let mut file = open_with(path, File::options().read(true).write(true))?;
        if has_one_name(&file.metadata()?) {
            return Ok(file);
        }
        write_with(path, |copy| io::copy(&mut file, copy).map(drop))?;
    }
    Err(busy())
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

/// Opens a file to go on at its end; makes it if there is none. What stands there and does not
/// belong to us alone (a link, a file with a second name, another user's file, a pipe) is replaced,
/// never written through.
///
/// # Errors
/// It cannot be made; or what stands there is a folder, or cannot be removed.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).custom_flags(no_link());
    for _ in 0..TRIES {
        match options.open(path) {
            Ok(file) if is_ours_alone(&file.metadata()?) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
        match options.clone().create_new(true).open(path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
    Err(busy())
}

/// What came of locking a file.
#[derive(Debug)]
pub enum Locked {
    /// It is ours until the file is closed.
    Ours(File),
    /// Another process has it; the file can be read.
    Held(File),
}

/// Locks a file of ours, which is made if there is none, and made anew if it has further names.
///
/// # Errors
/// It cannot be made or locked; or it is a link, a folder, a pipe or a device.
pub fn lock(path: &Path) -> io::Result<Locked> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    for _ in 0..TRIES {
        let file = open_with(path, &mut options)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Locked::Held(file)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let about = file.metadata()?;
        // Whoever had it before may have made it anew: then this is no longer the one that counts.
        if stands_at(&about, path)? {
            if has_one_name(&about) {
                return Ok(Locked::Ours(file));
            }
            // While it is held, nobody else takes it away.
            remove(path)?;
        }
    }
    Err(busy())
}

/// Opens what stands there as `options` say.
fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    check(path)?;
    let file = options.custom_flags(no_link()).open(path)?;
    // And once more: another may have come to stand there meanwhile.
    read::check(&file.metadata()?)?;
    Ok(file)
}

/// Flags under which neither a link is followed nor a pipe waited for.
fn no_link() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32
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

fn is_ours_alone(about: &Metadata) -> bool {
    let user = rustix::process::geteuid().as_raw();
    about.is_file() && has_one_name(about) && about.uid() == user
}

fn has_one_name(about: &Metadata) -> bool {
    about.nlink() <= 1
}

/// Whether the path names this very file.
fn stands_at(about: &Metadata, path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (about.dev(), about.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn busy() -> io::Error {
    io::Error::other("other processes make and remove it all the time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn a_link_is_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, log) = (folder.path().join("victim"), folder.path().join("log"));
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, &log).unwrap();
        for refused in [open(&log).unwrap_err(), lock(&log).unwrap_err()] {
            assert_eq!(refused.to_string(), "it is a link, no file of its own");
        }
        create(&log).unwrap().write_all(b"ours").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"ours");
        create(&log).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"");
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_log_with_a_second_name_goes_on_in_a_copy_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (other, log) = (folder.path().join("other"), folder.path().join("log"));
        fs::write(&other, "one two").unwrap();
        fs::hard_link(&other, &log).unwrap();
        let mut file = open(&log).unwrap();
        file.set_len(3).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b" three").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"one three");
        assert_eq!(fs::read(&other).unwrap(), b"one two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "and nothing is left");

        fs::remove_file(&log).unwrap();
        fs::hard_link(&other, &log).unwrap();
        create(&log).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"one two");
    }

    #[test]
    fn a_lock_with_a_second_name_is_made_anew_unless_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (other, path) = (folder.path().join("other"), folder.path().join("lock"));
        fs::write(&other, "kept").unwrap();
        fs::hard_link(&other, &path).unwrap();
        let holder = File::open(&other).unwrap();
        holder.lock().unwrap();
        // The process that holds it may as well write this folder as the other.
        assert!(matches!(lock(&path).unwrap(), Locked::Held(_)));
        drop(holder);
        let Locked::Ours(mut file) = lock(&path).unwrap() else { panic!("nobody else has it") };
        file.write_all(b"ours").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert_eq!(fs::read(&other).unwrap(), b"kept");
        assert!(matches!(lock(&path).unwrap(), Locked::Held(_)));
        drop(file);
        assert!(matches!(lock(&path).unwrap(), Locked::Ours(_)));
    }

    #[test]
    fn what_is_not_ours_alone_is_replaced_and_not_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, part) = (folder.path().join("victim"), folder.path().join("part"));
        let append = |text: &str| {
            open_to_append(&part).unwrap().write_all(text.as_bytes()).unwrap();
            fs::read_to_string(&part).unwrap()
        };
        assert_eq!(append("one"), "one");
        assert_eq!(append("two"), "onetwo");
        fs::write(&victim, "kept").unwrap();
        let laid: [fn(&Path, &Path) -> io::Result<()>; 2] =
            [|from, to| fs::hard_link(from, to), |from, to| symlink(from, to)];
        for lay in laid {
            fs::remove_file(&part).unwrap();
            lay(&victim, &part).unwrap();
            assert_eq!(append("new"), "new");
            assert_eq!(fs::read(&victim).unwrap(), b"kept");
        }
        fs::remove_file(&part).unwrap();
        assert!(Command::new("mkfifo").arg(&part).status().unwrap().success());
        assert_eq!(append("new"), "new");
    }

    #[test]
    fn pipes_and_folders_are_refused_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), folder.path()] {
            let refused = [open(path).err(), create(path).err(), lock(path).err()];
            for error in refused {
                let error = error.unwrap().to_string();
                assert!(error.contains("it is a"), "{error}");
            }
        }
        let full = folder.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("kept"), "").unwrap();
        open_to_append(&full).unwrap_err();
        assert!(pipe.exists() && full.join("kept").is_file());
    }
}
