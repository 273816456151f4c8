//! Matthews correlation, for any number of classes (Gorodkin's form, as scikit-learn has it).
//!
//! (c s - Σ pₖ tₖ) / √((s² - Σ pₖ²)(s² - Σ tₖ²)), with s rows, c right ones, pₖ predictions of
//! and tₖ labels in class k; 0 where either side is constant.

use std::collections::BTreeMap;

pub(super) fn matthews(answers: &[i64], right: &[i64]) -> f64 {
    let mut counts: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    let mut hits = 0.0;
    for (answer, right) in answers.iter().zip(right) {
        counts.entry(*answer).or_default().0 += 1.0;
        counts.entry(*right).or_default().1 += 1.0;
        hits += f64::from(answer == right);
    }
    let rows = right.len() as f64;
    let sum = |f: fn(&(f64, f64)) -> f64| counts.values().map(f).sum::<f64>();
    let covariance = hits * rows - sum(|(p, t)| p * t);
    let (predicted, expected) =
        (rows * rows - sum(|(p, _)| p * p), rows * rows - sum(|(_, t)| t * t));
    if predicted == 0.0 || expected == 0.0 {
        return 0.0;
    }
    covariance / (predicted * expected).sqrt()
}
