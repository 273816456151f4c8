//! What a run writes down while it goes: events for programs, scalars for TensorBoard.

use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::event::{Event, Step};
use crate::names::EVENTS;
use crate::tensorboard::{self, open_at, ScalarWriter};
use aflora_files::own;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// How far the logs were written at a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// Bytes of `events.jsonl`.
    pub events: u64,
    /// The file for TensorBoard.
    pub scalars_file: String,
    /// How many bytes of the file for TensorBoard count.
    pub scalars: u64,
}

impl Lengths {
    /// Whether the logs in `folder` are as long at least.
    ///
    /// # Errors
    /// They are not, or have names that a run's logs have not.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let scalars = tensorboard::place(folder, &self.scalars_file);
        let scalars = scalars.map_err(|problem| Error::Log(problem.to_string()))?;
        for (path, wanted) in [(folder.join(EVENTS), self.events), (scalars, self.scalars)] {
            let length = path.symlink_metadata().map_or(0, |about| about.len());
            if length < wanted {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let problem = format!("{name} had {wanted} bytes then and has {length} now");
                return Err(Error::Log(problem));
            }
        }
        Ok(())
    }
}

/// Writes a run's events.
#[derive(Debug)]
pub struct Recorder(Option<Files>);

#[derive(Debug)]
struct Files {
    path: PathBuf,
    events: BufWriter<File>,
    scalars: ScalarWriter,
}

impl Recorder {
    /// Writes nothing: where several processes train together, one of them writes for all.
    pub fn nowhere() -> Self {
        Recorder(None)
    }

    /// Starts the event files in `folder`.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(EVENTS);
        let start = || Ok((own::create(&path)?, ScalarWriter::create(folder)?));
        let (events, scalars) = start().map_err(Error::write(&path))?;
        Ok(Recorder(Some(Files { path, events: BufWriter::new(events), scalars })))
    }

    /// Goes on with the event files in `folder`, as they were when they had these lengths.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn go_on(folder: &Path, lengths: &Lengths) -> Result<Self> {
        let path = folder.join(EVENTS);
        let Lengths { events, scalars_file, scalars } = lengths;
        let open =
            || Ok((open_at(&path, *events)?, ScalarWriter::go_on(folder, scalars_file, *scalars)?));
        let (events, scalars) = open().map_err(Error::write(&path))?;
        Ok(Recorder(Some(Files { path, events: BufWriter::new(events), scalars })))
    }

    /// Writes everything to the disk, and tells how much there is; of nothing, that there is nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sync(&mut self) -> Result<Lengths> {
        match &mut self.0 {
            Some(files) => files.sync().map_err(Error::write(&files.path)),
            None => Ok(Lengths { events: 0, scalars_file: String::new(), scalars: 0 }),
        }
    }

    /// Writes one event to both files.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        match &mut self.0 {
            Some(files) => files.write(event).map_err(Error::write(&files.path)),
            None => Ok(()),
        }
    }
}

impl Files {
    fn sync(&mut self) -> io::Result<Lengths> {
        self.events.flush()?;
        self.events.get_ref().sync_all()?;
        Ok(Lengths {
            events: self.events.stream_position()?,
            scalars_file: self.scalars.name().to_string(),
            scalars: self.scalars.sync()?,
        })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        match event {
            Event::Step(Step { step, loss, lr, grad_norm, trainable, rank }) => {
                self.scalars.scalar("train/loss", *step, *loss)?;
                self.scalars.scalar("train/lr", *step, *lr)?;
                self.scalars.scalar("train/grad_norm", *step, *grad_norm)?;
                self.scalars.scalar("train/trainable_parameters", *step, *trainable as f64)?;
                if let Some(rank) = rank {
                    self.scalars.scalar("train/rank", *step, *rank as f64)?;
                }
            }
            Event::Freeze(test) => {
                self.scalars.scalar("freeze/ratio", test.step, test.ratio)?;
                if let Some(threshold) = test.threshold {
                    self.scalars.scalar("freeze/threshold", test.step, threshold)?;
                }
            }
            Event::Evaluation(evaluation) => self.evaluation("eval", evaluation)?,
            Event::Test(evaluation) => self.evaluation("test", evaluation)?,
            Event::Begin { .. } | Event::EarlyStop { .. } | Event::Failed { .. } => {}
        }
        // Whoever watches sees each event when it happens.
        self.events.flush()?;
        // Evaluations and failures are rare and what a reader waits for.
        if matches!(event, Event::Evaluation(_) | Event::Test(_) | Event::Failed { .. }) {
            self.scalars.flush()?;
        }
        Ok(())
    }

    fn evaluation(&mut self, of: &str, evaluation: &Evaluation) -> io::Result<()> {
        let Evaluation { step, metrics, loss, .. } = evaluation;
        for (name, value) in metrics {
            self.scalars.scalar(&format!("{of}/{name}"), *step, value.unwrap_or(f64::NAN))?;
        }
        self.scalars.scalar(&format!("{of}/loss"), *step, *loss)
    }
}
