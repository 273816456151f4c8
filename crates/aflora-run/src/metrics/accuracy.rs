//! Accuracy: the share of rows whose class was found.

pub(super) fn accuracy(answers: &[i64], right: &[i64]) -> f64 {
    let hits = answers.iter().zip(right).filter(|(answer, right)| answer == right).count();
    hits as f64 / right.len() as f64
}
