//! Of sets of classes: the share of rows whose set is found whole, and F1 with the conventions of
//! scikit-learn for indicator matrices.

pub(super) fn accuracy(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let hits = answers.iter().zip(right).filter(|(answer, right)| answer == right).count();
    hits as f64 / right.len() as f64
}

/// Of all decisions together.
pub(super) fn f1_micro(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let classes = 0..right.first().map_or(0, Vec::len);
    let counts = classes.map(|class| counts(answers, right, class));
    f1(counts.fold([0; 2], |[hits, wrong], [more_hits, more_wrong]| {
        [hits + more_hits, wrong + more_wrong]
    }))
}

/// The mean over the classes.
pub(super) fn f1_macro(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let classes = right.first().map_or(0, Vec::len);
    let sum: f64 = (0..classes).map(|class| f1(counts(answers, right, class))).sum();
    sum / classes as f64
}

/// The mean over the rows.
pub(super) fn f1_samples(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let row = |(answer, right): (&Vec<bool>, &Vec<bool>)| {
        let hits = answer.iter().zip(right).filter(|(answer, right)| **answer && **right).count();
        let wrong = answer.iter().zip(right).filter(|(answer, right)| answer != right).count();
        f1([hits as u64, wrong as u64])
    };
    answers.iter().zip(right).map(row).sum::<f64>() / right.len() as f64
}

/// The share of all decisions that are wrong.
pub(super) fn hamming_loss(answers: &[Vec<bool>], right: &[Vec<bool>]) -> f64 {
    let classes = right.first().map_or(0, Vec::len);
    let wrong = (0..classes).map(|class| counts(answers, right, class)[1]).sum::<u64>();
    wrong as f64 / (classes * right.len()) as f64
}

/// 2 TP / (2 TP + FP + FN), and 0 where nothing is positive.
fn f1([hits, wrong]: [u64; 2]) -> f64 {
    match hits {
        0 => 0.0,
        _ => 2.0 * hits as f64 / (2 * hits + wrong) as f64,
    }
}

/// How often the class is rightly found; and wrongly found, or missed.
fn counts(answers: &[Vec<bool>], right: &[Vec<bool>], class: usize) -> [u64; 2] {
    let (mut hits, mut wrong) = (0, 0);
    for (answer, right) in answers.iter().zip(right) {
        match (answer.get(class) == Some(&true), right.get(class) == Some(&true)) {
            (true, true) => hits += 1,
            (false, false) => {}
            _ => wrong += 1,
        }
    }
    [hits, wrong]
}
