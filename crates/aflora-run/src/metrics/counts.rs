//! How often each class is right and was answered, for metrics of classes.

use aflora_record::by_class::Counts;
use std::collections::BTreeMap;

/// Of class 1.
pub(super) fn of_class_one(answers: &[i64], right: &[i64]) -> Counts {
    let mut counts = Counts::default();
    for (answer, right) in answers.iter().zip(right) {
        counts.add(*right == 1, *answer == 1);
    }
    counts
}

/// Of each class that stands among the answers or is right for a row.
pub(super) fn all(answers: &[i64], right: &[i64]) -> impl Iterator<Item = Counts> {
    let mut counts: BTreeMap<i64, Counts> = BTreeMap::new();
    for (answer, right) in answers.iter().zip(right) {
        counts.entry(*right).or_default().add(true, answer == right);
        if answer != right {
            counts.entry(*answer).or_default().add(false, true);
        }
    }
    counts.into_values()
}

/// Of all of these together.
pub(super) fn total(all: impl Iterator<Item = Counts>) -> Counts {
    all.fold(Counts::default(), Counts::plus)
}

/// The mean of values that each count so often; 0 where none counts.
pub(super) fn mean(values: impl Iterator<Item = (f64, u64)>) -> f64 {
    let add = |(sum, count), (value, n)| (sum + value * n as f64, count + n);
    match values.fold((0.0, 0), add) {
        (_, 0) => 0.0,
        (sum, count) => sum / count as f64,
    }
}
