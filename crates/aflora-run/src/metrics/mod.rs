//! Metrics, one a file: GLUE's, with the conventions of scikit-learn and scipy, and those of
//! written texts.
//!
//! A metric that its definition leaves open (a correlation with a constant) is `None`, never
//! NaN, so that it cannot win a comparison by accident.

mod accuracy;
mod f1;
mod matthews;
mod number;
mod pearson;
mod spearman;
mod text;

pub use number::last_number;
pub use text::TextMetric;

use serde::{Deserialize, Serialize};

/// What was predicted and what is right, row by row: class numbers or scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// The model's answers.
    pub predicted: Vec<f64>,
    /// The labels.
    pub expected: Vec<f64>,
}

impl Predictions {
    /// (predicted, expected) pairs.
    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.predicted.iter().copied().zip(self.expected.iter().copied())
    }
}

/// A metric; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Share of right answers.
    Accuracy,
    /// F1 of class 1.
    F1,
    /// Matthews correlation of two classes or more.
    Matthews,
    /// Pearson correlation.
    Pearson,
    /// Spearman rank correlation.
    Spearman,
}

impl Metric {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::Matthews => "matthews",
            Metric::Pearson => "pearson",
            Metric::Spearman => "spearman",
        }
    }

    /// The metric's value; `None` where it is undefined, as it always is without rows.
    pub fn compute(self, p: &Predictions) -> Option<f64> {
        if p.expected.is_empty() {
            return None;
        }
        let value = match self {
            Metric::Accuracy => accuracy::accuracy(p),
            Metric::F1 => f1::f1(p),
            Metric::Matthews => matthews::matthews(p),
            Metric::Pearson => pearson::pearson(&p.predicted, &p.expected)?,
            Metric::Spearman => spearman::spearman(p)?,
        };
        value.is_finite().then_some(value)
    }
}
