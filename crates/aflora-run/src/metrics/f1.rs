//! F1: 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall, as scikit-learn averages
//! it over classes; those that neither stand among the answers nor are right are no part of it.

use super::counts::{all, mean, of_class_one, total};

/// Of class 1.
pub(super) fn f1(answers: &[i64], right: &[i64]) -> f64 {
    of_class_one(answers, right).f1()
}

/// The mean over classes.
pub(super) fn f1_macro(answers: &[i64], right: &[i64]) -> f64 {
    mean(all(answers, right).map(|counts| (counts.f1(), 1)))
}

/// Of all classes' rows together.
pub(super) fn f1_micro(answers: &[i64], right: &[i64]) -> f64 {
    total(all(answers, right)).f1()
}

/// The mean over classes, each as often as it is right.
pub(super) fn f1_weighted(answers: &[i64], right: &[i64]) -> f64 {
    mean(all(answers, right).map(|counts| (counts.f1(), counts.right)))
}
