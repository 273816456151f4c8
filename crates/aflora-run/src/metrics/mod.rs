//! Metrics, one a file: GLUE's and those of scikit-learn, with the conventions of scikit-learn and
//! scipy, and those of written texts.
//!
//! A metric that its definition leaves open (a correlation with a constant) is `None`, never
//! NaN, so that it cannot win a comparison by accident.
//!
//! A new one is a file with a function of a form of `Measure`, and a line of `METRICS`.

mod accuracy;
mod answers;
mod counts;
mod distance;
mod entities;
mod exact_match;
mod f1;
mod matthews;
mod number_match;
mod pearson;
mod perplexity;
mod precision;
mod ranks;
mod recall;
mod roc_auc;
mod rouge;
mod sets;
mod spearman;

pub use answers::{Answer, Answers, Sort};
pub use distance::mse;
pub use entities::{by_type, entities, Entity};
pub use number_match::last_number;
pub use pearson::pearson as correlation;
pub use sets::of_each;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use std::fmt;
use Better::{Higher, Lower};

/// Of each class whether it is one of a row's.
type ClassSet = Vec<bool>;
/// The tags of a row's words.
type WordTags = Vec<String>;

/// How answers are judged, by what they are: answers first, then what is right.
#[derive(Clone, Copy)]
enum Measure {
    /// Compares the classes of all rows.
    Classes(fn(&[i64], &[i64]) -> f64),
    /// Compares the probabilities of all classes with the rows' own; `None` where the metric is
    /// undefined.
    Probabilities(fn(&[Vec<f64>], &[i64]) -> Option<f64>),
    /// Compares the sets of classes of all rows.
    Sets(fn(&[ClassSet], &[ClassSet]) -> f64),
    /// Compares the tags of the words of all rows.
    Tags(fn(&[WordTags], &[WordTags]) -> f64),
    /// Compares the scores of all rows; `None` where the metric is undefined.
    Scores(fn(&[f64], &[f64]) -> Option<f64>),
    /// Compares the texts row by row, 0 to 1; the metric is their mean.
    Texts(fn(&[String], &[String]) -> Vec<f64>),
    /// Is made of the mean loss of a text's tokens.
    TextLoss(fn(f64) -> f64),
}

/// Which values are better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

/// Every metric: its name in configurations and reports, which values are better, and how it judges.
const METRICS: [(&str, Better, Measure); 32] = [
    ("accuracy", Higher, Measure::Classes(accuracy::accuracy)),
    ("balanced_accuracy", Higher, Measure::Classes(recall::balanced_accuracy)),
    ("f1", Higher, Measure::Classes(f1::f1)),
    ("f1_macro", Higher, Measure::Classes(f1::f1_macro)),
    ("f1_micro", Higher, Measure::Classes(f1::f1_micro)),
    ("f1_weighted", Higher, Measure::Classes(f1::f1_weighted)),
    ("precision", Higher, Measure::Classes(precision::precision)),
    ("precision_macro", Higher, Measure::Classes(precision::precision_macro)),
    ("recall", Higher, Measure::Classes(recall::recall)),
    ("recall_macro", Higher, Measure::Classes(recall::recall_macro)),
    ("matthews", Higher, Measure::Classes(matthews::matthews)),
    ("roc_auc", Higher, Measure::Probabilities(roc_auc::roc_auc)),
    ("pearson", Higher, Measure::Scores(pearson::pearson)),
    ("spearman", Higher, Measure::Scores(spearman::spearman)),
    ("mse", Lower, Measure::Scores(distance::mse)),
    ("mae", Lower, Measure::Scores(distance::mae)),
    ("multilabel_accuracy", Higher, Measure::Sets(sets::accuracy)),
    ("multilabel_f1_micro", Higher, Measure::Sets(sets::f1_micro)),
    ("multilabel_f1_macro", Higher, Measure::Sets(sets::f1_macro)),
    ("multilabel_f1_samples", Higher, Measure::Sets(sets::f1_samples)),
    ("hamming_loss", Lower, Measure::Sets(sets::hamming_loss)),
    ("entity_f1", Higher, Measure::Tags(entities::f1)),
    ("entity_precision", Higher, Measure::Tags(entities::precision)),
    ("entity_recall", Higher, Measure::Tags(entities::recall)),
    ("tag_accuracy", Higher, Measure::Tags(entities::accuracy)),
    ("exact_match", Higher, Measure::Texts(exact_match::exact_match)),
    ("number_match", Higher, Measure::Texts(number_match::number_match)),
    ("rouge1", Higher, Measure::Texts(rouge::rouge1)),
    ("rouge2", Higher, Measure::Texts(rouge::rouge2)),
    ("rougeL", Higher, Measure::Texts(rouge::rouge_l)),
    ("rougeLsum", Higher, Measure::Texts(rouge::rouge_lsum)),
    ("perplexity", Lower, Measure::TextLoss(perplexity::perplexity)),
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

/// A metric.
#[derive(Clone, Copy)]
pub struct Metric {
    name: &'static str,
    better: Better,
    measure: Measure,
}

/// What a metric judges: the answers to a split's rows, and what is right for them.
#[derive(Debug, Clone, Copy)]
pub struct Judgement<'a> {
    /// The answers, row by row.
    pub answers: &'a Answers,
    /// What is right, row by row.
    pub right: &'a Answers,
    /// The probability of each class, row by row, where a metric [asks](Metric::asks_probabilities)
    /// for it.
    pub probabilities: &'a [Vec<f64>],
    /// The mean loss of a token to be written, where texts are; without smoothing.
    pub token_loss: Option<f64>,
}

impl<'a> Judgement<'a> {
    /// Of answers alone.
    pub fn of(answers: &'a Answers, right: &'a Answers) -> Self {
        Judgement { answers, right, probabilities: &[], token_loss: None }
    }
}

impl Metric {
    /// The metric of that name.
    pub fn named(name: &str) -> Option<Metric> {
        let &(name, better, measure) = METRICS.iter().find(|(known, ..)| *known == name)?;
        Some(Metric { name, better, measure })
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
            Measure::Classes(_) | Measure::Probabilities(_) => Sort::Class,
            Measure::Sets(_) => Sort::Set,
            Measure::Tags(_) => Sort::Tags,
            Measure::Scores(_) => Sort::Score,
            Measure::Texts(_) | Measure::TextLoss(_) => Sort::Text,
        }
    }

    /// Whether a lower value is better.
    pub fn is_lower_better(self) -> bool {
        self.better == Lower
    }

    /// Whether it is made of the loss, and compares nothing.
    pub fn is_of_loss(self) -> bool {
        matches!(self.measure, Measure::TextLoss(_))
    }

    /// Whether it is made of the classes' probabilities.
    pub fn asks_probabilities(self) -> bool {
        matches!(self.measure, Measure::Probabilities(_))
    }

    /// The metric's value, of each row where it is a mean over the rows; undefined without rows,
    /// and for answers of a sort that it does not judge.
    pub fn judge(self, given: &Judgement) -> Value {
        if given.right.is_empty() {
            return Value::default();
        }
        let (value, rows) = match (self.measure, given.answers, given.right) {
            (Measure::Classes(of), Answers::Classes(answers), Answers::Classes(right)) => {
                (Some(of(answers, right)), None)
            }
            (Measure::Probabilities(of), _, Answers::Classes(right)) => {
                (of(given.probabilities, right), None)
            }
            (Measure::Sets(of), Answers::Sets(answers), Answers::Sets(right)) => {
                (Some(of(answers, right)), None)
            }
            (Measure::Tags(of), Answers::Tags(answers), Answers::Tags(right)) => {
                (Some(of(answers, right)), None)
            }
            (Measure::Scores(of), Answers::Scores(answers), Answers::Scores(right)) => {
                (of(answers, right), None)
            }
            (Measure::Texts(of), Answers::Texts(answers), Answers::Texts(right)) => {
                let rows = of(answers, right);
                (Some(rows.iter().sum::<f64>() / rows.len() as f64), Some(rows))
            }
            (Measure::TextLoss(of), _, Answers::Texts(_)) => (given.token_loss.map(of), None),
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
