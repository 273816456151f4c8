//! How far scores are from the right ones.

/// Mean squared error.
pub fn mse(answers: &[f64], right: &[f64]) -> Option<f64> {
    mean(answers, right, |distance| distance * distance)
}

/// Mean absolute error.
pub(super) fn mae(answers: &[f64], right: &[f64]) -> Option<f64> {
    mean(answers, right, f64::abs)
}

/// The mean of what is made of each distance; it has no value where a distance has none.
fn mean(answers: &[f64], right: &[f64], of: impl Fn(f64) -> f64) -> Option<f64> {
    let sum: f64 = answers.iter().zip(right).map(|(answer, right)| of(answer - right)).sum();
    Some(sum / right.len() as f64)
}
