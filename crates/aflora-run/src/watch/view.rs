//! A run's folder at one moment.

use super::pace::Pace;
use super::state::State;
use super::tail::{News, Tail};
use crate::run::folder::{holds, read_json, CONFIG, METRICS, PROVENANCE};
use crate::usage;
use aflora_files::printable_line;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A folder that is watched.
#[derive(Debug)]
pub struct Watched {
    folder: PathBuf,
    tail: Tail,
    state: State,
    pace: Pace,
    opened: Instant,
    metrics: Option<Value>,
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is recorded yet.
    Waiting,
    /// It trains.
    Running,
    /// The steps of an epoch are done, and it is being judged.
    Evaluating,
    /// It ended well.
    Finished,
    /// It ended early.
    Failed(String),
}

/// What can be shown of a run.
#[derive(Debug, Clone)]
pub struct View {
    /// The run's name, to print: that of its folder.
    pub name: String,
    /// How it stands.
    pub phase: Phase,
    /// What its events say.
    pub state: State,
    /// Steps a second: while watching, else on average since it started.
    pub pace: Option<f64>,
    /// Since the last event.
    pub silence: Option<Duration>,
    /// Seconds of training, once it has finished.
    pub seconds: Option<f64>,
}

impl Watched {
    /// Begins to watch.
    ///
    /// # Errors
    /// There is no such folder, or it holds something and that is no run.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            usage!("{}: there is no such run folder; `aflora ls` lists runs", folder.display());
        }
        let mut entries = std::fs::read_dir(folder)
            .with_context(|| format!("the folder {} cannot be read", folder.display()))?;
        // A run that only just began has an empty folder.
        if !holds(folder, CONFIG)? && entries.next().is_some() {
            usage!(
                "{}: no run's folder, it has no {CONFIG}; `aflora ls` lists runs",
                folder.display()
            );
        }
        Ok(Watched {
            folder: folder.to_path_buf(),
            tail: Tail::new(folder.join("events.jsonl")),
            state: State::default(),
            pace: Pace::default(),
            opened: Instant::now(),
            metrics: None,
        })
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// The events cannot be read.
    pub fn look(&mut self) -> Result<()> {
        // Metrics are written last: seen before the events, no event is missed.
        self.metrics = read_json(&self.folder.join(METRICS)).ok();
        let state = &mut self.state;
        self.tail
            .news(|news| match news {
                News::Anew => *state = State::default(),
                News::Line(line) => state.read(line),
            })
            .with_context(|| format!("the events of {} cannot be read", self.folder.display()))?;
        self.pace.see(self.opened.elapsed().as_secs_f64(), self.state.step);
        Ok(())
    }

    /// Whether nothing more will come.
    pub fn ended(&self) -> bool {
        matches!(self.phase(), Phase::Finished | Phase::Failed(_))
    }

    fn phase(&self) -> Phase {
        match (&self.metrics, &self.state.failed) {
            (Some(_), _) => Phase::Finished,
            (None, Some(error)) => Phase::Failed(error.clone()),
            (None, None) if self.state.step == 0 => Phase::Waiting,
            (None, None) if self.state.awaits_evaluation() => Phase::Evaluating,
            (None, None) => Phase::Running,
        }
    }

    /// What can be shown now.
    pub fn view(&self) -> View {
        let name = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let written = std::fs::metadata(self.folder.join("events.jsonl"))
            .and_then(|found| found.modified())
            .ok();
        let metrics = |pointer| self.metrics.as_ref().and_then(|m| m.pointer(pointer));
        let mut state = self.state.clone();
        if let Some(selection) = metrics("/selection").and_then(Value::as_str) {
            state.selection = Some(selection.to_string());
        }
        View {
            name: printable_line(&name.file_name().unwrap_or(name.as_os_str()).to_string_lossy())
                .into_owned(),
            phase: self.phase(),
            pace: self.pace.per_second().or_else(|| self.average(written?)),
            silence: written.and_then(|at| SystemTime::now().duration_since(at).ok()),
            seconds: metrics("/seconds/training").and_then(Value::as_f64),
            state,
        }
    }

    /// Steps a second from the start to the last event, evaluations included.
    fn average(&self, last: SystemTime) -> Option<f64> {
        let provenance: Value = read_json(&self.folder.join(PROVENANCE)).ok()?;
        let started = provenance.pointer("/environment/started_unix")?.as_u64()?;
        let last = last.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        let seconds = last - started as f64;
        (seconds >= 1.0 && self.state.step > 0).then(|| self.state.step as f64 / seconds)
    }
}
