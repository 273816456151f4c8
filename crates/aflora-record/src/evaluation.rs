//! Evaluations, and the one rule which of them is the best.

use crate::json::null_is_nan;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Values by the names of metrics, in the task's order; none where undefined.
pub type Metrics = IndexMap<String, Option<f64>>;

/// What decides which evaluation is best.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The metric that decides.
    #[serde(rename = "selection")]
    pub metric: String,
    /// The metrics of which lower is better, this one or others. Runs from before there were such
    /// metrics have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lower_is_better: Vec<String>,
}

impl Selection {
    /// By a metric of which higher is better, as of all others.
    pub fn highest(metric: impl Into<String>) -> Self {
        Selection { metric: metric.into(), lower_is_better: Vec::new() }
    }

    /// Whether lower is better of the metric of that name.
    pub fn is_lower_better(&self, metric: &str) -> bool {
        self.lower_is_better.iter().any(|lower| lower == metric)
    }
}

/// The result of an evaluation on the held-out examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Completed optimiser steps.
    pub step: u64,
    /// Epochs completed, as a fraction within one.
    pub epoch: f64,
    /// Metric values by name, `null` where undefined, in the task's order.
    pub metrics: Metrics,
    /// Mean loss over the examples of the first split.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Evaluation {
    /// When it was, in words: `epoch 2`, or within one `step 150, epoch 1.50`.
    pub fn when(&self) -> String {
        match self.epoch.fract() == 0.0 {
            true => format!("epoch {}", self.epoch),
            false => format!("step {}, epoch {:.2}", self.step, self.epoch),
        }
    }

    /// Epochs completed, to two places where it was within one.
    pub fn epochs(&self) -> String {
        match self.epoch.fract() == 0.0 {
            true => self.epoch.to_string(),
            false => format!("{:.2}", self.epoch),
        }
    }

    /// Its metrics in words: `f1 0.7500, accuracy undefined`.
    pub fn in_words(&self) -> String {
        let metrics = self.metrics.iter().map(|(name, value)| match value {
            Some(value) => format!("{name} {value:.4}"),
            None => format!("{name} undefined"),
        });
        metrics.collect::<Vec<_>>().join(", ")
    }

    /// The value of a metric, where it is defined.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied().flatten()
    }

    /// Whether it is better than `other`: by the metric that decides, where undefined counts worst;
    /// of equals by the lower loss, where one that is not finite counts highest.
    pub fn is_better_than(&self, other: &Evaluation, selection: &Selection) -> bool {
        self.rank(selection) > other.rank(selection)
    }

    fn rank(&self, selection: &Selection) -> (f64, f64) {
        let lowest = |value: Option<f64>| {
            value.filter(|value| value.is_finite()).unwrap_or(f64::NEG_INFINITY)
        };
        let sign = if selection.is_lower_better(&selection.metric) { -1.0 } else { 1.0 };
        let value = self.metric(&selection.metric).map(|value| sign * value);
        (lowest(value), lowest(Some(-self.loss)))
    }
}

/// Which evaluation is the best: of equals the first.
pub fn best(evaluations: &[Evaluation], selection: &Selection) -> Option<usize> {
    let better = |best: Option<usize>, i: usize| match best {
        Some(best) if !evaluations[i].is_better_than(&evaluations[best], selection) => Some(best),
        _ => Some(i),
    };
    (0..evaluations.len()).fold(None, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluations(each: &[(Option<f64>, f64)]) -> Vec<Evaluation> {
        let of = |(i, (value, loss)): (usize, &(Option<f64>, f64))| Evaluation {
            step: 10 * (i as u64 + 1),
            epoch: i as f64 + 1.0,
            metrics: [("f1".to_string(), *value)].into(),
            loss: *loss,
            seconds: 1.0,
        };
        each.iter().enumerate().map(of).collect()
    }

    #[test]
    fn the_best_has_the_highest_metric_then_the_lowest_loss_then_comes_first() {
        let selection = Selection::highest("f1");
        let best = |each: &[(Option<f64>, f64)]| best(&evaluations(each), &selection);
        assert_eq!(best(&[]), None);
        assert_eq!(best(&[(Some(0.7), 0.1), (None, 0.0), (Some(0.8), 0.9)]), Some(2));
        assert_eq!(best(&[(Some(0.8), 0.5), (Some(0.8), 0.4), (Some(0.8), 0.4)]), Some(1));
        assert_eq!(best(&[(None, 0.5), (Some(f64::NAN), 0.4)]), Some(1));
    }

    #[test]
    fn of_an_error_the_best_has_the_lowest() {
        let selection =
            Selection { metric: "f1".into(), lower_is_better: vec!["mae".into(), "f1".into()] };
        let best = |each: &[(Option<f64>, f64)]| best(&evaluations(each), &selection);
        assert_eq!(best(&[(Some(0.7), 0.1), (Some(0.2), 0.9), (Some(0.3), 0.1)]), Some(1));
        assert_eq!(best(&[(None, 0.1), (Some(f64::NAN), 0.05), (Some(9.0), 0.9)]), Some(2));
        assert_eq!(best(&[(Some(0.0), 0.5), (Some(-0.0), 0.4)]), Some(1));
    }

    /// Training and `aflora watch` chose different epochs here.
    #[test]
    fn of_equal_metrics_a_loss_that_is_no_number_counts_highest() {
        let nan = (Some(0.5), f64::NAN);
        let selection = Selection::highest("f1");
        let best = |each: &[(Option<f64>, f64)]| best(&evaluations(each), &selection);
        assert_eq!(best(&[nan, nan]), Some(0));
        assert_eq!(best(&[nan, (Some(0.5), 3.0)]), Some(1));
        assert_eq!(best(&[(Some(0.5), 3.0), nan]), Some(0));
        assert_eq!(best(&[(Some(0.5), f64::INFINITY), nan]), Some(0));
    }
}
