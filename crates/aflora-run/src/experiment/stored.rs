//! Cells whose findings stand in files of results already.
//!
//! Runs are large, and results are what is kept of them: a grid that was begun on one machine is
//! finished on another from its results alone, and what an earlier experiment found is not run again.

use super::grid::{digest, Plan, Planned};
use crate::config;
use aflora_record::results::{Finding, Outcome, Results};
use aflora_record::Settings;
use anyhow::Result;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Findings by the digest of what decides them, each with the file that it stands in.
#[derive(Debug, Clone, Default)]
pub struct Stored(HashMap<String, (PathBuf, Finding)>);

impl Stored {
    /// What the files of results in `folder` hold of the plan. Files that are no results are left out,
    /// for whoever writes a report of the folder tells what is wrong with them.
    ///
    /// An earlier version named runs after fewer settings than there are today. Such findings are found
    /// by what their settings come to now.
    pub fn read(folder: &Path, plan: &Plan) -> Stored {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        // The grid's own come first: two runs of one settings may differ by rounding, and a table that is
        // made again stays what it was.
        let own = format!("{}-{}", plan.experiment, plan.profile);
        let others = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            stem.strip_prefix(&own).is_none_or(|end| !["", "-part"].contains(&end))
        };
        files.sort_by_cached_key(|path| (others(path), path.clone()));
        let asked: HashSet<&str> = plan.cells.iter().map(|cell| cell.digest.as_str()).collect();
        let names: HashSet<String> = plan.cells.iter().map(|cell| cell.resolved.name()).collect();
        let mut stored = HashMap::new();
        for path in files {
            for cell in Results::read(&path).into_iter().flat_map(|results| results.cells) {
                let Outcome::Done(finding) = cell.outcome else { continue };
                let digest = match asked.contains(cell.digest.as_str()) {
                    true => Some(cell.digest),
                    false if name(&finding).is_some_and(|name| names.contains(&name)) => {
                        digest_today(&finding, &plan.run_file).ok()
                    }
                    false => None,
                };
                if let Some(digest) = digest.filter(|digest| asked.contains(digest.as_str())) {
                    stored.entry(digest).or_insert_with(|| (path.clone(), *finding));
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

/// What the run was called.
fn name(finding: &Finding) -> Option<String> {
    let settings = Settings::parse(&finding.settings.to_string()).ok()?;
    Some(settings.subject()?.run_name(settings.seed()?))
}

/// The digest of what the settings of a finding come to in this version. They are read as a run's are,
/// from a file, with the project that their places are seen from.
fn digest_today(finding: &Finding, run_file: &Path) -> Result<String> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    file.write_all(finding.settings.to_string().as_bytes())?;
    let project = run_file.parent().and_then(Path::parent);
    let project = project.map(|folder| format!("project={}", folder.display()));
    Ok(digest(&config::load(file.path(), project.as_slice())?))
}
