//! What a text may not do, or does less gladly: repeat itself, end too early, begin or end otherwise
//! than the model wants.

use super::past::Past;
use super::{GenerationConfig, SpecialTokens};
use tch::{Kind, Tensor};

/// The rules of one search.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub config: &'a GenerationConfig,
    pub tokens: &'a SpecialTokens,
}

impl Rules<'_> {
    /// Whether what stands before a token matters.
    pub(super) fn remember(&self) -> bool {
        self.config.repetition_penalty != 1.0 || self.config.no_repeat_ngram_size > 0
    }

    /// Applies the rules to the scores of the next token, `[texts, vocabulary]`, of texts that have
    /// `written` tokens, `[texts]`, behind their prompts. `past` is all that stands before it, where
    /// the rules [remember](Self::remember) that. Nothing comes to the host.
    pub(super) fn apply(&self, scores: Tensor, past: Option<&Past>, written: &Tensor) -> Tensor {
        let vocabulary = scores.size()[1];
        let mut scores = scores;
        if let Some(past) = past {
            scores = self.penalised(scores, past);
            let size = self.config.no_repeat_ngram_size as i64;
            if size > 0 {
                scores = scores.masked_fill(&past.repeating(size, vocabulary), f64::NEG_INFINITY);
            }
        }
        let written = written.unsqueeze(1);
        let least = self.config.min_new_tokens as i64;
        if least > 0 && !self.tokens.eos.is_empty() {
            let ends = among(&self.tokens.eos, &scores);
            scores = scores.masked_fill(&ends.logical_and(&written.lt(least)), f64::NEG_INFINITY);
        }
        let last = self.config.max_new_tokens as i64 - 1;
        let bos = self.tokens.forced_bos.filter(|_| self.tokens.decoder_start.is_some());
        // At the only token of a text, its end comes before its beginning.
        for (token, place) in [(bos, 0), (self.tokens.forced_eos, last)] {
            let Some(token) = token else { continue };
            let only = scores.full_like(f64::NEG_INFINITY);
            let _ = only.narrow(1, token, 1).fill_(0.0);
            scores = only.where_self(&written.eq(place), &scores);
        }
        scores
    }

    /// The scores with those of tokens that were there before made smaller.
    fn penalised(&self, scores: Tensor, past: &Past) -> Tensor {
        let penalty = self.config.repetition_penalty;
        if penalty == 1.0 {
            return scores;
        }
        let less = (&scores * penalty).where_self(&scores.lt(0.0), &(&scores / penalty));
        less.where_self(&past.tokens(scores.size()[1]), &scores)
    }
}

/// True at these tokens, `[1, vocabulary]`, for scores `[texts, vocabulary]`.
fn among(tokens: &[i64], scores: &Tensor) -> Tensor {
    let all = Tensor::zeros([1, scores.size()[1]], (Kind::Bool, scores.device()));
    for &token in tokens {
        let _ = all.narrow(1, token, 1).fill_(1.0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Texts, of which the first tokens fill up a batch.
    fn past(texts: &[&[i64]]) -> Past {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0) as i64;
        let past = Past::new(texts.len() as i64, longest + 2, Device::Cpu);
        for (row, text) in (0i64..).zip(texts) {
            let lengths = Tensor::from_slice(&[text.len() as i64]);
            past.put(&Tensor::from_slice(&[row]), &Tensor::from_slice(text).unsqueeze(0), &lengths);
        }
        past
    }

    fn sorted(history: &[i64], size: i64) -> Vec<i64> {
        let all = past(&[history]).repeating(size, 8).get(0).nonzero();
        Vec::try_from(all.view(-1)).unwrap()
    }

    #[test]
    fn repetition_is_punished_as_in_transformers() {
        let golden = include_str!("../../tests/fixtures/sampling.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let of = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
        let matrix = |value: &serde_json::Value| {
            let rows: Vec<Vec<Option<f32>>> = serde_json::from_value(value.clone()).unwrap();
            let row = |row: Vec<Option<f32>>| -> Vec<f32> {
                row.into_iter().map(|x| x.unwrap_or(f32::NEG_INFINITY)).collect()
            };
            Tensor::from_slice2(&rows.into_iter().map(row).collect::<Vec<_>>())
        };
        let history: Vec<Vec<i64>> = serde_json::from_value(golden["history"].clone()).unwrap();
        let padding: Vec<usize> = serde_json::from_value(golden["padding"].clone()).unwrap();
        let texts: Vec<&[i64]> =
            history.iter().zip(padding).map(|(text, padding)| &text[padding..]).collect();
        let written = Tensor::full([texts.len() as i64], 4, (Kind::Int64, Device::Cpu));
        for case in golden["penalties"].as_array().unwrap() {
            let config: GenerationConfig = of(&case["settings"]);
            let rules = Rules { config: &config, tokens: &SpecialTokens::default() };
            let found = rules.apply(matrix(&golden["scores"]), Some(&past(&texts)), &written);
            assert_eq!(found, matrix(&case["scores"]), "{}", case["settings"]);
        }
    }

    #[test]
    fn a_run_comes_once_at_most() {
        assert_eq!(sorted(&[1, 2, 3, 1, 2, 4, 1, 2], 3), [3, 4]);
        assert_eq!(sorted(&[1, 2, 3, 1], 2), [2]);
        assert_eq!(sorted(&[5, 6, 5], 1), [5, 6]);
        assert!(sorted(&[1, 2], 3).is_empty());
        assert!(sorted(&[1, 2], 30).is_empty());
        assert!(sorted(&[1], 3).is_empty());
    }

    #[test]
    fn texts_that_stand_side_by_side_are_told_each_by_its_own_length() {
        let tokens = SpecialTokens { eos: vec![3], forced_eos: Some(3), ..Default::default() };
        let config = GenerationConfig {
            max_new_tokens: 5,
            min_new_tokens: 2,
            no_repeat_ngram_size: 2,
            ..Default::default()
        };
        let rules = Rules { config: &config, tokens: &tokens };
        let scores = Tensor::zeros([3, 5], (Kind::Float, Device::Cpu));
        let past = past(&[&[1, 2, 1], &[2, 1, 4, 4, 2], &[1]]);
        let found = rules.apply(scores, Some(&past), &Tensor::from_slice(&[1i64, 2, 4]));
        let none = f32::NEG_INFINITY;
        let expected = [
            [0.0, 0.0, none, none, 0.0],
            [0.0, none, 0.0, 0.0, 0.0],
            [none, none, none, 0.0, none],
        ];
        assert_eq!(found, Tensor::from_slice2(&expected));
    }
}
