//! Precision: TP / (TP + FP), and 0 where nothing was given the class.

use super::counts::{all, mean, of_class_one};

/// Of class 1.
pub(super) fn precision(answers: &[i64], right: &[i64]) -> f64 {
    of_class_one(answers, right).precision()
}

/// The mean over the classes that stand among the answers or are right.
pub(super) fn precision_macro(answers: &[i64], right: &[i64]) -> f64 {
    mean(all(answers, right).map(|counts| (counts.precision(), 1)))
}
