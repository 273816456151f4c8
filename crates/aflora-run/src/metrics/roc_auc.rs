//! Area under the ROC curve: how likely a row of the class has a higher probability of it than one
//! of no such class, ties counted half (Mann and Whitney's statistic).

use super::ranks::ranks;

/// With two classes, of class 1; with more, the mean over classes of each against all others.
/// Undefined where a class is right for no row, or for all of them.
pub(super) fn roc_auc(probabilities: &[Vec<f64>], right: &[i64]) -> Option<f64> {
    let classes = probabilities.first()?.len();
    let first = if classes == 2 { 1 } else { 0 };
    let areas: Option<Vec<f64>> =
        (first..classes).map(|class| area(probabilities, right, class)).collect();
    let areas = areas?;
    Some(areas.iter().sum::<f64>() / areas.len() as f64)
}

/// Of one class against all others.
fn area(probabilities: &[Vec<f64>], right: &[i64], class: usize) -> Option<f64> {
    let of_class: Option<Vec<f64>> =
        probabilities.iter().map(|row| row.get(class).copied().filter(|p| !p.is_nan())).collect();
    let ranks = ranks(&of_class?);
    let is_right = |right: &i64| usize::try_from(*right) == Ok(class);
    let (mut sum, mut positive) = (0.0, 0.0);
    for (rank, _) in ranks.iter().zip(right).filter(|(_, right)| is_right(right)) {
        sum += rank;
        positive += 1.0;
    }
    let negative = right.len() as f64 - positive;
    if positive == 0.0 || negative == 0.0 {
        return None;
    }
    Some((sum - positive * (positive + 1.0) / 2.0) / (positive * negative))
}
