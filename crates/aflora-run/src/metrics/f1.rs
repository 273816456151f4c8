//! F1 of class 1: 2 TP / (2 TP + FP + FN), and 0 where nothing is positive.

pub(super) fn f1(answers: &[i64], right: &[i64]) -> f64 {
    let (mut hits, mut wrong) = (0u64, 0u64);
    for (answer, right) in answers.iter().zip(right) {
        match (*answer == 1, *right == 1) {
            (true, true) => hits += 1,
            (false, false) => {}
            _ => wrong += 1,
        }
    }
    if hits == 0 {
        return 0.0;
    }
    2.0 * hits as f64 / (2 * hits + wrong) as f64
}
