//! Of sets of classes: the share of rows whose set is found whole, the share of decisions that are
//! wrong, and F1 with the conventions of scikit-learn for indicator matrices.

use super::counts::total;
use aflora_record::by_class::Counts;

pub(super) fn accuracy(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let hits = answers.iter().zip(right).filter(|(answer, right)| answer == right).count();
    hits as f64 / right.len() as f64
}

/// Of all decisions together.
pub(super) fn f1_micro(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    total(of_each(answers, right).into_iter()).f1()
}

/// The mean over the classes.
pub(super) fn f1_macro(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let counts = of_each(answers, right);
    counts.iter().map(|class| class.f1()).sum::<f64>() / counts.len() as f64
}

/// The mean over the rows.
pub(super) fn f1_samples(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let row = |(answer, right): (&Vec<bool>, &Vec<bool>)| {
        let mut counts = Counts::default();
        right.iter().zip(answer).for_each(|(right, answer)| counts.add(*right, *answer));
        counts.f1()
    };
    answers.iter().zip(right).map(row).sum::<f64>() / right.len() as f64
}

/// The share of all decisions that are wrong.
pub(super) fn hamming_loss(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let counts = of_each(answers, right);
    let wrong = |class: &Counts| class.right + class.answered - 2 * class.hits;
    counts.iter().map(wrong).sum::<u64>() as f64 / (counts.len() * right.len()) as f64
}

/// Of each class.
pub fn of_each(answers: &[Vec<bool>], right: &[Vec<bool>]) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); right.first().map_or(0, Vec::len)];
    for (answer, right) in answers.iter().zip(right) {
        for (class, counts) in counts.iter_mut().enumerate() {
            counts.add(right.get(class) == Some(&true), answer.get(class) == Some(&true));
        }
    }
    counts
}
