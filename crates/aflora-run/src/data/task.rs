//! The tasks as one table: the eight of GLUE that the paper runs, and the embedded default.

use super::DataError;
use crate::metrics::Metric;
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
    /// Its labels.
    pub labels: Labels,
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
const ENTAILMENT: Labels = Labels::Classes(&["entailment", "not_entailment"]);

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
        tsv: columns("text", None, "category"),
        header: true,
        broken_rows: false,
        hub: columns("text", None, "label"),
        evals: DEV,
        metrics: &[Metric::Accuracy, Metric::F1],
    },
];

/// One of [`TASKS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task(&'static TaskSpec);

impl Task {
    /// All that is particular to it.
    pub fn spec(self) -> &'static TaskSpec {
        self.0
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether the labels are scores.
    pub fn is_regression(self) -> bool {
        matches!(self.0.labels, Labels::Score(..))
    }

    /// How many logits the model needs.
    pub fn outputs(self) -> i64 {
        match self.0.labels {
            Labels::Classes(names) => names.len() as i64,
            Labels::Score(..) => 1,
        }
    }

    /// What is reported; the first decides which epoch was best.
    pub fn metrics(self) -> &'static [Metric] {
        self.0.metrics
    }
}

impl FromStr for Task {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        if let Some(spec) = TASKS.iter().find(|t| t.name == name) {
            return Ok(Task(spec));
        }
        let similar = |t: &&TaskSpec| (strsim::jaro_winkler(t.name, name) * 1e6) as i64;
        let nearest = TASKS.iter().max_by_key(similar).map_or("", |t| t.name);
        let all: Vec<&str> = TASKS.iter().map(|t| t.name).collect();
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
                None => Err(format!("the label is `{text}`, but must be one of {names:?}")),
            },
            Labels::Score(low, high) => match text.parse::<f64>() {
                Ok(score) if (low..=high).contains(&score) => Ok(score),
                _ => Err(format!("the score is `{text}`, but must be between {low} and {high}")),
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
