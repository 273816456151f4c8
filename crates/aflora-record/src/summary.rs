//! What a finished run is judged by: `metrics.json`.

use crate::by_class::ByClass;
use crate::error::Result;
use crate::evaluation::{Evaluation, Selection};
use crate::names::METRICS;
use crate::{json, provenance};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The content of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The task's name.
    pub task: String,
    /// The model's name.
    pub model: String,
    /// The method block's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// What decides which epoch was best.
    #[serde(flatten)]
    pub selection: Selection,
    /// The best epoch's evaluation; `adapter/` holds its weights.
    pub best: Evaluation,
    /// The best evaluation's answers, class by class, of each split of a task with classes. Runs
    /// from before this was kept have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_class: Vec<ByClass>,
    /// What the best evaluation's adapter came to on the split that is judged once, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// The last epoch's evaluation.
    pub last: Evaluation,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Adapter parameters that trained (the head is not counted).
    pub parameters: Parameters,
    /// Optimiser steps.
    pub steps: u64,
    /// Why there are no more of them, where the run ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Those of them that moved nothing, since loss or gradient was not finite.
    #[serde(default)]
    pub skipped_steps: u64,
    /// Matrix products a token in the adapted layers.
    pub flops_per_token: FlopsPerToken,
    /// Where it ran.
    pub device: String,
    /// Seconds of wall time.
    pub seconds: Times,
    /// Tokens trained on a second of training, padding not counted.
    pub tokens_per_second: f64,
    /// The most memory in use, in bytes.
    pub peak_memory: Option<u64>,
    /// The most bytes that tensors took on the device at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_tensors: Option<u64>,
}

/// What came of the split that is judged once, when training is over, with the best adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// The split.
    pub split: String,
    /// The evaluation on it, by the step and epoch of the adapter.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// The answers class by class, of a task with classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_class: Vec<ByClass>,
}

/// A run that ended early, since evaluations became no better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// Evaluations in a row that were no better than the best before them.
    pub patience: u64,
    /// Optimiser steps that the run would have had.
    pub total_steps: u64,
}

/// Parameter counts, as the paper takes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// Trainable at the first step.
    pub at_start: i64,
    /// Trainable at the last step.
    pub at_end: i64,
    /// Average over all steps.
    pub time_average: f64,
    /// Of the task head, on top of these.
    pub head: i64,
}

/// Floating-point operations a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlopsPerToken {
    /// Of the frozen weights of the adapted layers.
    pub frozen_weights: Operations,
    /// Operations of the paths beside them, at the first step.
    pub paths_at_start: Operations,
    /// Operations of the paths beside them, at the last step.
    pub paths_at_end: Operations,
}

impl FlopsPerToken {
    /// Frozen weights and paths together, at the first step.
    pub fn at_start(&self) -> i64 {
        self.frozen_weights.total().saturating_add(self.paths_at_start.total())
    }

    /// Frozen weights and paths together, at the last step.
    pub fn at_end(&self) -> i64 {
        self.frozen_weights.total().saturating_add(self.paths_at_end.total())
    }
}

/// Operations of the forward and of the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Operations of the forward pass.
    pub forward: i64,
    /// Operations of the backward pass.
    pub backward: i64,
}

impl Operations {
    /// Operations of the forward and the backward pass together.
    pub fn total(self) -> i64 {
        self.forward.saturating_add(self.backward)
    }
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Training steps.
    pub training: f64,
    /// Evaluations.
    pub evaluation: f64,
    /// Median of a training step; on a GPU, where steps are only queued, the mean.
    pub median_step: f64,
}

impl Summary {
    /// Reads that of the finished run in `folder`.
    ///
    /// # Errors
    /// The run did not finish ([`Error::is_missing`](crate::Error::is_missing)), or its summary is
    /// damaged.
    pub fn read(folder: &Path) -> Result<Summary> {
        let read = json::read(&folder.join(METRICS), "summary of a run");
        read.map_err(|error| error.with_writer(provenance::writer(folder)))
    }

    /// Writes it, and so says that the run in `folder` ended well.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        json::write(&folder.join(METRICS), self)
    }
}
