//! Checkpoints: what it takes to go on with a run as if it had never stopped.
//!
//! `checkpoint/step-<n>/` (`step-<n>-evaluated/` behind an evaluation) holds
//!
//! | file | holds |
//! |---|---|
//! | `state.safetensors` | trained values, moments, scores, what the method keeps |
//! | `state.json` | the rest: steps, the frozen set, evaluations, counts, lengths of the logs |
//! | `adapter/` | the best evaluation's adapter, hard links where the file system has them |
//! | `manifest.json` | the SHA-256 of each file |
//!
//! It is made under another name, written to the disk, then renamed: it appears whole or not at
//! all. The last two are kept, and a damaged one gives way to the one before. No generator's
//! state is in it: each step's dropout is seeded by the run's seed and the step, each epoch's
//! order by the seed and the epoch.

use super::folder::RunFolder;
use super::loop_state::LoopState;
use crate::provenance::sha256;
use crate::usage;
use aflora_core::state::Position;
use aflora_core::TunerState;
use aflora_files::write::{is_leftover, remove};
use aflora_models::weights::{read_tensors, write_tensors};
use aflora_record::json::{self, indented};
use aflora_record::names::{ADAPTER, CHECKPOINTS};
use aflora_record::recorder::Lengths;
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// How many checkpoints are kept: the last, and the one before should the last be damaged.
const KEPT: usize = 2;
/// The version of a checkpoint's layout. One of another version cannot be read.
const FORMAT: u32 = 2;

/// What a run goes on from, all but the tensors: `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumePoint {
    /// Where the tuner stands: steps, the frozen set, counts.
    pub position: Position,
    /// What the training loop has found so far. Files keep its older name, so that runs begun
    /// before can go on.
    #[serde(rename = "course")]
    pub loop_state: LoopState,
    /// How long each log was then: what was written later is cut off before the run goes on.
    pub lengths: Lengths,
    /// Digests of data and weights.
    pub inputs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    files: BTreeMap<String, String>,
}

/// Which moment a checkpoint is of; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Completed steps.
    pub step: u64,
    /// Whether the run is evaluated behind that step.
    pub evaluated: bool,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step-{}{}", self.step, if self.evaluated { "-evaluated" } else { "" })
    }
}

impl Id {
    /// What a checkpoint behind `step` steps is called, where the run has found `loop_state`.
    pub fn of(loop_state: &LoopState, step: u64) -> Id {
        let last = loop_state.evaluations.last();
        Id { step, evaluated: last.is_some_and(|evaluation| evaluation.step == step) }
    }

    fn parse(name: &str) -> Option<Id> {
        let rest = name.strip_prefix("step-")?;
        let (number, evaluated) = match rest.strip_suffix("-evaluated") {
            Some(number) => (number, true),
            None => (rest, false),
        };
        Some(Id { step: number.parse().ok()?, evaluated })
    }
}

/// Writes a checkpoint, and removes all but the last ones.
///
/// # Errors
/// It cannot be written; those before are untouched then.
pub fn save(
    folder: &RunFolder,
    id: Id,
    resume_point: &ResumePoint,
    tensors: BTreeMap<String, tch::Tensor>,
) -> Result<()> {
    let parent = checkpoints_folder(folder)?;
    let target = parent.join(id.to_string());
    let written = aflora_files::replace_folder(&target, |new| -> Result<()> {
        write_tensors(&new.join(TENSORS), tensors)?;
        fs::write(new.join(STATE), indented(resume_point)?)?;
        if resume_point.loop_state.best.is_some() {
            fs::create_dir(new.join(ADAPTER))?;
            link_files(&folder.path().join(ADAPTER), &new.join(ADAPTER))?;
        }
        let manifest = Manifest { format: FORMAT, files: digests(new)? };
        Ok(fs::write(new.join(MANIFEST), indented(&manifest)?)?)
    });
    written.with_context(|| format!("{} cannot be written", target.display()))?;
    // They take room, and nothing else.
    for old in list(&parent).into_iter().skip(KEPT) {
        let _ = remove(&parent.join(old.to_string()));
    }
    Ok(())
}

/// The newest checkpoint that is whole and that `fits` accepts; newer ones are named in
/// warnings, and removed.
///
/// # Errors
/// One was written in a form that this program does not know, or their folder is a link.
pub fn load(
    folder: &RunFolder,
    fits: impl Fn(Id, &ResumePoint) -> Result<()>,
) -> Result<Option<(Id, ResumePoint, TunerState)>> {
    let parent = checkpoints_folder(folder)?;
    for id in list(&parent) {
        let path = parent.join(id.to_string());
        let found = || -> Result<_> {
            check(&path)?;
            let (resume_point, state) = read(&path)?;
            fits(id, &resume_point).context(STATE)?;
            Ok((id, resume_point, state))
        };
        match found() {
            Ok(found) => {
                tidy(&parent, id);
                return Ok(Some(found));
            }
            Err(error) if error.is::<crate::UsageError>() => return Err(error),
            Err(error) => tracing::warn!(
                "{} cannot be used: {error:#}; the one before it is tried",
                path.display()
            ),
        }
    }
    Ok(None)
}

/// What the checkpoint in this folder holds, which is whole.
///
/// # Errors
/// It is not.
pub fn read(path: &Path) -> Result<(ResumePoint, TunerState)> {
    let resume_point: ResumePoint = json::read(&path.join(STATE), "state of a run")?;
    let tensors = read_tensors(&path.join(TENSORS))?;
    let state = TunerState { position: resume_point.position.clone(), tensors };
    Ok((resume_point, state))
}

/// Where the checkpoint of that name lies in a run's folder.
pub fn place(folder: &RunFolder, name: &str) -> PathBuf {
    folder.path().join(CHECKPOINTS).join(name)
}

/// Removes what cannot be used: halves of checkpoints, and those behind `last`, the one that is.
fn tidy(parent: &Path, last: Id) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if Id::parse(&name).map_or(is_leftover(&name), |id| id > last) {
            let _ = remove(&entry.path());
        }
    }
}

/// Puts the best adapter of a checkpoint back in its place; without one, there is none.
///
/// # Errors
/// It cannot be written.
pub fn restore_adapter(folder: &RunFolder, id: Id) -> Result<()> {
    let place = folder.path().join(ADAPTER);
    let kept = folder.path().join(CHECKPOINTS).join(id.to_string()).join(ADAPTER);
    let restore = || -> io::Result<()> {
        if !is_own_folder(&kept) {
            return remove(&place);
        }
        aflora_files::replace_folder(&place, |new| link_files(&kept, new))
    };
    restore().with_context(|| format!("{} cannot be restored", place.display()))
}

/// Removes a finished run's checkpoints: `adapter/` holds what was learnt.
pub fn discard(folder: &Path) {
    if let Err(error) = remove(&folder.join(CHECKPOINTS)) {
        tracing::warn!("{} cannot be removed: {error}", folder.join(CHECKPOINTS).display());
    }
}

/// The folder of a run's checkpoints.
///
/// # Errors
/// It is a link: what is written and removed there would be somebody else's.
fn checkpoints_folder(folder: &RunFolder) -> Result<PathBuf> {
    let path = folder.path().join(CHECKPOINTS);
    if path.is_symlink() {
        usage!(
            "{} is a link, and a run writes and removes in its own folder alone; put the folder \
             itself there, or remove the link to start anew",
            path.display()
        );
    }
    Ok(path)
}

/// Whether a folder stands there, and no link to one.
fn is_own_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir())
}

/// All checkpoints of a folder, the newest first, whether whole or not.
fn list(parent: &Path) -> Vec<Id> {
    let entries = fs::read_dir(parent);
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut ids: Vec<Id> = names.filter_map(|name| Id::parse(&name.to_string_lossy())).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// Fails unless every file is there and is what it was.
fn check(path: &Path) -> Result<()> {
    let manifest: Manifest = json::read(&path.join(MANIFEST), "manifest of a checkpoint")?;
    if manifest.format != FORMAT {
        usage!(
            "{} has format {}, and this program reads {FORMAT}; go on with the version of aflora \
             that wrote it, or name another run_dir",
            path.display(),
            manifest.format
        );
    }
    let found = digests(path)?;
    if let Some(name) = [TENSORS, STATE].into_iter().find(|name| !found.contains_key(*name)) {
        bail!("{name} is missing");
    }
    for (name, digest) in &manifest.files {
        match found.get(name) {
            Some(found) if found == digest => {}
            Some(_) => bail!("{name} is not what was written (its checksum differs)"),
            None => bail!("{name} is missing"),
        }
    }
    Ok(())
}

/// The SHA-256 of each file but the manifest.
fn digests(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for (prefix, folder) in [("", path.to_path_buf()), ("adapter/", path.join(ADAPTER))] {
        if !is_own_folder(&folder) {
            continue;
        }
        for file in files(&folder)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != MANIFEST {
                digests.insert(format!("{prefix}{name}"), sha256(&file)?);
            }
        }
    }
    Ok(digests)
}

/// The files of a folder. Links are none: they could be to anybody's.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.collect();
    let own = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    Ok(entries?.into_iter().filter(own).map(|entry| entry.path()).collect())
}

/// The files of one folder in another, as hard links, or as copies where that fails. Nobody
/// writes into them: an adapter is replaced, not changed.
fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    for file in files(from)? {
        let target = to.join(file.file_name().unwrap_or_default());
        if fs::hard_link(&file, &target).is_err() {
            fs::copy(&file, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aflora_record::evaluation::{Evaluation, Metrics};

    #[test]
    fn a_checkpoint_s_name_tells_whether_its_step_is_evaluated() {
        let evaluation = |step| Evaluation {
            step,
            epoch: step as f64 / 3.0,
            metrics: Metrics::new(),
            loss: 0.5,
            seconds: 1.0,
        };
        let loop_state =
            LoopState { evaluations: vec![evaluation(3), evaluation(6)], ..LoopState::default() };
        for (step, name) in [(7, "step-7"), (6, "step-6-evaluated")] {
            let id = Id::of(&loop_state, step);
            assert_eq!((id.to_string().as_str(), Id::parse(name)), (name, Some(id)));
        }
        assert_eq!(Id::of(&LoopState::default(), 0).to_string(), "step-0");
    }
}
