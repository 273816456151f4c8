//! What an experiment found: one JSON file with its provenance, the source of every report.
//!
//! A file holds all that a report shows, so reports can be made again without the runs. Files are
//! named `<experiment>-<profile>.json` and lie in `experiments/results`.

use crate::by_class::ByClass;
use crate::error::{Error, Result};
use crate::evaluation::{Evaluation, Selection};
use crate::freezes::Matrix;
use crate::history::{FreezePoint, StepPoint};
use crate::provenance::{Environment, Provenance};
use crate::settings::run_name;
use crate::summary::{EarlyStop, FlopsPerToken, Parameters, Test, Times};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};

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

/// The profile that changes nothing.
pub const PAPER: &str = "paper";

impl Results {
    /// Reads a results file.
    ///
    /// # Errors
    /// It cannot be read, is no results file, or holds a cell twice: it would weigh double, or
    /// say two things.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = aflora_files::read(path).map_err(Error::read(path))?;
        let read = serde_json::from_slice(&bytes).map_err(Error::content(path, "file of results"));
        let results: Results = read.map_err(|error| error.with_writer(writer(&bytes)))?;
        let cells = results.cells.iter();
        let each = cells.map(|cell| (&cell.model, &cell.task, &cell.method, cell.seed));
        if let Some((model, task, method, seed)) = twice(each) {
            let cell = run_name(task, model, method, seed);
            return Err(Error::Twice { path: path.to_path_buf(), cell });
        }
        Ok(results)
    }

    /// Writes a results file into `folder`, which is made if it is not there, and gives its path.
    ///
    /// A `part` of a grid, or one with other settings, does not take the name of the whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path, part: bool) -> Result<PathBuf> {
        let part = if part { "-part" } else { "" };
        let path = folder.join(format!("{}-{}{part}.json", self.experiment, self.profile));
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut text = serde_json::to_string(self)?;
            text.push('\n');
            aflora_files::write(&path, text.as_bytes())
        };
        write().map_err(Error::write(&path))?;
        Ok(path)
    }
}

/// What wrote a file of another version's form, as its first run tells.
fn writer(bytes: &[u8]) -> Option<String> {
    let whole: Value = serde_json::from_slice(bytes).ok()?;
    let runs = whole.get("cells")?.as_array()?;
    let environment = runs.iter().find_map(|run| run.pointer("/provenance/environment"))?;
    Environment::deserialize(environment).ok()?.program()
}

/// The first item that stands there for the second time.
pub fn twice<T: Eq + Hash + Clone>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
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
    /// Precision, recall and F1 by class, and confusion matrices.
    Classes,
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
    /// The best variant of each method whose settings were swept, and whether it lies at an end.
    Best,
}

/// A method, or a variant of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// The statement in words.
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
    /// The name of the method's row.
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
        /// Why it did.
        error: String,
    },
    /// It ran to its end.
    Done(Box<Finding>),
}

/// What a finished run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// What chose the best epoch.
    #[serde(flatten)]
    pub selection: Selection,
    /// The best epoch's evaluation; metric values are fractions (0.9191, not 91.91).
    pub best: Evaluation,
    /// That evaluation's answers, class by class, of each split of a task with classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_class: Vec<ByClass>,
    /// What the best evaluation's adapter came to on the split that is judged once, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Adapter parameters that trained.
    pub parameters: Parameters,
    /// Optimiser steps.
    pub steps: u64,
    /// Why there are no more of them, where the run ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Matrix products a token in the adapted layers.
    pub flops_per_token: FlopsPerToken,
    /// Seconds of wall time.
    pub seconds: Times,
    /// Tokens trained on a second.
    pub tokens_per_second: f64,
    /// The most memory in use, in bytes.
    pub peak_memory: Option<u64>,
    /// Where it ran.
    pub device: String,
    /// Losses while it trained, thinned out.
    pub curve: Vec<StepPoint>,
    /// Tests of which matrices freeze, thinned out; those that froze something are all here.
    pub checks: Vec<FreezePoint>,
    /// Every matrix that trained at the start.
    pub matrices: Vec<Matrix>,
    /// The settings as they were resolved, without places of this machine.
    pub settings: Value,
    /// Code and library versions, machine, digests of data and weights.
    pub provenance: Provenance,
}
