//! One process writes a run's folder at a time.

use crate::usage;
use aflora_files::own::{self, Locked};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The file that is locked.
pub const FILE: &str = ".lock";

/// The most bytes of a process's number, with the end of its line.
const LONGEST: u64 = 16;

/// Holds a run's folder until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the folder.
    ///
    /// # Errors
    /// Another process has it, which is named; or the file cannot be made.
    pub fn take(folder: &Path) -> Result<Lock> {
        match Self::try_take(folder)? {
            Ok(lock) => Ok(lock),
            Err(holder) => usage!(
                "{} is being written by {holder}; wait for it, or name another run_dir",
                folder.display()
            ),
        }
    }

    /// Takes the folder, or tells who has it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn try_take(folder: &Path) -> Result<std::result::Result<Lock, String>> {
        let path = folder.join(FILE);
        let failed = || format!("{} cannot be locked", path.display());
        let mut file = match own::lock(&path).with_context(failed)? {
            Locked::Ours(file) => file,
            Locked::Held(file) => {
                let mut holder = String::new();
                let _ = file.take(LONGEST).read_to_string(&mut holder);
                return Ok(Err(match holder.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".into(),
                }));
            }
        };
        // For people alone: the lock is the system's, not the file's content.
        let told = file.set_len(0).and_then(|()| file.rewind());
        told.and_then(|()| writeln!(file, "{}", std::process::id())).with_context(failed)?;
        Ok(Ok(Lock { _file: file }))
    }
}
