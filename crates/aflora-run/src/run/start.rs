//! The start of a run in its folder: from nothing, or from the last checkpoint that is whole.

use super::checkpoint::{self, Id, ResumePoint};
use super::folder::RunFolder;
use super::loop_state::LoopState;
use super::prepare::Prepared;
use super::shared;
use crate::config::Resolved;
use crate::provenance::{environment, sha256};
use crate::{device, ui, usage};
use aflora_core::Tuner;
use aflora_record::names::{self, CONFIG};
use aflora_record::provenance::{Provenance, Resumed, WeightFile};
use aflora_record::Recorder;
use anyhow::{ensure, Context, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where a run begins.
pub struct Start {
    /// Its logs.
    pub recorder: Recorder,
    /// What it has found before.
    pub loop_state: LoopState,
    /// The checkpoint that it goes on from.
    pub saved: Option<Id>,
}

/// Prepares the folder, and brings the tuner to where the run stands. A process without a folder
/// gets that from the first.
///
/// # Errors
/// The folder cannot be written, or its checkpoint is of other weights or data.
pub fn start(
    resolved: &Resolved,
    run: &Prepared,
    tuner: &mut Tuner,
    folder: Option<&RunFolder>,
) -> Result<Start> {
    let start = folder.map(|folder| start_in(resolved, run, tuner, folder)).transpose()?;
    keep_log(run, folder)?;
    let saved = start.as_ref().and_then(|start| start.saved).map(|id| id.to_string());
    let saved = run.world.broadcast_bytes(saved.unwrap_or_default().into_bytes(), 0)?;
    let goes_on = !saved.is_empty();
    let kept = folder.map(|folder| checkpoint::place(folder, &String::from_utf8_lossy(&saved)));
    let kept = match goes_on && !run.world.is_alone() {
        true => Some(shared::folder(&run.world, kept.as_deref())?),
        false => None,
    };
    if let Some(start) = start {
        return Ok(start);
    }
    let recorder = Recorder::nowhere();
    let Some(kept) = kept else {
        return Ok(Start { recorder, loop_state: LoopState::default(), saved: None });
    };
    let (resume_point, state) = checkpoint::read(kept.path())?;
    check_inputs(&resume_point, run)?;
    tuner.restore(&state)?;
    let id = Id::of(&resume_point.loop_state, resume_point.position.step);
    Ok(Start { recorder, loop_state: resume_point.loop_state, saved: Some(id) })
}

/// Lets each process but the first log to a file of its own in the run's folder. On a machine that has not
/// the first one's disk, that folder holds nothing else.
fn keep_log(run: &Prepared, folder: Option<&RunFolder>) -> Result<()> {
    let path = folder.map(|folder| std::path::absolute(folder.path())).transpose()?;
    let path = path.unwrap_or_default().into_os_string().into_encoded_bytes();
    let path = run.world.broadcast_bytes(path, 0)?;
    if run.world.leads() {
        return Ok(());
    }
    let path = PathBuf::from(OsString::from_vec(path));
    let log = path.join(names::log_of(run.world.rank()));
    let kept = std::fs::create_dir_all(&path).and_then(|()| ui::keep_log(&log));
    kept.with_context(|| format!("{} cannot be written", log.display()))
}

fn start_in(
    resolved: &Resolved,
    run: &Prepared,
    tuner: &mut Tuner,
    folder: &RunFolder,
) -> Result<Start> {
    let begun = folder.path().join(CONFIG).is_file();
    let found = checkpoint::load(folder, |id, resume_point| {
        check_inputs(resume_point, run)?;
        check_numbers(id, resume_point, run)?;
        Ok(resume_point.lengths.check(folder.path())?)
    })?;
    let Some((id, resume_point, state)) = found else {
        if begun {
            tracing::warn!(
                "{}: the run there left no checkpoint to go on from; it starts anew",
                folder.path().display()
            );
        }
        folder.clear()?;
        // First: whoever finds this file finds a run, and may start it anew.
        folder.write(CONFIG, resolved.to_yaml()?.as_bytes())?;
        provenance(run, folder)?.write(folder.path())?;
        let recorder = Recorder::create(folder.path())?;
        return Ok(Start { recorder, loop_state: LoopState::default(), saved: None });
    };
    tuner.restore(&state)?;
    folder.tidy();
    checkpoint::restore_adapter(folder, id)?;
    let recorder = Recorder::go_on(folder.path(), &resume_point.lengths)?;
    add_to_provenance(run, folder, id.step)?;
    tracing::info!(
        "{}: goes on behind step {} of {}",
        folder.path().display(),
        id.step,
        run.total_steps()
    );
    Ok(Start { recorder, loop_state: resume_point.loop_state, saved: Some(id) })
}

/// Digests of everything that was read, by what it is: the same wherever it lies.
pub fn inputs(run: &Prepared) -> BTreeMap<String, String> {
    let mut inputs = BTreeMap::new();
    let mut add = |name: String, sha256: &String| {
        let number = (1..).find(|n| !inputs.contains_key(&format!("{name} ({n})")));
        inputs.insert(format!("{name} ({})", number.unwrap_or(1)), sha256.clone());
    };
    run.data.iter().for_each(|source| add(format!("data {}", source.split), &source.sha256));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    run.weights.iter().for_each(|(path, sha256)| add(format!("weights {}", name(path)), sha256));
    inputs
}

/// A run does not go on with other data or weights than it began with.
fn check_inputs(resume_point: &ResumePoint, run: &Prepared) -> Result<()> {
    let here = inputs(run);
    let keys = resume_point.inputs.keys().chain(here.keys());
    let differ: Vec<&String> =
        keys.filter(|k| resume_point.inputs.get(*k) != here.get(*k)).collect();
    if let Some(first) = differ.first() {
        let mut read: Vec<String> =
            run.data.iter().map(|source| source.path.display().to_string()).collect();
        read.extend(run.weights.iter().map(|(path, _)| path.display().to_string()));
        read.dedup();
        usage!(
            "the run began with other files: {first} has changed since, or lies elsewhere than \
             where it was looked for now; put the old ones back, name their folder with \
             data=FOLDER, or name another run_dir. Read now:\n  {}",
            read.join("\n  ")
        );
    }
    Ok(())
}

/// A checkpoint whose numbers are those of no moment of this run is not gone on from.
fn check_numbers(id: Id, resume_point: &ResumePoint, run: &Prepared) -> Result<()> {
    resume_point.position.check(run.total_steps())?;
    resume_point.loop_state.check(&resume_point.position, run.eval_points())?;
    let here = Id::of(&resume_point.loop_state, resume_point.position.step);
    ensure!(id == here, "it is called {id} and is of {here}");
    Ok(())
}

fn provenance(run: &Prepared, folder: &RunFolder) -> Result<Provenance> {
    let config = sha256(&folder.path().join(CONFIG)).context(CONFIG)?;
    let weights = run.weights.iter();
    Ok(Provenance {
        environment: environment(),
        config_sha256: Some(config),
        device: device::describe(run.device),
        data: run.data.clone(),
        weights: weights
            .map(|(path, sha256)| WeightFile { path: path.clone(), sha256: sha256.clone() })
            .collect(),
        processes: run.world.size(),
        resumed: Some(Vec::new()),
        ..Provenance::default()
    })
}

/// Every start of a run is told, and one on another device said.
fn add_to_provenance(run: &Prepared, folder: &RunFolder, step: u64) -> Result<()> {
    let mut whole = Provenance::read(folder.path())?;
    let device = device::describe(run.device);
    if whole.device != device {
        tracing::warn!(
            "the run began on {} and goes on on {device}: it will not be to the bit what it \
             would have been",
            whole.device
        );
    }
    let (before, processes) = (whole.processes_last(), run.world.size());
    if before != processes {
        tracing::warn!(
            "the run was done by {before} {} before and goes on with {processes}: its updates are \
             of the same rows, and it will not be to the bit what it would have been",
            if before == 1 { "process" } else { "processes" },
        );
    }
    let again = Resumed { step, device, processes, environment: environment() };
    whole.resumed.get_or_insert_default().push(again);
    Ok(whole.write(folder.path())?)
}
