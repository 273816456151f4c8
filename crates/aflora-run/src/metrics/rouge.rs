//! ROUGE: mean F1 of words that answer and right text share, with stemming, as Google's
//! rouge-score computes it, by a library that reproduces it.

use rougers::{RougeScorer, RougeType, Tokenizer};

/// ROUGE-1: the overlap of single words.
pub(super) fn rouge1(answers: &[String], right: &[String]) -> Vec<f64> {
    rouge(RougeType::N(1), answers, right)
}

/// ROUGE-2: the overlap of pairs of words that follow each other.
pub(super) fn rouge2(answers: &[String], right: &[String]) -> Vec<f64> {
    rouge(RougeType::N(2), answers, right)
}

/// Of the longest common subsequence of words.
pub(super) fn rouge_l(answers: &[String], right: &[String]) -> Vec<f64> {
    rouge(RougeType::L, answers, right)
}

/// Of the longest common subsequence, a line at a time.
pub(super) fn rouge_lsum(answers: &[String], right: &[String]) -> Vec<f64> {
    rouge(RougeType::LSum, answers, right)
}

fn rouge(kind: RougeType, answers: &[String], right: &[String]) -> Vec<f64> {
    // Fails for pairs of more than nine words only.
    let Ok(scorer) = RougeScorer::with_tokenizer(vec![kind], Tokenizer::new(true)) else {
        return vec![0.0; right.len()];
    };
    let f1 = |(answer, right): (&String, &String)| {
        scorer.score(right, answer).get(kind).map_or(0.0, |score| score.fmeasure)
    };
    answers.iter().zip(right).map(f1).collect()
}
