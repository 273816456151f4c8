//! Exact match: the share of texts that are the right one, white space at the ends apart.

pub(super) fn exact_match(answers: &[String], right: &[String]) -> Vec<f64> {
    let same = |(answer, right): (&String, &String)| f64::from(answer.trim() == right.trim());
    answers.iter().zip(right).map(same).collect()
}
