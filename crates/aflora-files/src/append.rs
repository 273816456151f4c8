//! A file of ours that goes on at its end, such as a download that broke off. Its name can be
//! foretold, since it must be found again; so somebody may have laid something there.

use rustix::fs::OFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How often something that came in between is dealt with.
const TRIES: usize = 8;

/// Opens a file to go on at its end; makes it if there is none. What stands there and does not
/// belong to us alone (a link, a file with a second name, another user's file, a pipe) is replaced,
/// never written through.
///
/// # Errors
/// It cannot be made; or what stands there is a folder, or cannot be removed.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = File::options();
    options.read(true).append(true).custom_flags(flags);
    for _ in 0..TRIES {
        match options.open(path) {
            Ok(file) if is_ours_alone(&file)? => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => match fs::remove_file(path) {
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
    Err(io::Error::other("other processes make and remove it all the time"))
}

fn is_ours_alone(file: &File) -> io::Result<bool> {
    let about = file.metadata()?;
    let user = rustix::process::geteuid().as_raw();
    Ok(about.is_file() && about.nlink() == 1 && about.uid() == user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    #[test]
    fn what_is_not_ours_alone_is_replaced_and_not_written_through() {
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
            [|from, to| fs::hard_link(from, to), |from, to| std::os::unix::fs::symlink(from, to)];
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
    fn a_folder_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        fs::create_dir(&part).unwrap();
        fs::write(part.join("kept"), "").unwrap();
        open_to_append(&part).unwrap_err();
        assert!(part.join("kept").is_file());
    }
}
