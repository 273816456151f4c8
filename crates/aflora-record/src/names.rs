//! Names of the files in a run's folder.

use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use aflora_files::write::is_leftover;
use std::io::ErrorKind;
use std::path::Path;

/// The resolved configuration.
pub const CONFIG: &str = "config.yaml";
/// Where everything came from.
pub const PROVENANCE: &str = "provenance.json";
/// What happened, a line an event.
pub const EVENTS: &str = "events.jsonl";
/// How the names of TensorBoard's files begin.
pub const SCALARS: &str = "events.out.tfevents.";
/// The gradients of each step, where they are recorded.
pub const GRADIENTS: &str = "gradients.bin";
/// When each matrix froze.
pub const FREEZES: &str = "freeze.csv";
/// The file whose presence says that the run ended well.
pub const METRICS: &str = "metrics.json";
/// The best evaluation's adapter.
pub const ADAPTER: &str = "adapter";
/// What it takes to go on with an interrupted run.
pub const CHECKPOINTS: &str = "checkpoint";

/// The log of a process that trained along and is not the first.
pub fn log_of(process: usize) -> String {
    format!("process-{process}.log")
}

/// Whether a run's folder holds the file of that name.
///
/// # Errors
/// Something else stands there, such as a pipe, or it cannot be opened ([`Error::is_usage`]).
pub fn holds(folder: &Path, name: &str) -> Result<bool> {
    let path = folder.join(name);
    match aflora_files::open(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::NoFile { path, source }),
    }
}

/// What a written text's predictions of an evaluation are called: by its epoch, or within one by
/// its step.
pub fn predictions(split: &str, evaluation: &Evaluation) -> String {
    let Evaluation { step, epoch, .. } = evaluation;
    match epoch.fract() == 0.0 {
        true => format!("{PREDICTIONS}{split}-epoch{epoch}.jsonl"),
        false => format!("{PREDICTIONS}{split}-step{step}.jsonl"),
    }
}

const PREDICTIONS: &str = "predictions-";

/// Whether a run that starts anew in its folder removes what has this name: it will write it again,
/// or would not.
pub fn is_of_an_earlier_start(name: &str) -> bool {
    let begins = [EVENTS, SCALARS, PREDICTIONS].iter().any(|start| name.starts_with(start));
    begins || [ADAPTER, CHECKPOINTS, FREEZES].contains(&name) || is_leftover(name)
}
