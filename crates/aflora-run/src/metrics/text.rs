//! Metrics of written texts.

use super::number::same_number;
use rougers::{RougeScorer, RougeType, Tokenizer};
use serde::{Deserialize, Serialize};

/// How good written texts are; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TextMetric {
    /// Share of texts that are the wanted one, white space at the ends apart.
    #[serde(rename = "exact_match")]
    ExactMatch,
    /// Share of texts whose last number is the wanted text's answer.
    #[serde(rename = "number_match")]
    NumberMatch,
    /// Mean F1 of words, with stemming.
    #[serde(rename = "rouge1")]
    Rouge1,
    /// Mean F1 of pairs of words, with stemming.
    #[serde(rename = "rouge2")]
    Rouge2,
    /// Mean F1 of the longest common subsequence of words, with stemming.
    #[serde(rename = "rougeL")]
    RougeL,
    /// The same, a line at a time.
    #[serde(rename = "rougeLsum")]
    RougeLsum,
}

impl TextMetric {
    /// The name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            TextMetric::ExactMatch => "exact_match",
            TextMetric::NumberMatch => "number_match",
            TextMetric::Rouge1 => "rouge1",
            TextMetric::Rouge2 => "rouge2",
            TextMetric::RougeL => "rougeL",
            TextMetric::RougeLsum => "rougeLsum",
        }
    }

    /// The score of every text, 0 to 1, for pairs of what was written and what was wanted.
    pub fn scores(self, pairs: &[(String, String)]) -> Vec<f64> {
        let share = |ok: bool| if ok { 1.0 } else { 0.0 };
        let score = |f: &dyn Fn(&str, &str) -> f64| pairs.iter().map(|(w, t)| f(w, t)).collect();
        match self {
            TextMetric::ExactMatch => score(&|w, t| share(w.trim() == t.trim())),
            TextMetric::NumberMatch => score(&|w, t| share(same_number(w, t))),
            TextMetric::Rouge1 => rouge(RougeType::N(1), pairs),
            TextMetric::Rouge2 => rouge(RougeType::N(2), pairs),
            TextMetric::RougeL => rouge(RougeType::L, pairs),
            TextMetric::RougeLsum => rouge(RougeType::LSum, pairs),
        }
    }

    /// The mean score; `None` without texts.
    pub fn compute(self, pairs: &[(String, String)]) -> Option<f64> {
        let scores = self.scores(pairs);
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// Google's rouge-score, by a library that reproduces it.
fn rouge(kind: RougeType, pairs: &[(String, String)]) -> Vec<f64> {
    // Fails for pairs of more than nine words only.
    let Ok(scorer) = RougeScorer::with_tokenizer(vec![kind], Tokenizer::new(true)) else {
        return vec![0.0; pairs.len()];
    };
    let f1 = |(written, wanted): &(String, String)| {
        scorer.score(wanted, written).get(kind).map_or(0.0, |score| score.fmeasure)
    };
    pairs.iter().map(f1).collect()
}
