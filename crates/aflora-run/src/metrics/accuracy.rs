//! Accuracy: the share of rows whose class was found.

use super::Predictions;

pub(super) fn accuracy(p: &Predictions) -> f64 {
    let right = p.pairs().filter(|(predicted, expected)| predicted == expected).count();
    right as f64 / p.expected.len() as f64
}
