//! What an experiment found: one JSON file with its provenance, the source of every report.
//!
//! A file holds all that a report shows, so reports can be made again without the runs. Files are
//! named `<experiment>-<profile>.json` and lie in `experiments/results`.

use super::fields::twice;
use crate::run::recorder::Evaluation;
use crate::run::summary::{Operations, Parameters, Times};
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The results of an experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The experiment's name, such as `table4`.
    pub experiment: String,
    /// The profile that was run, such as `small`.
    pub profile: String,
    /// What is compared, and how it is shown.
    pub layout: Layout,
    /// One for each model, task, method and seed, in the experiment's order.
    pub cells: Vec<Cell>,
}

impl Results {
    /// Reads a results file.
    ///
    /// # Errors
    /// It cannot be read, is no results file, or holds a cell twice: it would weigh double, or
    /// say two things.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            aflora_files::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let results: Results = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no file of results", path.display()))?;
        let cells = results.cells.iter();
        let each = cells.map(|cell| (&cell.model, &cell.task, &cell.method, cell.seed));
        if let Some((model, task, method, seed)) = twice(each) {
            bail!(
                "{}: the cell {task}-{model}-{method}-seed{seed} stands twice; leave one of them",
                path.display()
            );
        }
        Ok(results)
    }
}

/// What is compared, and how it is shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Layout {
    /// What the experiment is, in a line.
    pub title: String,
    /// What it asks and how, in some sentences of Markdown.
    #[serde(default)]
    pub about: String,
    /// What to show, in this order.
    pub show: Vec<View>,
    /// Rows of tables: methods and their variants.
    pub methods: Vec<MethodRow>,
    /// Columns of tables.
    pub tasks: Vec<TaskColumn>,
    /// The row that all others are compared with, paired over seeds.
    #[serde(default)]
    pub reference: Option<String>,
    /// What the paper says should come out.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// The models that the experiment file names: those that the paper's values are of. Results
    /// from before this was kept have none.
    #[serde(default)]
    pub paper_models: Option<Vec<String>>,
}

/// A way of showing results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Methods by tasks: mean ± standard deviation over seeds, the paper's value, the difference.
    Table,
    /// Paired differences from the reference, with confidence intervals.
    Differences,
    /// Dev metric by epoch, and training loss by step.
    Curves,
    /// Trainable parameters by step.
    Trainable,
    /// Layer × matrix: the step at which each froze (Figure 5).
    Heatmap,
    /// r(t), the threshold and the scores of the matrices by step.
    Threshold,
    /// Runtime, operations and parameters as shares of the largest (Figure 3).
    Bars,
}

/// A method, or a variant of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodRow {
    /// The name that cells carry.
    pub name: String,
    /// What people read.
    pub label: String,
    /// The paper's values: by task (in points, such as 91.91), and `average` or `parameters`.
    #[serde(default)]
    pub paper: BTreeMap<String, f64>,
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskColumn {
    /// The name that cells carry.
    pub name: String,
    /// What people read.
    pub label: String,
    /// The metric to show, one of the cells' `metrics`; by itself that which chose the epoch.
    #[serde(default)]
    pub metric: Option<String>,
}

/// An ordering that the paper states.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Claim {
    /// In words.
    pub says: String,
    /// Names of methods, from the lower to the higher average over tasks.
    pub order: Vec<String>,
}

/// One run of the grid.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The model.
    pub model: String,
    /// The task.
    pub task: String,
    /// The method's row.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the settings that decide the result.
    pub digest: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What became of a cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// Not run, or not to its end.
    Missing,
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
    /// It ran to its end.
    Done(Box<Finding>),
}

/// What a finished run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// The metric that chose the best epoch.
    pub selection: String,
    /// The best epoch's evaluation; metric values are fractions (0.9191, not 91.91).
    pub best: Evaluation,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Adapter parameters that trained.
    pub parameters: Parameters,
    /// Optimiser steps.
    pub steps: u64,
    /// Matrix products a token in the adapted layers.
    pub flops_per_token: Operations,
    /// Seconds of wall time.
    pub seconds: Times,
    /// Tokens trained on a second.
    pub tokens_per_second: f64,
    /// The most memory in use, in bytes.
    pub peak_memory: Option<u64>,
    /// Where it ran.
    pub device: String,
    /// Losses while it trained, thinned out.
    pub curve: Vec<Point>,
    /// Tests of which matrices freeze, thinned out; those that froze something are all here.
    pub checks: Vec<Check>,
    /// Every matrix that trained at the start.
    pub matrices: Vec<Matrix>,
    /// The settings as they were resolved, without places of this machine.
    pub settings: serde_json::Value,
    /// Code and library versions, machine, digests of data and weights.
    pub provenance: serde_json::Value,
}

/// A recorded step.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Point {
    /// Completed steps.
    pub step: u64,
    /// Mean training loss since the last one.
    pub loss: f64,
    /// Adapter parameters that trained.
    pub trainable: i64,
}

/// A test of which matrices freeze.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Check {
    /// Completed steps before it.
    pub step: u64,
    /// r(t).
    pub ratio: f64,
    /// The score that decided.
    pub threshold: Option<f64>,
    /// Matrices that trained up to now.
    pub trained: usize,
    /// How many of them froze now.
    pub frozen: usize,
    /// The lowest, the median and the highest of their mean scores.
    pub scores: [f64; 3],
}

/// A projection matrix that trained at the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Matrix {
    /// Its full name, such as `bert.encoder.layer.0.intermediate.dense.lora_A`.
    pub name: String,
    /// `attention` or `ffn`.
    pub block: String,
    /// Elements.
    pub elements: i64,
    /// The step at which it froze, if it did.
    pub frozen_at: Option<u64>,
}
