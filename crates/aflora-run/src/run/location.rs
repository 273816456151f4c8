//! Which folder a run gets: a new one, or one in which the same run was begun.

use super::checkpoint;
use super::folder::RunFolder;
use super::lock::{self, Lock};
use crate::config::{self, Resolved};
use crate::provenance::sha256;
use crate::{check_makeable, usage};
use aflora_files::write::is_leftover;
use aflora_record::names::{holds, CHECKPOINTS, CONFIG, METRICS};
use aflora_record::{Provenance, Summary};
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where the numbered folders lie.
const RUNS: &str = "runs";

/// What errors call a run's folder.
const FOLDER: &str = "the run folder";

/// Where a run's files will be, and what is there already.
#[derive(Debug)]
pub enum RunLocation {
    /// A folder that is still to be made, or an empty one.
    New(PathBuf),
    /// The first number that is free when it is made.
    Numbered(String),
    /// A run with these settings was begun here and did not finish.
    Begun(RunFolder),
    /// A run with these settings is finished here.
    Finished(PathBuf, Box<Summary>),
}

impl RunLocation {
    /// The location of the run that `resolved` asks for. Nothing is made yet.
    ///
    /// # Errors
    /// The folder that the user named holds something else, or another process writes it.
    pub fn find(resolved: &mut Resolved) -> Result<RunLocation> {
        match resolved.run.run_dir.clone() {
            Some(path) => Self::named(&path, resolved),
            None => Self::numbered(resolved),
        }
    }

    /// Whether the folder that the user named is a new one. If not, it holds a run with these
    /// settings.
    ///
    /// # Errors
    /// It holds something else.
    pub fn check(path: &Path, resolved: &mut Resolved) -> Result<bool> {
        if path.is_file() {
            usage!("run_dir {} is a file; name a folder", path.display());
        }
        if is_new(path)? {
            check_makeable(FOLDER, path)?;
            return Ok(true);
        }
        if !holds(path, CONFIG)? {
            usage!(
                "run_dir {} already holds something, but no run; name another one or remove it",
                path.display()
            );
        }
        let differences = differences(path, resolved)?;
        if !differences.is_empty() {
            usage!(
                "run_dir {} holds a run with other settings; name another one, or go on with its \
                 own:\n  {}",
                path.display(),
                differences.join("\n  ")
            );
        }
        Ok(false)
    }

    fn named(path: &Path, resolved: &mut Resolved) -> Result<RunLocation> {
        if Self::check(path, resolved)? {
            return Ok(RunLocation::New(path.to_path_buf()));
        }
        check_unchanged(path)?;
        match finished(path)? {
            Some(summary) => {
                // A run that was killed when all was done but this.
                if path.join(CHECKPOINTS).exists() {
                    if let Ok(Ok(_lock)) = Lock::try_take(path) {
                        checkpoint::discard(path);
                    }
                }
                Ok(RunLocation::Finished(path.to_path_buf(), Box::new(summary)))
            }
            None => Ok(RunLocation::Begun(RunFolder::take(path)?)),
        }
    }

    /// The newest folder of that name is taken up again if it can be; else a new number.
    fn numbered(resolved: &mut Resolved) -> Result<RunLocation> {
        check_makeable(FOLDER, Path::new(RUNS))?;
        let name = resolved.name();
        let exists = |n: &u32| candidate(&name, *n).exists();
        if let Some(last) = (1..).take_while(exists).last() {
            let path = candidate(&name, last);
            let mut same = || differences(&path, resolved).is_ok_and(|d| d.is_empty());
            if path.join(CONFIG).is_file() && !path.join(METRICS).exists() && same() {
                if let Ok(Ok(lock)) = Lock::try_take(&path) {
                    return Ok(RunLocation::Begun(RunFolder::with(&path, lock)));
                }
            }
        }
        Ok(RunLocation::Numbered(name))
    }

    /// The folder, made if it has to be, and locked.
    ///
    /// # Errors
    /// It cannot be made, or another process was faster.
    pub fn open(self) -> Result<RunFolder> {
        let make = |path: &Path| {
            fs::create_dir_all(path)
                .with_context(|| format!("{FOLDER} {} cannot be made", path.display()))
        };
        match self {
            RunLocation::Begun(folder) => Ok(folder),
            RunLocation::New(path) | RunLocation::Finished(path, _) => {
                make(&path)?;
                RunFolder::take(&path)
            }
            RunLocation::Numbered(name) => {
                make(Path::new(RUNS))?;
                for number in 1.. {
                    let path = candidate(&name, number);
                    // Fails where another process was faster: then the next number.
                    match fs::create_dir(&path) {
                        Ok(()) => return RunFolder::take(&path),
                        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                        Err(e) => {
                            let words = format!("{FOLDER} {} cannot be made", path.display());
                            return Err(e).context(words);
                        }
                    }
                }
                unreachable!("the numbers do not end")
            }
        }
    }
}

fn candidate(name: &str, number: u32) -> PathBuf {
    match number {
        1 => Path::new(RUNS).join(name),
        n => Path::new(RUNS).join(format!("{name}-{n}")),
    }
}

/// Whether nothing is there that anybody would miss: a run that ended before it wrote its
/// configuration leaves a lock and halves of files.
fn is_new(path: &Path) -> Result<bool> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(true)
        }
        Err(e) => {
            return Err(e).with_context(|| format!("run_dir {} cannot be read", path.display()))
        }
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.into_iter().all(|name| name == lock::FILE || is_leftover(&name)))
}

/// Where the run in `path` differs. What `batch_size: auto` found there counts here, too, and so
/// does where its data lie, unless a folder is named here.
pub(crate) fn differences(path: &Path, resolved: &mut Resolved) -> Result<Vec<String>> {
    let there = config::load(&path.join(CONFIG), &[])?;
    let mut here = resolved.clone();
    let rows = |resolved: &Resolved| resolved.run.batch_size * resolved.run.accumulate;
    if here.run.fit_batch && rows(&here) == rows(&there) {
        (here.run.batch_size, here.run.accumulate) = (there.run.batch_size, there.run.accumulate);
        here.run.fit_batch = false;
    }
    here.run.data = here.run.data.or_else(|| there.run.data.clone());
    let differences = here.differences(&there);
    if differences.is_empty() {
        *resolved = here;
    }
    Ok(differences)
}

/// Refuses a run whose own configuration was edited: what it says is not what the run did.
fn check_unchanged(path: &Path) -> Result<()> {
    let there = match Provenance::read(path) {
        Ok(there) => there,
        // Without one, the run ended before it did anything.
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let config = path.join(CONFIG);
    let now = sha256(&config).with_context(|| config.display().to_string())?;
    match there.config_sha256 {
        Some(before) if before != now => usage!(
            "{} was changed since the run there began; put it back, or run it with another \
             run_dir=FOLDER",
            config.display()
        ),
        _ => Ok(()),
    }
}

/// The summary of a finished run.
fn finished(path: &Path) -> Result<Option<Summary>> {
    match Summary::read(path) {
        Ok(summary) => Ok(Some(summary)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("{}: remove the folder to run it again", path.display())),
    }
}
