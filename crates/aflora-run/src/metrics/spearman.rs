//! Spearman rank correlation: Pearson of the ranks, ties sharing their average rank.

use super::pearson::pearson;
use super::ranks::ranks;

pub(super) fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}
