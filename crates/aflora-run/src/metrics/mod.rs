//! Metrics, one a file: GLUE's, with the conventions of scikit-learn and scipy, and those of
//! written texts.
//!
//! A metric that its definition leaves open (a correlation with a constant) is `None`, never
//! NaN, so that it cannot win a comparison by accident.
//!
//! A new one is a file with a function of a form of `Measure`, and a line of `METRICS`.

mod accuracy;
mod answers;
mod exact_match;
mod f1;
mod matthews;
mod number_match;
mod pearson;
mod rouge;
mod spearman;

pub use answers::{Answer, Answers, Sort};
pub use number_match::last_number;
pub use pearson::pearson as correlation;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use std::fmt;

/// How answers are judged, by what they are: answers first, then what is right.
#[derive(Clone, Copy)]
enum Measure {
    /// Compares the classes of all rows.
    Classes(fn(&[i64], &[i64]) -> f64),
    /// Compares the scores of all rows; `None` where the metric is undefined.
    Scores(fn(&[f64], &[f64]) -> Option<f64>),
    /// Compares the texts row by row, 0 to 1; the metric is their mean.
    Texts(fn(&[String], &[String]) -> Vec<f64>),
}

/// Every metric: its name in configurations and reports, and how it judges.
const METRICS: [(&str, Measure); 11] = [
    ("accuracy", Measure::Classes(accuracy::accuracy)),
    ("f1", Measure::Classes(f1::f1)),
    ("matthews", Measure::Classes(matthews::matthews)),
    ("pearson", Measure::Scores(pearson::pearson)),
    ("spearman", Measure::Scores(spearman::spearman)),
    ("exact_match", Measure::Texts(exact_match::exact_match)),
    ("number_match", Measure::Texts(number_match::number_match)),
    ("rouge1", Measure::Texts(rouge::rouge1)),
    ("rouge2", Measure::Texts(rouge::rouge2)),
    ("rougeL", Measure::Texts(rouge::rouge_l)),
    ("rougeLsum", Measure::Texts(rouge::rouge_lsum)),
];

const fn names() -> [&'static str; METRICS.len()] {
    let mut names = [""; METRICS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = METRICS[i].0;
        i += 1;
    }
    names
}

/// A metric; higher is better.
#[derive(Clone, Copy)]
pub struct Metric {
    name: &'static str,
    measure: Measure,
}

impl Metric {
    /// The metric of that name.
    pub fn named(name: &str) -> Option<Metric> {
        let &(name, measure) = METRICS.iter().find(|(known, _)| *known == name)?;
        Some(Metric { name, measure })
    }

    /// The names of all metrics.
    pub fn names() -> &'static [&'static str] {
        static NAMES: [&str; METRICS.len()] = names();
        &NAMES
    }

    /// The name in configurations and reports.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// What it judges.
    pub fn judges(self) -> Sort {
        match self.measure {
            Measure::Classes(_) => Sort::Class,
            Measure::Scores(_) => Sort::Score,
            Measure::Texts(_) => Sort::Text,
        }
    }

    /// The metric's value, of each row where it is a mean over the rows; undefined without rows,
    /// and for answers of a sort that it does not judge.
    pub fn judge(self, answers: &Answers, right: &Answers) -> Value {
        if right.is_empty() {
            return Value::default();
        }
        let (value, rows) = match (self.measure, answers, right) {
            (Measure::Classes(of), Answers::Classes(answers), Answers::Classes(right)) => {
                (Some(of(answers, right)), None)
            }
            (Measure::Scores(of), Answers::Scores(answers), Answers::Scores(right)) => {
                (of(answers, right), None)
            }
            (Measure::Texts(of), Answers::Texts(answers), Answers::Texts(right)) => {
                let rows = of(answers, right);
                (Some(rows.iter().sum::<f64>() / rows.len() as f64), Some(rows))
            }
            _ => (None, None),
        };
        Value { value: value.filter(|value| value.is_finite()), rows }
    }
}

/// What a metric found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Value {
    /// Of all rows; `None` where it is undefined.
    pub value: Option<f64>,
    /// Of each row, if it is the mean of these.
    pub rows: Option<Vec<f64>>,
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Metric) -> bool {
        self.name == other.name
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

impl JsonSchema for Metric {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": Metric::names() })
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Metric::named(&name).ok_or_else(|| D::Error::unknown_variant(&name, Metric::names()))
    }
}
