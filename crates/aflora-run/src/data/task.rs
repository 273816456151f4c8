//! The tasks that ask for labels as one table: the eight of GLUE that the paper runs, and the
//! embedded default. Those that ask for text stand in [`text`](super::text).

use super::error::short;
use super::text::{TextSpec, TEXT_TASKS};
use super::DataError;
use crate::metrics::Metric;
use aflora_models::Head;
use std::str::FromStr;

/// What a label may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Labels {
    /// Classes, numbered in this order.
    Classes(&'static [&'static str]),
    /// A score between two bounds.
    Score(f64, f64),
}

/// Where a task's columns stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Columns {
    /// The first text.
    pub text_a: &'static str,
    /// The second text of a pair.
    pub text_b: Option<&'static str>,
    /// The label.
    pub label: &'static str,
}

/// An evaluation split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalSplit {
    /// Its name in reports.
    pub name: &'static str,
    /// Its file in GLUE's own layout, without `.tsv`.
    pub tsv: &'static str,
    /// Its name on the hub.
    pub hub: &'static str,
}

/// All that is particular to a task.
#[derive(Debug, PartialEq)]
pub struct TaskSpec {
    /// The name in configurations; also the name of its folder on the hub.
    pub name: &'static str,
    /// Its folder in GLUE's own layout.
    pub folder: &'static str,
    /// Its labels, as the files say them.
    pub labels: Labels,
    /// What the classes are called on the hub, in their order; none of a score.
    pub names: &'static [&'static str],
    /// Columns of the TSV files; CoLA's have no header and count from 1.
    pub tsv: Columns,
    /// Whether the TSV files begin with a header.
    pub header: bool,
    /// Whether the published files hold broken rows, which are skipped and counted.
    pub broken_rows: bool,
    /// Columns of the hub's parquet files.
    pub hub: Columns,
    /// What is evaluated on.
    pub evals: &'static [EvalSplit],
    /// What is reported; the first decides which epoch was best.
    pub metrics: &'static [Metric],
}

const DEV: &[EvalSplit] = &[EvalSplit { name: "dev", tsv: "dev", hub: "validation" }];
const BINARY: Labels = Labels::Classes(&["0", "1"]);
const ENTAILMENT_NAMES: &[&str] = &["entailment", "not_entailment"];
const ENTAILMENT: Labels = Labels::Classes(ENTAILMENT_NAMES);

const fn columns(
    text_a: &'static str,
    text_b: Option<&'static str>,
    label: &'static str,
) -> Columns {
    Columns { text_a, text_b, label }
}

/// Every task. The selection metrics are those of the released code.
pub static TASKS: &[TaskSpec] = &[
    TaskSpec {
        name: "cola",
        folder: "CoLA",
        labels: BINARY,
        names: &["unacceptable", "acceptable"],
        tsv: columns("4", None, "2"),
        header: false,
        broken_rows: false,
        hub: columns("sentence", None, "label"),
        evals: DEV,
        metrics: &[Metric::Matthews, Metric::Accuracy],
    },
    TaskSpec {
        name: "sst2",
        folder: "SST-2",
        labels: BINARY,
        names: &["negative", "positive"],
        tsv: columns("sentence", None, "label"),
        header: true,
        broken_rows: false,
        hub: columns("sentence", None, "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy],
    },
    TaskSpec {
        name: "mrpc",
        folder: "MRPC",
        labels: BINARY,
        names: &["not_equivalent", "equivalent"],
        tsv: columns("#1 String", Some("#2 String"), "Quality"),
        header: true,
        broken_rows: false,
        hub: columns("sentence1", Some("sentence2"), "label"),
        evals: DEV,
        metrics: &[Metric::F1, Metric::Accuracy],
    },
    TaskSpec {
        name: "qnli",
        folder: "QNLI",
        labels: ENTAILMENT,
        names: ENTAILMENT_NAMES,
        tsv: columns("question", Some("sentence"), "label"),
        header: true,
        broken_rows: false,
        hub: columns("question", Some("sentence"), "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy],
    },
    TaskSpec {
        name: "stsb",
        folder: "STS-B",
        labels: Labels::Score(0.0, 5.0),
        names: &[],
        tsv: columns("sentence1", Some("sentence2"), "score"),
        header: true,
        broken_rows: false,
        hub: columns("sentence1", Some("sentence2"), "label"),
        evals: DEV,
        metrics: &[Metric::Pearson, Metric::Spearman],
    },
    TaskSpec {
        name: "rte",
        folder: "RTE",
        labels: ENTAILMENT,
        names: ENTAILMENT_NAMES,
        tsv: columns("sentence1", Some("sentence2"), "label"),
        header: true,
        broken_rows: false,
        hub: columns("sentence1", Some("sentence2"), "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy],
    },
    TaskSpec {
        name: "mnli",
        folder: "MNLI",
        labels: Labels::Classes(&["entailment", "neutral", "contradiction"]),
        names: &["entailment", "neutral", "contradiction"],
        tsv: columns("sentence1", Some("sentence2"), "gold_label"),
        header: true,
        broken_rows: false,
        hub: columns("premise", Some("hypothesis"), "label"),
        evals: &[
            EvalSplit { name: "matched", tsv: "dev_matched", hub: "validation_matched" },
            EvalSplit { name: "mismatched", tsv: "dev_mismatched", hub: "validation_mismatched" },
        ],
        metrics: &[Metric::Accuracy],
    },
    TaskSpec {
        name: "qqp",
        folder: "QQP",
        labels: BINARY,
        names: &["not_duplicate", "duplicate"],
        tsv: columns("question1", Some("question2"), "is_duplicate"),
        header: true,
        broken_rows: true,
        hub: columns("question1", Some("question2"), "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy, Metric::F1],
    },
    TaskSpec {
        name: "reviews",
        folder: "reviews",
        labels: Labels::Classes(&["rotten", "fresh"]),
        names: &["rotten", "fresh"],
        tsv: columns("text", None, "category"),
        header: true,
        broken_rows: false,
        hub: columns("text", None, "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy, Metric::F1],
    },
];

/// A task: one of [`TASKS`], or one of [`TEXT_TASKS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task {
    /// Texts get a class or a score.
    Labels(&'static TaskSpec),
    /// Texts get a text.
    Text(&'static TextSpec),
}

impl Task {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Task::Labels(spec) => spec.name,
            Task::Text(spec) => spec.name,
        }
    }

    /// What a model for it answers with.
    pub fn head(self) -> Head {
        match self {
            Task::Labels(TaskSpec { labels: Labels::Classes(names), .. }) => {
                Head::Classes(names.len() as i64)
            }
            Task::Labels(TaskSpec { labels: Labels::Score(..), .. }) => Head::Score,
            Task::Text(_) => Head::Language,
        }
    }

    /// All that is particular to a task that asks for labels.
    pub fn labels(self) -> Option<&'static TaskSpec> {
        match self {
            Task::Labels(spec) => Some(spec),
            Task::Text(_) => None,
        }
    }

    /// What `take` makes of the names that each class goes by; of none for other tasks.
    pub fn with_class_names<T>(self, take: impl FnOnce(&[&[&str]]) -> T) -> T {
        let names = self.labels().map(TaskSpec::class_names).unwrap_or_default();
        take(&names.iter().map(|names| &names[..]).collect::<Vec<_>>())
    }

    /// Whether its data can be fetched.
    pub fn is_on_hub(self) -> bool {
        match self {
            Task::Labels(spec) => spec.name != "reviews",
            Task::Text(spec) => spec.hub.is_some(),
        }
    }

    /// The names that a row's text may have, best first, for each of the task's texts: our own,
    /// the hub's, GLUE's.
    pub fn input_names(self) -> Vec<Vec<&'static str>> {
        match self {
            Task::Text(spec) => vec![vec!["text", spec.input]],
            Task::Labels(TaskSpec { hub, tsv, .. }) => match (hub.text_b, tsv.text_b) {
                (Some(hub_b), Some(tsv_b)) => vec![
                    vec!["text_a", hub.text_a, tsv.text_a, "text"],
                    vec!["text_b", hub_b, tsv_b],
                ],
                _ => vec![vec!["text", hub.text_a, tsv.text_a, "text_a"]],
            },
        }
    }

    /// The names of all tasks.
    pub fn names() -> Vec<&'static str> {
        let labels = TASKS.iter().map(|t| t.name);
        labels.chain(TEXT_TASKS.iter().map(|t| t.name)).collect()
    }
}

impl TaskSpec {
    /// Whether the labels are scores.
    pub fn is_regression(&self) -> bool {
        matches!(self.labels, Labels::Score(..))
    }
}

impl TaskSpec {
    /// The names that each class goes by: in the task's files, and on the hub. None of a score.
    pub fn class_names(&self) -> Vec<[&'static str; 2]> {
        match self.labels {
            Labels::Classes(own) => {
                own.iter().zip(self.names).map(|(own, name)| [*own, *name]).collect()
            }
            Labels::Score(..) => Vec::new(),
        }
    }
}

impl FromStr for Task {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        if let Some(spec) = TASKS.iter().find(|t| t.name == name) {
            return Ok(Task::Labels(spec));
        }
        if let Some(spec) = TEXT_TASKS.iter().find(|t| t.name == name) {
            return Ok(Task::Text(spec));
        }
        let all = Task::names();
        let similar = |t: &&&str| (strsim::jaro_winkler(t, name) * 1e6) as i64;
        let nearest = all.iter().max_by_key(similar).copied().unwrap_or_default();
        Err(DataError::UnknownTask {
            name: name.to_string(),
            nearest: nearest.to_string(),
            all: all.join(", "),
        })
    }
}

impl Labels {
    /// A label from its text: a class's name, or a score.
    pub fn parse(self, text: &str) -> Result<f64, String> {
        match self {
            Labels::Classes(names) => match names.iter().position(|n| *n == text) {
                Some(class) => Ok(class as f64),
                None => {
                    let found = short(text);
                    Err(format!("the label is `{found}`, but must be one of {names:?}"))
                }
            },
            Labels::Score(low, high) => match text.parse::<f64>() {
                Ok(score) if (low..=high).contains(&score) => Ok(score),
                _ => {
                    let found = short(text);
                    Err(format!("the score is `{found}`, but must be between {low} and {high}"))
                }
            },
        }
    }

    /// A label from a number, as the hub stores it.
    pub fn number(self, value: f64) -> Result<f64, String> {
        match self {
            Labels::Classes(names)
                if value.fract() == 0.0 && (0.0..names.len() as f64).contains(&value) =>
            {
                Ok(value)
            }
            Labels::Score(low, high) if (low..=high).contains(&value) => Ok(value),
            Labels::Classes(names) => {
                Err(format!("the label is {value}, but must be 0 to {}", names.len() - 1))
            }
            Labels::Score(low, high) => {
                Err(format!("the score is {value}, but must be between {low} and {high}"))
            }
        }
    }
}
