//! A run's folder at one moment.

use super::pace::Pace;
use crate::error::{usage, Context, Result};
use aflora_files::printable_line;
use aflora_record::names::{holds, CONFIG, EVENTS};
use aflora_record::tail::{News, Tail};
use aflora_record::{Error, History, Provenance, Summary};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A folder that is watched.
#[derive(Debug)]
pub struct Watched {
    folder: PathBuf,
    tail: Tail,
    history: History,
    pace: Pace,
    opened: Instant,
    ended_well: bool,
    summary: Option<Summary>,
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

/// What can be shown of a run at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The run's name, to print: that of its folder.
    pub name: String,
    /// How it stands.
    pub phase: Phase,
    /// What its events say.
    pub history: History,
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
            tail: Tail::new(folder.join(EVENTS)),
            history: History::default(),
            pace: Pace::default(),
            opened: Instant::now(),
            ended_well: false,
            summary: None,
        })
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// The events cannot be read.
    pub fn look(&mut self) -> Result<()> {
        // Metrics are written last: seen before the events, no event is missed.
        let summary = Summary::read(&self.folder);
        // It is written whole or not at all: a damaged one says as much of the end.
        self.ended_well = !summary.as_ref().is_err_and(Error::is_missing);
        self.summary = summary.ok();
        let history = &mut self.history;
        self.tail
            .news(|news| match news {
                News::Anew => *history = History::default(),
                News::Line(line) => history.read_line(line),
            })
            .with_context(|| format!("the events of {} cannot be read", self.folder.display()))?;
        self.pace.see(self.opened.elapsed().as_secs_f64(), self.history.step);
        Ok(())
    }

    /// Whether nothing more will come.
    pub fn ended(&self) -> bool {
        matches!(self.phase(), Phase::Finished | Phase::Failed(_))
    }

    fn phase(&self) -> Phase {
        match (self.ended_well, &self.history.failed) {
            (true, _) => Phase::Finished,
            (false, Some(error)) => Phase::Failed(error.clone()),
            (false, None) if self.history.step == 0 => Phase::Waiting,
            (false, None) if self.history.awaits_evaluation() => Phase::Evaluating,
            (false, None) => Phase::Running,
        }
    }

    /// What can be shown now.
    pub fn snapshot(&self) -> Snapshot {
        let name = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let written =
            std::fs::metadata(self.folder.join(EVENTS)).and_then(|found| found.modified()).ok();
        let mut history = self.history.clone();
        if let Some(summary) = &self.summary {
            history.selection = Some(summary.selection.clone());
        }
        Snapshot {
            name: printable_line(&name.file_name().unwrap_or(name.as_os_str()).to_string_lossy())
                .into_owned(),
            phase: self.phase(),
            pace: self.pace.per_second().or_else(|| self.average(written?)),
            silence: written.and_then(|at| SystemTime::now().duration_since(at).ok()),
            seconds: self.summary.as_ref().map(|summary| summary.seconds.training),
            history,
        }
    }

    /// Steps a second from the start to the last event, evaluations included.
    fn average(&self, last: SystemTime) -> Option<f64> {
        let started = Provenance::read(&self.folder).ok()?.environment.started_unix;
        let last = last.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        let seconds = last - started as f64;
        (started > 0 && seconds >= 1.0 && self.history.step > 0)
            .then(|| self.history.step as f64 / seconds)
    }
}
