//! Recall: TP / (TP + FN), and 0 where nothing is of the class.

use super::counts::{all, mean, of_class_one};

/// Of class 1.
pub(super) fn recall(answers: &[i64], right: &[i64]) -> f64 {
    of_class_one(answers, right).recall()
}

/// The mean over the classes that stand among the answers or are right.
pub(super) fn recall_macro(answers: &[i64], right: &[i64]) -> f64 {
    mean(all(answers, right).map(|counts| (counts.recall(), 1)))
}

/// Balanced accuracy: the mean over the classes that are right for some row.
pub(super) fn balanced_accuracy(answers: &[i64], right: &[i64]) -> f64 {
    let classes = all(answers, right).filter(|counts| counts.right > 0);
    mean(classes.map(|counts| (counts.recall(), 1)))
}
