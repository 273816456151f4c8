//! Cells whose findings stand in files of results already.
//!
//! Runs are large, and results are what is kept of them: a grid that was begun on one machine is
//! finished on another from its results alone, and what an earlier experiment found is not run again.

use super::grid::Planned;
use aflora_record::results::{Finding, Outcome, Results};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Findings by what decides them, each with the file that it stands in.
#[derive(Debug, Clone, Default)]
pub struct Stored(HashMap<String, (PathBuf, Finding)>);

impl Stored {
    /// What the files of results in `folder` hold. Files that are no results are left out, for whoever
    /// writes a report of the folder tells what is wrong with them.
    pub fn read(folder: &Path) -> Stored {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        files.sort();
        let mut stored = HashMap::new();
        for path in files {
            for cell in Results::read(&path).into_iter().flat_map(|results| results.cells) {
                if let Outcome::Done(finding) = cell.outcome {
                    stored.entry(cell.digest).or_insert_with(|| (path.clone(), *finding));
                }
            }
        }
        Stored(stored)
    }

    /// What a run of the same settings found.
    pub fn finding(&self, cell: &Planned) -> Option<&Finding> {
        self.0.get(&cell.digest).map(|(_, finding)| finding)
    }

    /// The file that has it.
    pub fn file(&self, cell: &Planned) -> Option<&Path> {
        self.0.get(&cell.digest).map(|(path, _)| path.as_path())
    }
}
