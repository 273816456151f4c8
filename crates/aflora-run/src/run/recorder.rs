//! What a run writes down while it goes: events for programs, scalars for TensorBoard.

use super::course::null_is_nan;
use super::folder::RunFolder;
use super::tensorboard::{self, open_at, ScalarWriter};
use aflora_core::freeze::FreezeCheck;
use aflora_files::own;
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::PathBuf;

/// One line of `events.jsonl`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The run begins, or goes on.
    Begin {
        /// Optimiser steps of the whole run.
        total_steps: u64,
        /// Of an epoch.
        steps_per_epoch: u64,
        /// The metric that decides which epoch is best.
        selection: String,
    },
    /// Optimiser steps since the last such event.
    Step {
        /// Completed steps.
        step: u64,
        /// Mean training loss since the last event.
        loss: f64,
        /// Learning rate of the projection matrices.
        lr: f64,
        /// Joint gradient norm before clipping, of the last step.
        grad_norm: f64,
        /// Adapter parameters that train.
        trainable: i64,
        /// Rank components in use, where the method changes it.
        #[serde(skip_serializing_if = "Option::is_none")]
        rank: Option<i64>,
    },
    /// A test of which matrices freeze.
    Freeze(&'a FreezeCheck),
    /// An evaluation.
    Evaluation(&'a Evaluation),
    /// The run ended early.
    Failed {
        /// Why.
        error: String,
    },
}

/// The result of an evaluation on the held-out examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// Completed optimiser steps.
    pub step: u64,
    /// Epochs completed, as a fraction within one.
    pub epoch: f64,
    /// Metric values by name; `null` where undefined.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Mean loss over the examples of the first split.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How far the logs were written at a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// Bytes of `events.jsonl`.
    pub events: u64,
    /// The file for TensorBoard.
    pub scalars_file: String,
    /// Its bytes.
    pub scalars: u64,
}

impl Lengths {
    /// Whether the logs in `folder` are as long at least.
    ///
    /// # Errors
    /// They are not, or have names that a run's logs have not.
    pub fn check(&self, folder: &RunFolder) -> Result<()> {
        let scalars = tensorboard::place(folder.path(), &self.scalars_file)?;
        for (path, wanted) in [(folder.path().join(EVENTS), self.events), (scalars, self.scalars)] {
            let length = path.symlink_metadata().map_or(0, |about| about.len());
            if length < wanted {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                bail!("{name} had {wanted} bytes then and has {length} now");
            }
        }
        Ok(())
    }
}

const EVENTS: &str = "events.jsonl";

/// Writes a run's events.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    events: BufWriter<File>,
    scalars: ScalarWriter,
}

impl Recorder {
    /// Starts the event files in `folder`.
    pub fn create(folder: &RunFolder) -> Result<Self> {
        let path = folder.path().join(EVENTS);
        let failed = || format!("{} cannot be written", path.display());
        let events = BufWriter::new(own::create(&path).with_context(failed)?);
        let scalars = ScalarWriter::create(folder.path()).with_context(failed)?;
        Ok(Recorder { path, events, scalars })
    }

    /// Goes on with the event files in `folder`, as they were when they had these lengths.
    pub fn go_on(folder: &RunFolder, lengths: &Lengths) -> Result<Self> {
        let path = folder.path().join(EVENTS);
        let failed = || format!("{} cannot be written", path.display());
        let events = BufWriter::new(open_at(&path, lengths.events).with_context(failed)?);
        let scalars = ScalarWriter::go_on(folder.path(), &lengths.scalars_file, lengths.scalars);
        Ok(Recorder { events, scalars: scalars.with_context(failed)?, path })
    }

    /// Writes everything to the disk, and tells how much there is.
    pub fn sync(&mut self) -> Result<Lengths> {
        let mut sync = || -> std::io::Result<Lengths> {
            self.events.flush()?;
            self.events.get_ref().sync_all()?;
            Ok(Lengths {
                events: self.events.stream_position()?,
                scalars_file: self.scalars.name().to_string(),
                scalars: self.scalars.sync()?,
            })
        };
        sync().with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// Writes one event to both files.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        self.write(event).with_context(|| format!("{} cannot be written", self.path.display()))
    }

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        match event {
            Event::Step { step, loss, lr, grad_norm, trainable, rank } => {
                self.scalars.scalar("train/loss", *step, *loss)?;
                self.scalars.scalar("train/lr", *step, *lr)?;
                self.scalars.scalar("train/grad_norm", *step, *grad_norm)?;
                self.scalars.scalar("train/trainable_parameters", *step, *trainable as f64)?;
                if let Some(rank) = rank {
                    self.scalars.scalar("train/rank", *step, *rank as f64)?;
                }
            }
            Event::Freeze(check) => {
                self.scalars.scalar("freeze/ratio", check.step, check.ratio)?;
                if let Some(threshold) = check.threshold {
                    self.scalars.scalar("freeze/threshold", check.step, threshold)?;
                }
            }
            Event::Evaluation(evaluation) => {
                for (name, value) in &evaluation.metrics {
                    let tag = format!("eval/{name}");
                    self.scalars.scalar(&tag, evaluation.step, value.unwrap_or(f64::NAN))?;
                }
                self.scalars.scalar("eval/loss", evaluation.step, evaluation.loss)?;
            }
            Event::Begin { .. } | Event::Failed { .. } => {}
        }
        // Whoever watches sees each event when it happens.
        self.events.flush()?;
        // Evaluations and failures are rare and what a reader waits for.
        if matches!(event, Event::Evaluation(_) | Event::Failed { .. }) {
            self.scalars.flush()?;
        }
        Ok(())
    }
}
